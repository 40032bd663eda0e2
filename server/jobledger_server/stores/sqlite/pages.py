"""Pages of jobs with their totals."""

import sqlite3
from collections.abc import Sequence
from typing import Any

from jobledger_server.core.ports import JobFilter, JobOrder, JobPage, JobRecord
from jobledger_server.stores.sqlite.conditions import Conditions
from jobledger_server.stores.sqlite.counts import Tally, count, tallies
from jobledger_server.stores.sqlite.rows import SELECT_RECORDS, TERMINAL, record_of
from jobledger_server.stores.sqlite.sources import Source, choose, is_sparse

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
    admitted = () if where.workspaces == () else tallies(connection, where)
    if not admitted:
        return JobPage(records=(), total=0)
    sources = choose(connection, where, admitted)
    if order is JobOrder.LIVE:
        records = _live(connection, where, admitted, limit, offset)
    else:
        records = _newest(connection, sources(after), limit, offset)
    if _asks_more_than_kind(where):
        total = sum(source.count(connection) for source in sources(None))
    else:
        total = count(admitted)
    return JobPage(records=records, total=total)


def _asks_more_than_kind(where: JobFilter) -> bool:
    return bool(where.labels or Conditions.of_place(where).clauses)


def _newest(connection: sqlite3.Connection, sources: Sequence[Source], limit: int, offset: int) -> Sequence[JobRecord]:
    # SQLite merges the sources, each of which is in order, and stops at the limit.
    places = " UNION ALL ".join(source.places for source in sources)
    values = [value for source in sources for value in source.conditions.values]
    return _records(connection, places, values, NEWEST, limit, offset)


def _live(
    connection: sqlite3.Connection, where: JobFilter, admitted: Sequence[Tally], limit: int, offset: int
) -> Sequence[JobRecord]:
    conditions = (Conditions.of_kind(where) + Conditions.of_place(where)).labelled(where.labels, number="jobs.number")
    table, order = "jobs", f"state >= 4, {LIVE}"
    if where.states and not TERMINAL.intersection(where.states):
        order = LIVE
        if not is_sparse(connection, admitted, JobFilter(states=where.states)):
            # Said once more in the words of the partial index, which SQLite could not use otherwise.
            table, conditions = "jobs INDEXED BY jobs_live", conditions.also("state < 4")
    source = Source(table=table, conditions=conditions)
    return _records(connection, source.places, conditions.values, order, limit, offset)


def _records(
    connection: sqlite3.Connection, places: str, values: Sequence[Any], order: str, limit: int, offset: int
) -> Sequence[JobRecord]:
    """The records that `places` selects: messages are read for these alone, not for the ones that are skipped."""
    page = f"{places} ORDER BY {order} LIMIT ? OFFSET ?"
    # Made of this package's own words alone: every value is a placeholder.
    sql = f"{SELECT_RECORDS} WHERE number IN (SELECT number FROM ({page})) ORDER BY {order}"  # noqa: S608
    return [record_of(row) for row in connection.execute(sql, [*values, limit, offset])]
