"""What is kept for a time only: noted when a job ends, found by age, forgotten when it is gone."""

import json
import sqlite3
from collections.abc import Collection, Sequence
from pathlib import Path

from jobledger_server.core.ports import EndedJob, JobRecord, Kept
from jobledger_server.core.times import micros
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


def forget(transaction: Transaction, kept: Kept, job_ids: Collection[str]) -> None:
    connection = transaction.connection
    forgotten = connection.execute(FORGET, (kept.value, json.dumps([*job_ids]))).fetchall()
    connection.executemany(
        NOTHING_LEFT,
        [{"jobs": Kept.JOBS.value, "ended_at": ended_at, "number": number} for number, ended_at in forgotten],
    )


def unknown_jobs(connection: sqlite3.Connection, job_ids: Collection[str]) -> set[str]:
    rows = connection.execute(
        "SELECT job_id FROM jobs WHERE job_id IN (SELECT value FROM json_each(?))", (json.dumps([*job_ids]),)
    )
    return set(job_ids) - {job_id for (job_id,) in rows}


def unneeded_blobs(connection: sqlite3.Connection, hashes: Collection[str]) -> set[str]:
    rows = connection.execute(
        "SELECT sha256 FROM artifacts WHERE sha256 IN (SELECT value FROM json_each(?))", (json.dumps([*hashes]),)
    )
    return set(hashes) - {sha256 for (sha256,) in rows}


def size(path: Path) -> int:
    """Bytes of the database file and of those that SQLite keeps beside it."""
    return sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*"))
