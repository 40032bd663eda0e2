"""One job: creating, reading, changing, deleting."""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from jobledger.v1.events_pb2 import Event

from jobledger_server.core.ports import IdempotencyKey, JobChange, JobRecord, KeyedJobDeletedError
from jobledger_server.core.times import micros
from jobledger_server.stores.errors import InvariantError
from jobledger_server.stores.sqlite import artifacts, events, idempotency, receipts, retention
from jobledger_server.stores.sqlite.rows import SELECT_RECORDS, TERMINAL, columns_of, groups_column, record_of
from jobledger_server.stores.sqlite.writer import Transaction

INSERT = """
INSERT INTO jobs (
  job_id, state, attempt, job_type, workspace_id, priority, created_at, queued_at, started_at, completed_at,
  eligible_at, last_activity_at, cancel_requested_at, cancel_requested_by, cancel_reason, cancel_grace_seconds,
  concurrency_groups, job
) VALUES (
  :job_id, :state, :attempt, :job_type, :workspace_id, :priority, :created_at, :queued_at, :started_at, :completed_at,
  :eligible_at, :last_activity_at, :cancel_requested_at, :cancel_requested_by, :cancel_reason, :cancel_grace_seconds,
  :concurrency_groups, :job
) RETURNING number
"""

# What is not here was fixed when the job was created.
UPDATE = """
UPDATE jobs SET
  state = :state, attempt = :attempt, queued_at = :queued_at, started_at = :started_at, completed_at = :completed_at,
  eligible_at = :eligible_at, last_activity_at = :last_activity_at, cancel_requested_at = :cancel_requested_at,
  cancel_requested_by = :cancel_requested_by, cancel_reason = :cancel_reason,
  cancel_grace_seconds = :cancel_grace_seconds, job = :job
WHERE job_id = :job_id
"""


def create(
    transaction: Transaction, record: JobRecord, job_events: Sequence[Event], key: IdempotencyKey | None
) -> JobRecord:
    """Stores a new job, or answers with the job that the key stands for, as it is now."""
    connection = transaction.connection
    if key is not None:
        known = idempotency.job_number(connection, key, now=micros(record.job.created_at))
        if known is not None:
            return _keyed(connection, known)
    (number,) = connection.execute(INSERT, columns_of(record)).fetchone()
    connection.executemany(
        "INSERT INTO job_labels (job_number, key, value, created_at, job_id) VALUES (?, ?, ?, ?, ?)",
        [(number, *label, micros(record.job.created_at), record.job.job_id) for label in record.job.labels.items()],
    )
    if key is not None:
        idempotency.remember(connection, key, job_number=number)
    events.append(transaction, job_events)
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
    record = replace(change.record, number=stored.number, last_activity_at=latest)
    _refuse_impossible(stored, record)
    connection.execute(UPDATE, columns_of(record))
    if change.artifacts_anew:
        artifacts.drop(connection, record.number)
    artifacts.add(connection, record.number, change.artifacts)
    if change.receipt is not None:
        receipts.add(connection, record.job, change.receipt)
    retention.note(connection, record, change.kept)
    events.append(transaction, change.events)
    return record


def record_activity(transaction: Transaction, job_id: str, at: int) -> None:
    transaction.connection.execute(
        "UPDATE jobs SET last_activity_at = ? WHERE job_id = ? AND last_activity_at < ?", (at, job_id, at)
    )


def set_concurrency_groups(transaction: Transaction, groups: Mapping[str, Sequence[str]]) -> None:
    transaction.connection.executemany(
        "UPDATE jobs SET concurrency_groups = ? WHERE job_id = ?",
        [(groups_column(names), job_id) for job_id, names in groups.items()],
    )


def delete(transaction: Transaction, job_id: str) -> bool:
    """Deletes the job; labels, keys and artifacts go with it by their references."""
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
