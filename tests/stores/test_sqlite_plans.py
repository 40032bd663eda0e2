"""Pages come from indexes: no query reads or sorts all jobs to show a few."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from jobledger_server.core.ports import JobFilter, JobOrder
from jobledger_server.stores.sqlite import jobs, queries
from jobledger_server.stores.sqlite.connection import connect
from jobledger_server.stores.sqlite.migrate import migrate, shipped_migrations
from jobledger_server.stores.sqlite.writer import Transaction
from support.records import CANCELLING, COMPLETED, FAILED, NOW, QUEUED, RUNNING, a_record


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(connect(tmp_path / "plans.db", busy_timeout=0)) as connection:
        migrate(connection, shipped_migrations())
        yield connection


def plans(connection: sqlite3.Connection, where: JobFilter, order: JobOrder, *, after: bool) -> list[str]:
    """The plan of each statement that a page takes, without the sort of the page itself."""
    statements: list[str] = []
    connection.set_trace_callback(statements.append)
    place = (NOW, "job_x") if after else None
    queries.page(connection, where, limit=50, offset=0, after=place, order=order)
    connection.set_trace_callback(None)
    return ["\n".join(row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}")) for sql in statements]


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(
    ("where", "index"),
    [
        (JobFilter(), "jobs_newest"),
        (JobFilter(states=(COMPLETED,)), "jobs_newest_of_state"),
        (JobFilter(states=(COMPLETED, FAILED, RUNNING)), "jobs_newest_of_state"),
        (JobFilter(workspace_id="default"), "jobs_newest_of_workspace"),
        (JobFilter(workspaces=("default",)), "jobs_newest_of_workspace"),
        (JobFilter(job_type="command"), "jobs_newest_of_type"),
        (JobFilter(created_after=NOW), "jobs_newest"),
    ],
)
def test_a_newest_page_is_read_in_order_from_an_index(
    connection: sqlite3.Connection, where: JobFilter, index: str, after: bool
) -> None:
    page, _ = plans(connection, where, JobOrder.NEWEST, after=after)
    assert re.search(rf"INDEX {index}\b", page), page
    assert page.count("USE TEMP B-TREE FOR ORDER BY") == 1, page  # of the fifty, not of all
    assert page.splitlines()[0].startswith("SEARCH jobs USING INTEGER PRIMARY KEY"), page


def test_the_live_page_is_read_in_order_from_its_index(connection: sqlite3.Connection) -> None:
    page, _ = plans(connection, JobFilter(states=(QUEUED, RUNNING, CANCELLING)), JobOrder.LIVE, after=False)
    assert "INDEX jobs_live" in page
    assert page.count("USE TEMP B-TREE FOR ORDER BY") == 1, page


@pytest.mark.parametrize("states", [(), (COMPLETED, FAILED)])
def test_totals_of_states_come_from_the_counters(connection: sqlite3.Connection, states: tuple[int, ...]) -> None:
    _, total = plans(connection, JobFilter(states=states), JobOrder.NEWEST, after=False)  # type: ignore[arg-type]
    assert "job_counts" in total


def test_the_queue_and_places_in_it_are_read_from_its_index(connection: sqlite3.Connection) -> None:
    statements: list[str] = []
    jobs.create(Transaction(connection), a_record(job_id="job_x"), [], None)
    connection.set_trace_callback(statements.append)
    queries.queued(connection, now=NOW, limit=10)
    queries.queue_position(connection, "job_x")
    connection.set_trace_callback(None)
    queue, _, place = ([row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}")] for sql in statements)
    assert queue == ["SCAN jobs USING INDEX jobs_queue"]
    assert "\n".join(place).count("USING COVERING INDEX jobs_queue (priority") == 2, place
