"""Ledgers of any length, written by the store's own functions."""

import itertools
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from jobledger.v1.job_pb2 import Job
from jobledger_server.core.ports import JobRecord
from jobledger_server.core.times import SECOND
from jobledger_server.stores.sqlite import jobs
from jobledger_server.stores.sqlite.connection import connect
from jobledger_server.stores.sqlite.migrate import migrate, shipped_migrations
from jobledger_server.stores.sqlite.writer import Transaction
from support.records import CANCELLED, COMPLETED, FAILED, NOW, a_job_id, a_record

BATCH, CACHE_KIB = 20_000, 1 << 20
# Without common divisors, so that none goes in step with another; states are of ten.
WORKSPACES, RARE_TYPE_EVERY, LABEL_EVERY = 7, 11, 101
# Terminal ones only: a server would go about the others when it starts. Seven of ten have completed.
STATES = (COMPLETED,) * 7 + (FAILED,) * 2 + (CANCELLED,)


def write_ledger(data_dir: Path, count: int) -> None:
    """A database of so many jobs, a second apart; states, workspaces, types and labels spread evenly over them."""
    data_dir.mkdir(mode=0o700, parents=True)
    path = data_dir / "jobledger.db"
    path.touch(mode=0o600)
    with closing(connect(path, busy_timeout=1.0)) as connection:
        migrate(connection, shipped_migrations())
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        records = _records(count)
        for _ in range(0, count, BATCH):
            connection.execute("BEGIN IMMEDIATE")
            for record in itertools.islice(records, BATCH):
                jobs.create(Transaction(connection), record, (), None)
            connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _records(count: int) -> Iterator[JobRecord]:
    """The records, oldest first. Of each kind there is one object, changed in place: a million take long to make."""
    kinds: dict[tuple[int, int, bool, bool], JobRecord] = {}
    for number in range(count):
        rare, labelled = number % RARE_TYPE_EVERY == 0, number % LABEL_EVERY == 0
        kind = (number % len(STATES), number % WORKSPACES, rare, labelled)
        record = kinds[kind] if kind in kinds else kinds.setdefault(kind, _record(*kind))
        _move(record.job, NOW - (count - number) * SECOND)
        yield record


def _record(state: int, workspace: int, rare: bool, labelled: bool) -> JobRecord:
    return a_record(
        STATES[state],
        workspace_id=f"workspace-{workspace}",
        job_type="rare" if rare else "command",
        labels={"batch": "rare"} if labelled else None,
    )


def _move(job: Job, created_at: int) -> None:
    """Makes it another job, of that instant (microseconds since the epoch)."""
    job.job_id = a_job_id(created_at)
    job.run_id = job.job_id.replace("job_", "run_")
    for instant in (job.created_at, job.queued_at, job.started_at, job.completed_at):
        instant.FromMicroseconds(created_at)
