"""Keys under which callers created jobs."""

import sqlite3
from dataclasses import replace

from jobledger_server.core.ports import IdempotencyConflictError, IdempotencyKey
from jobledger_server.stores.sqlite.writer import Transaction


def as_seen(connection: sqlite3.Connection, key: IdempotencyKey, workspace_id: str, *, now: int) -> IdempotencyKey:
    """The key under which a request for a job in this workspace is looked for and remembered.

    It is the principal's own. Where that stands for a job that the principal may not see (it was bound elsewhere when
    it made it, as the holder of an issuer's tokens may have been), it is one of the principal in this workspace, and
    stays that for its time.
    """
    if key.workspaces is None:
        return key
    here = f"{key.principal}\n{workspace_id}"
    workspaces = dict(
        connection.execute(
            "SELECT principal, workspace_id FROM idempotency_keys LEFT JOIN jobs ON number = job_number"
            " WHERE principal IN (?, ?) AND key = ? AND expires_at > ?",
            (key.principal, here, key.key, now),
        )
    )
    of_own = workspaces.get(key.principal)
    if here in workspaces or (of_own is not None and of_own not in key.workspaces):
        return replace(key, principal=here)
    return key


def job_number(connection: sqlite3.Connection, key: IdempotencyKey, *, now: int) -> int | None:
    """The number of the job that the key was used for, or None where it is new; forgets the keys that expired.

    Raises:
        IdempotencyConflictError: it was used for another request.
    """
    connection.execute("DELETE FROM idempotency_keys WHERE expires_at <= ?", (now,))
    row = connection.execute(
        "SELECT request_hash, job_number FROM idempotency_keys WHERE principal = ? AND key = ?",
        (key.principal, key.key),
    ).fetchone()
    if row is None:
        return None
    request_hash, number = row
    if request_hash != key.request_hash:
        raise IdempotencyConflictError(f"The idempotency key {key.key!r} was used for another request")
    return int(number)


def remember(connection: sqlite3.Connection, key: IdempotencyKey, *, job_number: int) -> None:
    connection.execute(
        "INSERT INTO idempotency_keys (principal, key, request_hash, expires_at, job_number) VALUES (?, ?, ?, ?, ?)",
        (key.principal, key.key, key.request_hash, key.expires_at, job_number),
    )


def count_expired(connection: sqlite3.Connection, now: int) -> int:
    (count,) = connection.execute("SELECT count(*) FROM idempotency_keys WHERE expires_at <= ?", (now,)).fetchone()
    return int(count)


def drop_expired(transaction: Transaction, now: int, *, limit: int) -> int:
    """Deletes up to `limit` keys that are past their time. Returns how many."""
    return transaction.connection.execute(
        "DELETE FROM idempotency_keys WHERE (principal, key) IN"
        " (SELECT principal, key FROM idempotency_keys WHERE expires_at <= ? LIMIT ?)",
        (now, limit),
    ).rowcount
