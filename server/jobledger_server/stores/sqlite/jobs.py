"""One job: creating, reading, changing, deleting."""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from jobledger.v1.events_pb2 import Event

from jobledger_server.core.ports import IdempotencyKey, InvariantError, JobChange, JobRecord, KeyedJobDeletedError
from jobledger_server.core.times import micros
from jobledger_server.stores.sqlite import artifacts, events, idempotency, receipts, retention
from jobledger_server.stores.sqlite.cache import Entry
from jobledger_server.stores.sqlite.rows import SELECT_RECORDS, TERMINAL, columns_of, groups_column, record_of, row_of
from jobledger_server.stores.sqlite.writer import Transaction

INSERT = """
INSERT INTO jobs (
  job_id, state, attempt, job_type, workspace_id, priority, created_at, queued_at, started_at, completed_at,
  eligible_at, last_activity_at, cancel_requested_at, cancel_requested_by, cancel_reason, cancel_grace_seconds,
  concurrency_groups, origin, job
) VALUES (
  :job_id, :state, :attempt, :job_type, :workspace_id, :priority, :created_at, :queued_at, :started_at, :completed_at,
  :eligible_at, :last_activity_at, :cancel_requested_at, :cancel_requested_by, :cancel_reason, :cancel_grace_seconds,
  :concurrency_groups, :origin, :job
) RETURNING number
"""

# What is not here was fixed when the job was created.
UPDATE = """
UPDATE jobs SET
  state = :state, attempt = :attempt, queued_at = :queued_at, started_at = :started_at, completed_at = :completed_at,
  eligible_at = :eligible_at, last_activity_at = :last_activity_at, cancel_requested_at = :cancel_requested_at,
  cancel_requested_by = :cancel_requested_by, cancel_reason = :cancel_reason,
  cancel_grace_seconds = :cancel_grace_seconds, origin = :origin, job = :job
WHERE job_id = :job_id
"""


def create(
    transaction: Transaction, record: JobRecord, job_events: Sequence[Event], key: IdempotencyKey | None
) -> JobRecord:
    """Stores a new job, or answers with the job that the key stands for, as it is now."""
    connection = transaction.connection
    if key is not None:
        key = idempotency.as_seen(connection, key, record.job.workspace_id, now=micros(record.job.created_at))
        known = idempotency.job_number(connection, key, now=micros(record.job.created_at))
        if known is not None:
            return _keyed(connection, known)
    columns = columns_of(record)
    (number,) = connection.execute(INSERT, columns).fetchone()
    if record.job.labels:
        connection.executemany(
            "INSERT INTO job_labels (job_number, key, value, created_at, job_id) VALUES (?, ?, ?, ?, ?)",
            [(number, *label, columns["created_at"], record.job.job_id) for label in record.job.labels.items()],
        )
    if key is not None:
        idempotency.remember(connection, key, job_number=number)
    events.append(transaction, job_events)
    transaction.leave(record.job.job_id, Entry(row_of(number, columns), ()))
    return replace(record, number=number)


def get(connection: sqlite3.Connection, job_id: str) -> JobRecord | None:
    row = connection.execute(f"{SELECT_RECORDS} WHERE job_id = ?", (job_id,)).fetchone()
    return None if row is None else record_of(row)


def update(transaction: Transaction, job_id: str, decide: Callable[[JobRecord], JobChange | None]) -> JobRecord | None:
    """Lets `decide` see the record and stores its answer.

    Raises:
        InvariantError: the change is of a terminal job, or of what was fixed when the job was created.
    """
    connection = transaction.connection
    stored = get(connection, job_id)
    if stored is None:
        return None
    change = decide(stored)
    if change is None:
        return stored
    # Activity may have been noted since the caller looked at the clock.
    latest = max(stored.last_activity_at, change.record.last_activity_at)
    record = replace(
        change.record,
        number=stored.number,
        last_activity_at=latest,
        concurrency_groups=stored.concurrency_groups,
    )
    _refuse_impossible(stored, record)
    known, columns = transaction.take(job_id), columns_of(record)
    connection.execute(UPDATE, columns)
    if change.artifacts_anew and not (known and known.has_no_artifacts):
        artifacts.drop(connection, record.number)
    if change.artifacts:
        artifacts.add(connection, record.number, change.artifacts)
    if change.receipt is not None:
        receipts.add(connection, record.job, change.receipt)
    retention.note(connection, record, change.kept)
    events.append(transaction, change.events)
    transaction.leave(job_id, Entry(row_of(record.number, columns), _artifacts_after(change, known)))
    return record


def _artifacts_after(change: JobChange, known: Entry | None) -> Sequence[bytes] | None:
    """All artifacts of the job after a change, by path, where that can be told without reading them."""
    if change.artifacts_anew:
        return [artifacts.stored(artifact) for artifact in sorted(change.artifacts, key=lambda artifact: artifact.path)]
    return known.artifacts if known and not change.artifacts else None


def record_activity(transaction: Transaction, job_id: str, at: int) -> None:
    known = transaction.take(job_id)
    transaction.connection.execute(
        "UPDATE jobs SET last_activity_at = ? WHERE job_id = ? AND last_activity_at < ?", (at, job_id, at)
    )
    if known is not None:
        number, job, last, *rest = known.row
        transaction.leave(job_id, replace(known, row=(number, job, max(last, at), *rest)))


def set_concurrency_groups(transaction: Transaction, groups: Mapping[str, Sequence[str]]) -> None:
    for job_id in groups:
        transaction.take(job_id)
    transaction.connection.executemany(
        "UPDATE jobs SET concurrency_groups = ? WHERE job_id = ?",
        [(groups_column(names), job_id) for job_id, names in groups.items()],
    )


def delete(transaction: Transaction, job_id: str) -> bool:
    """Deletes the job; labels, keys and artifacts go with it by their references."""
    transaction.take(job_id)
    return transaction.connection.execute("DELETE FROM jobs WHERE job_id = ?", (job_id,)).rowcount > 0


def _keyed(connection: sqlite3.Connection, number: int) -> JobRecord:
    row = connection.execute(f"{SELECT_RECORDS} WHERE number = ?", (number,)).fetchone()
    if row is None:
        raise KeyedJobDeletedError
    return record_of(row)


def _refuse_impossible(stored: JobRecord, record: JobRecord) -> None:
    before, after = stored.job, record.job
    if before.state in TERMINAL:
        raise InvariantError(f"{before.job_id} is terminal and never changes again")
    for name in ("job_id", "job_type", "workspace_id", "created_at", "labels"):
        if getattr(before, name) != getattr(after, name):
            raise InvariantError(f"{name} of {before.job_id} was fixed when it was created")
