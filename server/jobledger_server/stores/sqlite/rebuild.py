"""A new database out of what an archive has kept of another one."""

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from jobledger.v1.job_pb2 import Artifact

from jobledger_server.core.ports import JobRecord, Kept, StoredReceipt
from jobledger_server.stores.sqlite import artifacts, counters, retention
from jobledger_server.stores.sqlite.connection import connect
from jobledger_server.stores.sqlite.jobs import INSERT
from jobledger_server.stores.sqlite.migrate import migrate, shipped_migrations
from jobledger_server.stores.sqlite.rows import columns_of

# Numbers that the lost database may have given since the archive saw it last are not given again. A cursor of its
# events is older than all that the new one keeps, and is told so.
EVENTS_AHEAD, ARTIFACTS_AHEAD, JOBS_AHEAD = 2**32, 2**32, 2**16


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptJob:
    """A receipt, with its place in the log and its workspace; and its job, None where that was deleted before."""

    job_id: str
    receipt: StoredReceipt
    record: JobRecord | None = None
    artifacts: Sequence[Artifact] = ()
    kept: Sequence[Kept] = ()


def rebuild(path: Path, jobs: Iterable[KeptJob], *, events: Callable[[], int]) -> bytes:
    """Makes a database with these receipts and jobs, and nothing else, durably. A token is made at its first start.

    Args:
        path: where there is no file yet.
        events: asked for the highest number of an event that is known of, once all jobs are there.

    Returns:
        The last leaf; empty where there is none.

    Raises:
        sqlite3.Error: it can't be written.
        InvariantError, ValueError: what is to be stored is not coherent; the file is of no use then.
    """
    path.touch(mode=0o600, exist_ok=False)
    with closing(connect(path, busy_timeout=1.0)) as connection:
        migrate(connection, shipped_migrations())
        connection.execute("BEGIN IMMEDIATE")
        highest, last = [0, 0], b""
        for job in jobs:
            _add(connection, job)
            last = job.receipt.leaf
            number = job.record.number if job.record else 0
            highest = [max(highest[0], number), max(highest[1], *(it.id for it in job.artifacts), 0)]
        _count_on(connection, number=highest[0], artifact=highest[1], event=events())
        connection.execute("COMMIT")
        # Nothing is left beside the file, which is going to be renamed.
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return last


def part_ways(path: Path) -> None:
    """Has a copy of a database give no number that the original may have given since it was made.

    Its events go: who has read on in the original is told that the cursor is too old, and not given another history.

    Raises:
        sqlite3.Error: it can't be written.
    """
    with closing(connect(path, busy_timeout=1.0)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("DELETE FROM events")
        given = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'jobs'").fetchone()
        artifact, event = counters.last(connection, "artifact"), counters.last(connection, "event")
        _count_on(connection, number=given[0] if given else 0, artifact=artifact, event=event)
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _add(connection: sqlite3.Connection, job: KeptJob) -> None:
    receipt, record = job.receipt, job.record
    connection.execute(
        "INSERT INTO receipts (leaf_index, job_id, workspace_id, receipt, envelope, leaf) VALUES (?, ?, ?, ?, ?, ?)",
        (receipt.leaf_index, job.job_id, receipt.workspace_id, receipt.receipt, receipt.envelope, receipt.leaf),
    )
    if record is None:
        return
    (given,) = connection.execute(INSERT, columns_of(record)).fetchone()
    connection.execute("UPDATE jobs SET number = ? WHERE number = ?", (record.number, given))
    connection.executemany(
        "INSERT INTO job_labels (job_number, key, value, created_at, job_id) VALUES (?, ?, ?, ?, ?)",
        [
            (record.number, *label, record.job.created_at.ToMicroseconds(), record.job.job_id)
            for label in record.job.labels.items()
        ],
    )
    artifacts.add(connection, record.number, job.artifacts)
    retention.note(connection, record, job.kept)


def _count_on(connection: sqlite3.Connection, *, number: int, artifact: int, event: int) -> None:
    """Has the next numbers lie beyond all that were ever given."""
    next_event = (event // EVENTS_AHEAD + 1) * EVENTS_AHEAD
    connection.execute("UPDATE counters SET last = ? WHERE name = 'event'", (next_event,))
    connection.execute("UPDATE counters SET last = ? WHERE name = 'artifact'", (artifact + ARTIFACTS_AHEAD,))
    connection.execute("DELETE FROM sqlite_sequence WHERE name = 'jobs'")
    connection.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('jobs', ?)", (number + JOBS_AHEAD,))
