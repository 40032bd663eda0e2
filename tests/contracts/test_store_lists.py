"""Pages of jobs and counts, held against a naive model."""

import asyncio
from collections import Counter
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jobledger.v1.job_pb2 import Job
from jobledger_server.core.ports import JobFilter, JobOrder, JobPage, JobRecord, SerializedJobs, Store
from stores.backends import Backend
from support.lists import POPULATION, admits, filters, ids, live_place, newest_first, place_of
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
    assert_same(await filled.list_serialized(where, limit=limit, offset=offset), page)


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
    assert_same(await filled.list_serialized(where, limit=limit, after=place_of(start)), page)


def assert_same(serialized: SerializedJobs, page: JobPage) -> None:
    assert [Job.FromString(job) for job in serialized.jobs] == [record.job for record in page.records]
    assert serialized.total == page.total


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


WORKSPACES, TYPES = ("default", "blue"), ("command", "agent")
KINDS = list(product((None, *STATES), (None, *WORKSPACES, "none"), (None, *TYPES, "none")))
steps = st.lists(st.tuples(st.sampled_from(["create", "delete", "fail", *STATES]), st.integers(0, 23)), max_size=25)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(history=steps)
async def test_counts_agree_with_the_jobs_after_any_history(store: Store, history: list[tuple[object, int]]) -> None:
    """Totals of every combination of state, workspace and type, and the counts of what a caller sees."""
    known = ids((await store.list_jobs(JobFilter(), limit=1000)).records)
    for step, place in history:
        job_id = known[place % len(known)] if known else "job_none"
        if step == "create":
            record = a_record(STATES[place % 6], workspace_id=WORKSPACES[place % 2], job_type=TYPES[place // 2 % 2])
            known.append((await store.create_job(record, [])).job.job_id)
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
    for workspaces in (None, (), ("blue",), ("blue", "default", "none")):
        expected = Counter(record.job.state for record in records if admits(JobFilter(workspaces=workspaces), record))
        counts = await store.count_by_state(workspaces)
        assert {state: count for state, count in counts.items() if count} == expected
    for state, workspace, job_type in KINDS:
        where = JobFilter(states=(state,) if state else (), workspace_id=workspace, job_type=job_type)
        page = await store.list_jobs(where, limit=1)
        assert page.total == sum(admits(where, record) for record in records)


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
