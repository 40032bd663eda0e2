"""Pages come from indexes and totals from counters: nothing reads or sorts all jobs to show a few."""

import asyncio
import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import product
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jobledger_server.core.ports import JobFilter, JobOrder, JobRecord
from jobledger_server.stores.sqlite import SqliteStore, jobs, pages, sources
from jobledger_server.stores.sqlite.connection import connect
from jobledger_server.stores.sqlite.migrate import migrate, shipped_migrations
from jobledger_server.stores.sqlite.writer import Transaction
from support.lists import POPULATION, admits, filters, ids, live_place, newest_first, place_of
from support.records import CANCELLING, COMPLETED, FAILED, NOW, QUEUED, RUNNING, a_record

LIVE_STATES = (QUEUED, RUNNING, CANCELLING)
WORKSPACES, TYPES = ("default", "blue", "green"), ("command", "agent")
KINDS = list(product((QUEUED, RUNNING, COMPLETED, FAILED), WORKSPACES, TYPES))
BY_KIND = [
    JobFilter(states=states, job_type=job_type, workspace_id=workspace_id, workspaces=workspaces)
    for states, job_type, (workspace_id, workspaces) in product(
        ((), (COMPLETED,), (COMPLETED, FAILED)),
        (None, "agent"),
        ((None, None), ("blue", None), (None, ("blue", "default")), ("blue", ("blue", "default"))),
    )
]


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(connect(tmp_path / "pages.db", busy_timeout=0)) as connection:
        migrate(connection, shipped_migrations())
        yield connection


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    """A database with jobs of every kind, to be read."""
    with closing(connect(tmp_path_factory.mktemp("filled") / "pages.db", busy_timeout=0)) as connection:
        migrate(connection, shipped_migrations())
        fill(connection, range(400))
        connection.execute("PRAGMA query_only = 1")
        yield connection


def fill(connection: sqlite3.Connection, numbers: Sequence[int]) -> None:
    """A job of every kind in turn, each newer than the one before; one label is on all, one on a single job."""
    transaction = Transaction(connection)
    connection.execute("BEGIN")
    for number in numbers:
        state, workspace_id, job_type = KINDS[number % len(KINDS)]
        labels = {"on": "all", "only": str(number)}
        record = a_record(state, created_at=NOW + number, workspace_id=workspace_id, job_type=job_type, labels=labels)
        jobs.create(transaction, record, [], None)
    connection.execute("COMMIT")


def plans(
    connection: sqlite3.Connection, where: JobFilter, order: JobOrder = JobOrder.NEWEST, *, after: bool = False
) -> dict[str, str]:
    """The plan of each statement that a page takes, by the statement."""
    statements: list[str] = []
    connection.set_trace_callback(statements.append)
    place = (NOW + 200, "job_x") if after else None
    pages.page(connection, where, limit=50, offset=0, after=place, order=order)
    connection.set_trace_callback(None)
    return {sql: "\n".join(row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}")) for sql in statements}


def plan_of_page(found: dict[str, str]) -> str:
    (plan,) = (plan for sql, plan in found.items() if sql.startswith("SELECT number, job,"))
    return plan


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(
    ("where", "index"),
    [
        (JobFilter(), "jobs_newest"),
        (JobFilter(states=(COMPLETED,)), "jobs_newest_of_state"),
        (JobFilter(states=(COMPLETED, FAILED, RUNNING)), "jobs_newest_of_state"),
        (JobFilter(job_type="command"), "jobs_newest_of_state"),
        (JobFilter(states=(COMPLETED,), job_type="command"), "jobs_newest_of_state"),
        (JobFilter(workspace_id="default"), "jobs_newest_of_workspace"),
        (JobFilter(workspaces=("default", "blue")), "jobs_newest_of_workspace"),
        (JobFilter(workspace_id="default", states=(COMPLETED,), job_type="command"), "jobs_newest_of_workspace"),
        (JobFilter(created_after=NOW), "jobs_newest"),
        (JobFilter(created_before=NOW + 300, states=(FAILED,)), "jobs_newest_of_state"),
        (JobFilter(id_prefix="job_"), "jobs_newest"),
        (JobFilter(labels=(("on", "all"),)), "job_labels_newest"),
        (JobFilter(labels=(("on", "all"), ("only", "7"))), "job_labels_newest"),
        (JobFilter(labels=(("on", "all"),), states=(FAILED,)), "jobs_newest_of_state"),
    ],
)
def test_a_newest_page_is_read_in_order_from_an_index(
    filled: sqlite3.Connection, where: JobFilter, index: str, after: bool
) -> None:
    plan = plan_of_page(plans(filled, where, after=after))
    reads = re.findall(r"(?:SCAN|SEARCH) (?:jobs|job_labels) USING (?:COVERING )?INDEX (\w+)", plan)
    assert set(reads) == {index}, plan
    assert plan.count("USE TEMP B-TREE FOR ORDER BY") == 1, plan  # of the fifty, not of all
    assert plan.splitlines()[0].startswith("SEARCH jobs USING INTEGER PRIMARY KEY"), plan


@pytest.mark.parametrize("where", BY_KIND)
def test_totals_of_states_workspaces_and_types_come_from_the_counters(
    filled: sqlite3.Connection, where: JobFilter
) -> None:
    counting = [sql for sql in plans(filled, where) if not sql.startswith("SELECT number, job,")]
    assert [re.findall(r"FROM (\w+)", sql) for sql in counting] in ([["job_counts"]], [["job_counts_of_workspace"]])


def test_a_page_takes_no_more_work_among_more_jobs(connection: sqlite3.Connection) -> None:
    """First pages and those from the middle, of every combination of state, workspace and type."""
    steps = 0

    def count() -> None:
        nonlocal steps
        steps += 1

    def work(where: JobFilter, after: tuple[int, str] | None) -> int:
        nonlocal steps
        steps = 0
        connection.set_progress_handler(count, 1)
        pages.page(connection, where, limit=5, offset=0, after=after, order=JobOrder.NEWEST)
        connection.set_progress_handler(None, 0)
        return steps

    fill(connection, range(480))
    few = [work(where, after) for where, after in product(BY_KIND, (None, (NOW + 240, "")))]
    fill(connection, range(480, 2400))
    many = [work(where, after) for where, after in product(BY_KIND, (None, (NOW + 1200, "")))]
    assert [(a, b) for a, b in zip(few, many, strict=True) if b > a * 1.05] == []


def test_the_live_page_is_read_in_order_from_its_index(connection: sqlite3.Connection) -> None:
    fill(connection, range(100))
    plan = plan_of_page(plans(connection, JobFilter(states=LIVE_STATES), JobOrder.LIVE))
    assert "INDEX jobs_live" in plan
    assert plan.count("USE TEMP B-TREE FOR ORDER BY") == 1, plan


def test_a_caller_who_sees_few_of_the_live_jobs_does_not_pass_over_the_others(connection: sqlite3.Connection) -> None:
    fill(connection, range(480))
    jobs.create(Transaction(connection), a_record(QUEUED, workspace_id="small"), [], None)
    where = JobFilter(states=LIVE_STATES, workspaces=("small",))
    assert "INDEX jobs_newest_of_workspace (workspace_id=? AND state=?)" in plan_of_page(
        plans(connection, where, JobOrder.LIVE)
    )


# Each way to read is forced in turn, where it is possible at all: they differ in cost, never in what they find.
WAYS: dict[str, dict[str, float]] = {
    "as chosen": {},
    "too many kinds, in order": {"MOST_MERGED": 0, "SPARSE": 0},
    "too many kinds, sorted": {"MOST_MERGED": 0, "SPARSE": 1000},
    "by id wherever asked": {"COST_OF_SORTING": 0.001},
}


@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=filters, limit=st.integers(1, 40), start=st.none() | st.sampled_from(POPULATION))
def test_every_way_to_read_finds_the_same(
    population: sqlite3.Connection,
    monkeypatch: pytest.MonkeyPatch,
    way: str,
    where: JobFilter,
    limit: int,
    start: JobRecord | None,
) -> None:
    for name, value in WAYS[way].items():
        monkeypatch.setattr(sources, name, value)
    after = None if start is None else place_of(start)
    admitted = [record for record in POPULATION if admits(where, record)]
    page = pages.page(population, where, limit=limit, offset=0, after=after, order=JobOrder.NEWEST)
    behind = [record for record in newest_first(admitted) if after is None or place_of(record) < after]
    assert (ids(page.records), page.total) == (ids(behind[:limit]), len(admitted))
    live = pages.page(population, where, limit=limit, offset=0, after=None, order=JobOrder.LIVE)
    unfinished = sorted((record for record in admitted if record.job.state in LIVE_STATES), key=live_place)
    assert ids(live.records)[: len(unfinished)] == ids(unfinished[:limit])


@pytest.fixture
def population(connection: sqlite3.Connection) -> sqlite3.Connection:
    for record in POPULATION:
        jobs.create(Transaction(connection), record, [], None)
    return connection


ENDLESS = "WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"


async def test_lists_that_count_keep_nobody_else_waiting(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path / "jobledger.db", readers=1) as store:
        record = await store.create_job(a_record(labels={"on": "all"}), [])
        endless = asyncio.create_task(store._long_readers.run(lambda connection: connection.execute(ENDLESS)))
        counted = asyncio.create_task(store.list_jobs(JobFilter(labels=(("on", "all"),)), limit=1))
        assert await store.get_job(record.job.job_id) == record
        for where in BY_KIND:
            await store.list_jobs(where, limit=1)
        assert not counted.done()
        endless.cancel()
        assert (await counted).total == 1


async def test_reading_ends_when_its_caller_has_gone(tmp_path: Path) -> None:
    """The only reader is free again; what it reads next is not disturbed."""
    async with SqliteStore(tmp_path / "jobledger.db", readers=1) as store:
        started = asyncio.Event()
        loop = asyncio.get_running_loop()

        def endless(connection: sqlite3.Connection) -> None:
            loop.call_soon_threadsafe(started.set)
            connection.execute(ENDLESS).fetchone()

        for _ in range(3):
            started.clear()
            reading = asyncio.create_task(store._readers.run(endless))
            await started.wait()
            reading.cancel()
            assert await store.get_job("job_x") is None
            with pytest.raises(asyncio.CancelledError):
                await reading
