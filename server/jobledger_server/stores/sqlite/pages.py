"""Pages of jobs with their totals."""

import sqlite3
from collections.abc import Sequence
from typing import Any

from jobledger_server.core.ports import JobFilter, JobOrder, JobPage, SerializedJobs
from jobledger_server.stores.sqlite.conditions import Conditions
from jobledger_server.stores.sqlite.counts import Tally, count, tallies
from jobledger_server.stores.sqlite.rows import SELECT_RECORDS, TERMINAL, record_of
from jobledger_server.stores.sqlite.sources import Source, Sources, choose, is_sparse

SELECT_JOBS = "SELECT job FROM jobs"
NEWEST = "created_at DESC, job_id DESC"
LIVE = "state = 1, CASE state WHEN 1 THEN queued_at ELSE started_at END, job_id"
# Skipping costs time for each job skipped, and the kinds of jobs of more workspaces may be too many to be merged.
MOST_SKIPPED_QUICKLY = 1000
MOST_WORKSPACES_QUICKLY = 16


def is_quick(where: JobFilter, *, offset: int) -> bool:
    """Whether a page takes about the same time however many jobs there are: its total is counted already."""
    if where.job_ids:
        return True
    few = offset <= MOST_SKIPPED_QUICKLY and len(where.workspaces or ()) <= MOST_WORKSPACES_QUICKLY
    return few and not _asks_more_than_kind(where)


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
    admitted = _admitted(connection, where)
    if not admitted:
        return JobPage(records=(), total=0)
    sources = choose(connection, where, admitted)
    if order is JobOrder.LIVE:
        rows = _live(connection, where, admitted, limit, offset)
    else:
        rows = _newest(connection, SELECT_RECORDS, sources(after), limit, offset)
    return JobPage(records=[record_of(row) for row in rows], total=_total(connection, where, admitted, sources))


def serialized(
    connection: sqlite3.Connection, where: JobFilter, *, limit: int, offset: int, after: tuple[int, str] | None
) -> SerializedJobs:
    """The jobs of a page, newest first, and its total; as `page`."""
    admitted = _admitted(connection, where)
    if not admitted:
        return SerializedJobs(jobs=(), total=0)
    sources = choose(connection, where, admitted)
    rows = _newest(connection, SELECT_JOBS, sources(after), limit, offset)
    return SerializedJobs(jobs=[job for (job,) in rows], total=_total(connection, where, admitted, sources))


def _admitted(connection: sqlite3.Connection, where: JobFilter) -> Sequence[Tally]:
    return () if where.workspaces == () else tallies(connection, where)


def _total(connection: sqlite3.Connection, where: JobFilter, admitted: Sequence[Tally], sources: Sources) -> int:
    if _asks_more_than_kind(where):
        return sum(source.count(connection) for source in sources(None))
    return count(admitted)


def _asks_more_than_kind(where: JobFilter) -> bool:
    return bool(where.labels or Conditions.of_place(where).clauses)


def _newest(
    connection: sqlite3.Connection, select: str, sources: Sequence[Source], limit: int, offset: int
) -> sqlite3.Cursor:
    # SQLite merges the sources, each of which is in order, and stops at the limit.
    places = " UNION ALL ".join(source.places for source in sources)
    values = [value for source in sources for value in source.conditions.values]
    return _rows(connection, select, places, values, NEWEST, limit, offset)


def _live(
    connection: sqlite3.Connection, where: JobFilter, admitted: Sequence[Tally], limit: int, offset: int
) -> sqlite3.Cursor:
    conditions = (Conditions.of_kind(where) + Conditions.of_place(where)).labelled(where.labels, number="jobs.number")
    table, order = "jobs", f"state >= 4, {LIVE}"
    if where.states and not TERMINAL.intersection(where.states):
        order = LIVE
        if not is_sparse(connection, admitted, JobFilter(states=where.states)):
            # Said once more in the words of the partial index, which SQLite could not use otherwise.
            table, conditions = "jobs INDEXED BY jobs_live", conditions.also("state < 4")
    source = Source(table=table, conditions=conditions)
    return _rows(connection, SELECT_RECORDS, source.places, conditions.values, order, limit, offset)


def _rows(
    connection: sqlite3.Connection,
    select: str,
    places: str,
    values: Sequence[Any],
    order: str,
    limit: int,
    offset: int,
) -> sqlite3.Cursor:
    """The rows that `places` selects: messages are read for these alone, not for the ones that are skipped."""
    page = f"{places} ORDER BY {order} LIMIT ? OFFSET ?"
    # Made of this package's own words alone: every value is a placeholder.
    sql = f"{select} WHERE number IN (SELECT number FROM ({page})) ORDER BY {order}"  # noqa: S608
    return connection.execute(sql, [*values, limit, offset])
