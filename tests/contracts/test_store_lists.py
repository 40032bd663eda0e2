"""Pages of jobs and counts, held against a naive model."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jobledger_server.core.ports import JobFilter, JobOrder, JobRecord, Store
from jobledger_server.core.times import micros
from stores.backends import Backend
from support.records import (
    CANCELLING,
    COMPLETED,
    FAILED,
    NOW,
    QUEUED,
    RUNNING,
    STATES,
    TERMINAL,
    a_change,
    a_record,
)

# The store is filled once for all examples, and the examples only read; or they only add to it.
ONE_STORE = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)


def a_population() -> list[JobRecord]:
    """Jobs of every state, several at an instant, with labels, workspaces and types that overlap."""
    return [
        a_record(
            STATES[place % 6],
            created_at=NOW + place // 7,
            workspace_id=("default", "blue", "Default")[place % 3],
            job_type=("command", "agent")[place % 2],
            labels={"team": ("ops", "dev")[place // 2 % 2], "size%": "1_0"} if place % 5 else None,
        )
        for place in range(90)
    ]


POPULATION = a_population()
LABELS = (("team", "ops"), ("team", "dev"), ("size%", "1_0"), ("size%", "1x0"), ("Team", "ops"))
PREFIXES = ("", "job_", "job_%", "job", "JOB_", "x", POPULATION[7].job.job_id, POPULATION[7].job.job_id[:-1], "job_\0")
INSTANTS = st.none() | st.integers(NOW - 1, NOW + 14)

filters = st.builds(
    JobFilter,
    states=st.lists(st.sampled_from(STATES), max_size=4).map(tuple),
    created_after=INSTANTS,
    created_before=INSTANTS,
    id_prefix=st.sampled_from(PREFIXES),
    job_ids=st.lists(st.sampled_from([record.job.job_id for record in POPULATION] + ["job_x"]), max_size=5).map(tuple),
    labels=st.lists(st.sampled_from(LABELS), max_size=2).map(tuple),
    workspace_id=st.none() | st.sampled_from(["default", "blue", "none"]),
    job_type=st.none() | st.sampled_from(["command", "agent", "none"]),
    workspaces=st.none() | st.lists(st.sampled_from(["default", "blue", "none"]), max_size=2).map(tuple),
)


def admits(where: JobFilter, record: JobRecord) -> bool:
    """The promises of JobFilter, word for word."""
    job = record.job
    created_at = micros(job.created_at)
    return all(
        (
            not where.states or job.state in where.states,
            where.created_after is None or created_at >= where.created_after,
            where.created_before is None or created_at < where.created_before,
            job.job_id.startswith(where.id_prefix),
            not where.job_ids or job.job_id in where.job_ids,
            all(job.labels.get(key) == value for key, value in where.labels),
            where.workspace_id in (None, job.workspace_id),
            where.job_type in (None, job.job_type),
            where.workspaces is None or job.workspace_id in where.workspaces,
        )
    )


def place_of(record: JobRecord) -> tuple[int, str]:
    return micros(record.job.created_at), record.job.job_id


def newest_first(records: Sequence[JobRecord]) -> list[JobRecord]:
    return sorted(records, key=place_of, reverse=True)


def live_place(record: JobRecord) -> tuple[bool, int, str]:
    queued = record.job.state == QUEUED
    return queued, micros(record.job.queued_at if queued else record.job.started_at), record.job.job_id


def ids(records: Sequence[JobRecord]) -> list[str]:
    return [record.job.job_id for record in records]


@pytest.fixture
async def filled(store: Store) -> Store:
    """The store with the population in it."""
    await asyncio.gather(*(store.create_job(record, []) for record in POPULATION))
    return store


@ONE_STORE
@given(where=filters, limit=st.integers(1, 40), offset=st.integers(0, 20))
async def test_a_page_holds_what_the_filter_admits_newest_first(
    filled: Store, where: JobFilter, limit: int, offset: int
) -> None:
    expected = newest_first([record for record in POPULATION if admits(where, record)])
    page = await filled.list_jobs(where, limit=limit, offset=offset)
    assert ids(page.records) == ids(expected[offset : offset + limit])
    assert page.total == len(expected)


@ONE_STORE
@given(where=filters, limit=st.integers(1, 40), start=st.sampled_from(POPULATION))
async def test_a_page_after_a_place_goes_on_behind_it(
    filled: Store, where: JobFilter, limit: int, start: JobRecord
) -> None:
    """The place may be of a job that the filter does not admit, or that is gone; the total is of all pages."""
    admitted = newest_first([record for record in POPULATION if admits(where, record)])
    page = await filled.list_jobs(where, limit=limit, after=place_of(start))
    assert ids(page.records) == ids([record for record in admitted if place_of(record) < place_of(start)][:limit])
    assert page.total == len(admitted)


@ONE_STORE
@given(where=filters, limit=st.integers(1, 40), offset=st.integers(0, 20))
async def test_live_order_puts_started_jobs_first_then_queued_ones(
    filled: Store, where: JobFilter, limit: int, offset: int
) -> None:
    unfinished = tuple(state for state in where.states if state not in TERMINAL) or (QUEUED, RUNNING, CANCELLING)
    where = replace(where, states=unfinished)
    expected = sorted((record for record in POPULATION if admits(where, record)), key=live_place)
    page = await filled.list_jobs(where, limit=limit, offset=offset, order=JobOrder.LIVE)
    assert ids(page.records) == ids(expected[offset : offset + limit])
    assert page.total == len(expected)


async def test_live_order_puts_finished_jobs_last(filled: Store) -> None:
    page = await filled.list_jobs(JobFilter(), limit=100, order=JobOrder.LIVE)
    states = [record.job.state for record in page.records]
    assert states[:45] == [state for state in states if state not in TERMINAL]
    assert page.total == 90


async def test_live_order_has_no_place_to_go_on_from(store: Store) -> None:
    with pytest.raises(ValueError, match="NEWEST"):
        await store.list_jobs(JobFilter(), limit=1, after=(NOW, "job_"), order=JobOrder.LIVE)


async def test_a_caller_bound_to_no_workspace_sees_nothing(filled: Store) -> None:
    assert (await filled.list_jobs(JobFilter(workspaces=()), limit=10)).total == 0


@ONE_STORE
@given(newer=st.lists(st.integers(-3, 20), max_size=6), limit=st.integers(5, 40))
async def test_pages_by_place_are_stable_while_jobs_are_added(filled: Store, newer: list[int], limit: int) -> None:
    """Every job that was there at the start comes once and in order, whatever is added meanwhile, before or behind."""
    present = (await filled.list_jobs(JobFilter(), limit=100_000)).records
    seen: list[JobRecord] = []
    after: tuple[int, str] | None = None
    while page := (await filled.list_jobs(JobFilter(), limit=limit, after=after)).records:
        seen += page
        after = place_of(seen[-1])
        if newer:
            await filled.create_job(a_record(COMPLETED, created_at=NOW + newer.pop()), [])
    there = set(ids(present))
    assert [job_id for job_id in ids(seen) if job_id in there] == ids(present)
    assert len(seen) == len(set(ids(seen)))
    assert ids(seen) == ids(newest_first(seen))


steps = st.lists(st.tuples(st.sampled_from(["create", "delete", "fail", *STATES]), st.integers(0, 5)), max_size=25)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(history=steps)
async def test_counts_agree_with_the_jobs_after_any_history(store: Store, history: list[tuple[object, int]]) -> None:
    known = ids((await store.list_jobs(JobFilter(), limit=1000)).records)
    for step, place in history:
        job_id = known[place % len(known)] if known else "job_none"
        if step == "create":
            known.append((await store.create_job(a_record(STATES[place]), [])).job.job_id)
        elif step == "delete":
            await store.delete_job(job_id)
        elif step == "fail":
            await asyncio.gather(store.create_job(a_record(job_id=job_id), []), return_exceptions=True)
        else:
            await asyncio.gather(
                store.update_job(job_id, lambda stored, to=step: a_change(stored, to)),  # type: ignore[misc]
                return_exceptions=True,
            )
    records = (await store.list_jobs(JobFilter(id_prefix="job"), limit=1000)).records
    expected = Counter(record.job.state for record in records)
    counts = await store.count_by_state()
    assert {state: count for state, count in counts.items() if count} == expected
    assert (await store.list_jobs(JobFilter(), limit=1)).total == len(records)
    for state in STATES:
        assert (await store.list_jobs(JobFilter(states=(state,)), limit=1)).total == expected[state]


async def test_a_page_and_its_total_are_of_one_snapshot(store: Store) -> None:
    """A writer adds jobs without end; a page that holds all must never disagree with its total."""
    done = asyncio.Event()

    async def add() -> None:
        while not done.is_set():
            await asyncio.gather(*(store.create_job(a_record(), []) for _ in range(5)))

    adding = asyncio.create_task(add())
    for _ in range(40):
        for where in (JobFilter(), JobFilter(workspace_id="default")):
            page = await store.list_jobs(where, limit=100_000)
            assert len(page.records) == page.total
    done.set()
    await adding


async def test_counts_are_there_after_reopening(backend: Backend) -> None:
    async with backend.open() as store:
        await store.create_job(a_record(FAILED), [])
    async with backend.open() as store:
        assert await store.count_by_state() == {FAILED: 1}
