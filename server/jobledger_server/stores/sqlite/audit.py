"""The audit log: rows that are added, by themselves or with what a call changes, and that go when they are old."""

import sqlite3
from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from jobledger.v1.engine_service_pb2 import AuditEntry

from jobledger_server.core.ports import JobRecord
from jobledger_server.core.ports.audit import AuditFilter, AuditRecord
from jobledger_server.core.times import timestamp

SELECT = "SELECT number, at, token_id, subject, method, object, decision, reason, peer, request_id, count FROM audit"
INSERT = """
INSERT INTO audit (at, token_id, subject, method, object, decision, reason, peer, request_id, count)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
# The first that is not older: those before it go, so that what is kept has no gaps.
FIRST_KEPT = "SELECT number FROM audit WHERE at >= ? ORDER BY number LIMIT 1"
CREATE_JOB = "jobledger.v1.JobService/CreateJob"


def append(connection: sqlite3.Connection, entries: Sequence[AuditRecord]) -> None:
    """Stores the entries in this order."""
    connection.executemany(INSERT, [_row(entry) for entry in entries])


def append_with(connection: sqlite3.Connection, entry: AuditRecord, answer: Any, *, changed: bool) -> None:
    """Stores the entry of a call whose write has come to `answer`, if that changed something.

    Where the call makes a job, or asks again for the one that it has made, the entry is about that.
    """
    if entry.method == CREATE_JOB and isinstance(answer, JobRecord):
        entry.object = answer.job.job_id
    if changed:
        append(connection, [entry])


def before(
    connection: sqlite3.Connection, number: int | None, where: AuditFilter, *, limit: int
) -> Sequence[AuditEntry]:
    return _read(connection, "number < :number", 2**63 - 1 if number is None else number, where, "DESC", limit)


def after(connection: sqlite3.Connection, number: int, where: AuditFilter, *, limit: int) -> Sequence[AuditEntry]:
    return _read(connection, "number > :number", number, where, "ASC", limit)


def count_old(connection: sqlite3.Connection, instant: int) -> int:
    (first_kept,) = connection.execute(FIRST_KEPT, (instant,)).fetchone() or (2**63 - 1,)
    (count,) = connection.execute("SELECT count(*) FROM audit WHERE number < ?", (first_kept,)).fetchone()
    return int(count)


def drop_old(connection: sqlite3.Connection, instant: int, *, limit: int) -> int:
    rows = connection.execute("SELECT number, at FROM audit ORDER BY number LIMIT ?", (limit,))
    numbers = [number for number, _ in takewhile(lambda row: row[1] < instant, rows)]
    if not numbers:
        return 0
    connection.execute("UPDATE audit_expired SET through = ? WHERE through < ?", (numbers[-1], numbers[-1]))
    return connection.execute("DELETE FROM audit WHERE number <= ?", (numbers[-1],)).rowcount


def _read(
    connection: sqlite3.Connection, place: str, number: int, where: AuditFilter, order: str, limit: int
) -> Sequence[AuditEntry]:
    conditions = [place]
    if where.since is not None:
        conditions.append("at >= :since")
    if where.token_id is not None:
        # The second condition has the index taken.
        conditions.append("token_id = :token_id AND token_id <> ''")
    if where.object is not None:
        conditions.append("object = :object AND object <> ''")
    values = {"number": number, "since": where.since, "token_id": where.token_id, "object": where.object}
    rows = connection.execute(
        f"{SELECT} WHERE {' AND '.join(conditions)} ORDER BY number {order} LIMIT :limit",
        {**values, "limit": limit},
    )
    return [_entry(row) for row in rows]


def _row(entry: AuditRecord) -> tuple[Any, ...]:
    return (
        entry.at,
        entry.token_id,
        entry.subject,
        entry.method,
        entry.object,
        entry.decision,
        entry.reason,
        entry.peer,
        entry.request_id,
        entry.count,
    )


def _entry(row: Sequence[Any]) -> AuditEntry:
    number, at, token_id, subject, method, about, decision, reason, peer, request_id, count = row
    return AuditEntry(
        number=number,
        at=timestamp(at),
        token_id=token_id,
        subject=subject,
        method=method,
        object=about,
        decision=decision,
        reason=reason,
        peer=peer,
        request_id=request_id,
        count=count,
    )
