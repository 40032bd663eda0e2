"""Many jobs: pages, the queue, counts."""

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from jobledger.v1.job_pb2 import JobState

from jobledger_server.core.ports import JobFilter, JobOrder, JobPage, JobRecord
from jobledger_server.stores.sqlite.conditions import Conditions
from jobledger_server.stores.sqlite.rows import SELECT_RECORDS, TERMINAL, record_of

SELECT_PLACES = "SELECT number, created_at, job_id FROM jobs"
NEWEST = "created_at DESC, job_id DESC"
LIVE = "state = 1, CASE state WHEN 1 THEN queued_at ELSE started_at END, job_id"
QUEUE = "priority DESC, queued_at, job_id"


def page(
    connection: sqlite3.Connection,
    where: JobFilter,
    *,
    limit: int,
    offset: int,
    after: tuple[int, str] | None,
    order: JobOrder,
) -> JobPage:
    """A page and its total. The connection is in a transaction, so that both are of one snapshot."""
    if order is JobOrder.LIVE and after is not None:
        raise ValueError("`after` is for the order NEWEST only")
    if where.workspaces == ():
        return JobPage(records=(), total=0)
    if order is JobOrder.LIVE:
        records = _live(connection, where, limit, offset)
    else:
        records = _newest(connection, where, limit, offset, after)
    return JobPage(records=records, total=_total(connection, where))


def queued(connection: sqlite3.Connection, *, now: int, limit: int) -> Sequence[JobRecord]:
    rows = connection.execute(
        f"{SELECT_RECORDS} INDEXED BY jobs_queue WHERE state = 1 AND eligible_at <= ? ORDER BY {QUEUE} LIMIT ?",
        (now, limit),
    )
    return [record_of(row) for row in rows]


def unfinished(connection: sqlite3.Connection) -> Sequence[JobRecord]:
    rows = connection.execute(f"{SELECT_RECORDS} WHERE state < 4 ORDER BY created_at, job_id")
    return [record_of(row) for row in rows]


def queue_position(connection: sqlite3.Connection, job_id: str) -> int | None:
    row = connection.execute(
        "SELECT priority, queued_at, job_id FROM jobs WHERE state = 1 AND job_id = ?", (job_id,)
    ).fetchone()
    if row is None:
        return None
    (position,) = connection.execute(
        "SELECT (SELECT count(*) FROM jobs INDEXED BY jobs_queue WHERE state = 1 AND priority > ?1)"
        " + (SELECT count(*) FROM jobs INDEXED BY jobs_queue"
        " WHERE state = 1 AND priority = ?1 AND (queued_at, job_id) <= (?2, ?3))",
        row,
    ).fetchone()
    return int(position)


def count_by_state(connection: sqlite3.Connection) -> Mapping[JobState.ValueType, int]:
    return dict(connection.execute("SELECT state, jobs FROM job_counts WHERE jobs > 0"))


def _newest(
    connection: sqlite3.Connection, where: JobFilter, limit: int, offset: int, after: tuple[int, str] | None
) -> Sequence[JobRecord]:
    conditions = Conditions.of(where)
    if after is not None:
        conditions = conditions.also("(created_at, job_id) < (?, ?)", *after)
    # A branch for each state, each read in order from its index: SQLite merges them, and stops at the limit.
    states = dict.fromkeys(where.states)
    branches = [conditions.also("state = ?", state) for state in states] or [conditions]
    places = " UNION ALL ".join(f"{SELECT_PLACES} {branch.sql}" for branch in branches)
    values = [value for branch in branches for value in branch.values]
    return _records(connection, places, values, NEWEST, limit, offset)


def _live(connection: sqlite3.Connection, where: JobFilter, limit: int, offset: int) -> Sequence[JobRecord]:
    conditions, places, order = Conditions.of(where).in_states(where.states), SELECT_PLACES, LIVE
    if where.states and not TERMINAL.intersection(where.states):
        # Said once more in the words of the partial index, which SQLite could not use otherwise.
        conditions, places = conditions.also("state < 4"), f"{SELECT_PLACES} INDEXED BY jobs_live"
    else:
        order = f"state >= 4, {LIVE}"
    return _records(connection, f"{places} {conditions.sql}", conditions.values, order, limit, offset)


def _records(
    connection: sqlite3.Connection, places: str, values: Sequence[Any], order: str, limit: int, offset: int
) -> Sequence[JobRecord]:
    """The records that `places` selects: messages are read for these alone, not for the ones that are skipped."""
    page = f"{places} ORDER BY {order} LIMIT ? OFFSET ?"
    # Made of this package's own words alone: every value is a placeholder.
    sql = f"{SELECT_RECORDS} WHERE number IN (SELECT number FROM ({page})) ORDER BY {order}"  # noqa: S608
    return [record_of(row) for row in connection.execute(sql, [*values, limit, offset])]


def _total(connection: sqlite3.Connection, where: JobFilter) -> int:
    conditions = Conditions.of(where)
    count = "SELECT count(*) FROM jobs" if conditions.clauses else "SELECT coalesce(sum(jobs), 0) FROM job_counts"
    conditions = conditions.in_states(where.states)
    (total,) = connection.execute(f"{count} {conditions.sql}", conditions.values).fetchone()
    return int(total)
