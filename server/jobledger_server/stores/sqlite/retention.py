"""What is kept for a time only: noted when a job ends, found by age, forgotten when it is gone."""

import json
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from jobledger.v1.job_pb2 import Job

from jobledger_server.core.ports import LOGS, EndedJob, JobRecord, Kept
from jobledger_server.core.times import micros, timestamp
from jobledger_server.stores.sqlite.writer import Transaction

ENDED = """
SELECT job_id, job_number, ended_at
FROM kept_of_jobs CROSS JOIN jobs ON number = job_number
WHERE kept = :kept AND ended_at < :before AND (ended_at, job_number) > (:after_time, :after_number)
ORDER BY ended_at, job_number LIMIT :limit
"""

FORGET = """
DELETE FROM kept_of_jobs
WHERE kept = ? AND job_number IN (SELECT number FROM jobs WHERE job_id IN (SELECT value FROM json_each(?)))
RETURNING job_number, ended_at
"""

NOTHING_LEFT = """
INSERT INTO kept_of_jobs (kept, ended_at, job_number)
SELECT :jobs, :ended_at, :number WHERE NOT EXISTS (SELECT 1 FROM kept_of_jobs WHERE job_number = :number)
"""


# Of the job NUMBER: whether all that is still kept of it is older than its rule has it, so that it goes in one pass.
# `:due` is a JSON object of the instants; what is not in it is kept for ever.
GOES = """
EXISTS (SELECT 1 FROM kept_of_jobs AS its WHERE its.job_number = NUMBER)
AND NOT EXISTS (
  SELECT 1 FROM kept_of_jobs AS its WHERE its.job_number = NUMBER AND its.ended_at >= min(
    coalesce((SELECT value FROM json_each(:due) WHERE key = its.kept), :never),
    coalesce((SELECT value FROM json_each(:due) WHERE key = :jobs), :never)
  )
)
"""
ENDED_JOBS = "SELECT count(*) FROM (SELECT DISTINCT job_number FROM kept_of_jobs) AS ended"
COUNT_DUE = f"{ENDED_JOBS} WHERE {GOES.replace('NUMBER', 'ended.job_number')}"
NEEDED = "SELECT sha256 FROM artifacts WHERE sha256 IN (SELECT value FROM json_each(:hashes))"
NEEDED_THEN = f"{NEEDED} AND NOT ({GOES.replace('NUMBER', 'artifacts.job_number')})"


def note(connection: sqlite3.Connection, record: JobRecord, kept: Sequence[Kept]) -> None:
    connection.executemany(
        "INSERT INTO kept_of_jobs (kept, ended_at, job_number) VALUES (?, ?, ?)",
        [(one.value, micros(record.job.completed_at), record.number) for one in kept],
    )


def ended(
    connection: sqlite3.Connection, kept: Kept, *, before: int, limit: int, after: EndedJob | None
) -> Sequence[EndedJob]:
    values = {
        "kept": kept.value,
        "before": before,
        "after_time": after.ended_at if after else -(2**63),
        "after_number": after.number if after else 0,
        "limit": limit,
    }
    return [
        EndedJob(job_id=job_id, number=number, ended_at=ended_at)
        for job_id, number, ended_at in connection.execute(ENDED, values)
    ]


def forget(transaction: Transaction, kept: Kept, job_ids: Collection[str], *, at: int) -> None:
    connection = transaction.connection
    forgotten = connection.execute(FORGET, (kept.value, json.dumps([*job_ids]))).fetchall()
    for number, _ in forgotten:
        _say_so(transaction, kept, number, at)
    connection.executemany(
        NOTHING_LEFT,
        [{"jobs": Kept.JOBS.value, "ended_at": ended_at, "number": number} for number, ended_at in forgotten],
    )


def _say_so(transaction: Transaction, kept: Kept, number: int, at: int) -> None:
    """Has the job itself tell that this is gone. What its receipt tells is another matter, and stays."""
    job = Job.FromString(
        transaction.connection.execute("SELECT job FROM jobs WHERE number = ?", (number,)).fetchone()[0]
    )
    if kept in LOGS:
        if not job.HasField("started_at") or job.HasField("log_removed_at"):
            # It never ran, so that there was no log; or it says so since before the database was made anew.
            return
        job.log_removed_at.CopyFrom(timestamp(at))
    else:
        job.ClearField("job_dir")
    transaction.take(job.job_id)
    stored = job.SerializeToString(deterministic=True)
    transaction.connection.execute("UPDATE jobs SET job = ? WHERE number = ?", (stored, number))


def unknown_jobs(connection: sqlite3.Connection, job_ids: Collection[str]) -> set[str]:
    rows = connection.execute(
        "SELECT job_id FROM jobs WHERE job_id IN (SELECT value FROM json_each(?))", (json.dumps([*job_ids]),)
    )
    return set(job_ids) - {job_id for (job_id,) in rows}


def count_due_jobs(connection: sqlite3.Connection, due: Mapping[Kept, int]) -> int:
    if Kept.JOBS not in due:
        return 0
    (count,) = connection.execute(COUNT_DUE, _of(due)).fetchone()
    return int(count)


def unneeded_blobs(
    connection: sqlite3.Connection, hashes: Collection[str], due: Mapping[Kept, int] | None = None
) -> set[str]:
    values = {"hashes": json.dumps([*hashes])}
    if due is None or Kept.JOBS not in due:
        rows = connection.execute(NEEDED, values)
    else:
        rows = connection.execute(NEEDED_THEN, {**values, **_of(due)})
    return set(hashes) - {sha256 for (sha256,) in rows}


def _of(due: Mapping[Kept, int]) -> dict[str, object]:
    instants = {kept.value: instant for kept, instant in due.items()}
    return {"due": json.dumps(instants), "jobs": Kept.JOBS.value, "never": -(2**63)}


def size(path: Path) -> int:
    """Bytes of the database file and of those that SQLite keeps beside it."""
    return sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*"))
