"""Creating, reading and deleting jobs."""

import asyncio

import pytest
from jobledger.v1.job_pb2 import JobState
from jobledger_server.core.ports import CancelIntent, EventBounds, JobChange, JobFilter, Store
from stores.backends import Backend
from support.records import NOW, RUNNING, STATES, a_job_id, a_key, a_record, an_artifact, an_event, state_changed

CANCEL = CancelIntent(requested_at=NOW + 5, requested_by="token", reason="enough", grace_seconds=2.5)


@pytest.mark.parametrize("state", STATES)
async def test_a_stored_job_reads_back_as_it_was(store: Store, state: JobState.ValueType) -> None:
    record = a_record(state, labels={"team": "ops", "": "ünïcode"}, eligible_at=7, cancel=CANCEL)
    created = await store.create_job(record, [state_changed(record)])
    assert await store.get_job(record.job.job_id) == created
    assert created.job == record.job
    assert (created.number, created.eligible_at, created.cancel) == (1, 7, CANCEL)
    assert created.last_activity_at == record.last_activity_at


async def test_a_job_that_was_never_stored_is_none(store: Store) -> None:
    assert await store.get_job(a_job_id()) is None
    assert await store.get_job("") is None


async def test_a_stored_job_is_there_after_reopening(backend: Backend) -> None:
    record = a_record(labels={"team": "ops"})
    async with backend.open() as store:
        created = await store.create_job(record, [state_changed(record)])
    async with backend.open() as store:
        assert await store.get_job(record.job.job_id) == created
        assert len(await store.events_after(0, limit=10)) == 1


async def test_a_hundred_concurrent_creations_store_a_hundred_jobs(store: Store) -> None:
    records = [a_record() for _ in range(100)]
    created = await asyncio.gather(*(store.create_job(record, [state_changed(record)]) for record in records))
    assert [record.job for record in created] == [record.job for record in records]
    assert sorted(record.number for record in created) == list(range(1, 101))
    assert (await store.list_jobs(JobFilter(), limit=1)).total == 100
    assert await store.event_bounds() == EventBounds(first=1, last=100)


async def test_an_id_that_is_taken_is_refused_and_nothing_of_the_attempt_stays(store: Store) -> None:
    first = await store.create_job(a_record(), [])
    second = a_record(RUNNING, job_id=first.job.job_id)
    with pytest.raises(AssertionError):
        await store.create_job(second, [state_changed(second)], a_key())
    assert await store.get_job(first.job.job_id) == first
    assert await store.event_bounds() == EventBounds(first=1, last=0)
    assert (await store.create_job(a_record(), [], a_key())).number == 2


async def test_deleting_a_job_takes_it_out_of_every_view(store: Store) -> None:
    kept, gone = a_record(), a_record(labels={"team": "ops"})
    for record in (kept, gone):
        await store.create_job(record, [])
    assert await store.delete_job(gone.job.job_id)
    assert await store.get_job(gone.job.job_id) is None
    page = await store.list_jobs(JobFilter(), limit=10)
    assert ([record.job for record in page.records], page.total) == ([kept.job], 1)
    assert (await store.list_jobs(JobFilter(labels=(("team", "ops"),)), limit=10)).total == 0
    assert await store.queue_position(gone.job.job_id) is None
    assert await store.update_job(gone.job.job_id, lambda record: JobChange(record=record)) is None


async def test_deleting_a_job_that_is_not_there_says_so(store: Store) -> None:
    record = await store.create_job(a_record(), [])
    assert await store.delete_job(record.job.job_id)
    assert not await store.delete_job(record.job.job_id)


async def test_the_events_of_a_deleted_job_stay(store: Store) -> None:
    record = a_record()
    await store.create_job(record, [state_changed(record)])
    await store.append_events([an_event()])
    await store.delete_job(record.job.job_id)
    assert [event.sequence_number for event in await store.events_after(0, limit=10)] == [1, 2]


async def test_the_artifacts_of_a_deleted_job_go_with_it(store: Store) -> None:
    record = await store.create_job(a_record(), [])
    await store.update_job(
        record.job.job_id, lambda stored: JobChange(record=stored, artifacts=[an_artifact(1, "out.txt")])
    )
    await store.delete_job(record.job.job_id)
    assert await store.artifacts(record.job.job_id) == []
    await store.set_artifact_status(an_artifact(1, "out.txt"))
    assert await store.artifacts(record.job.job_id) == []


async def test_the_number_of_a_deleted_job_is_never_given_again(backend: Backend) -> None:
    """Ids of log entries are built on it."""
    async with backend.open() as store:
        for _ in range(3):
            record = await store.create_job(a_record(), [])
        await store.delete_job(record.job.job_id)
        assert (await store.create_job(a_record(), [])).number == 4
        last = await store.create_job(a_record(), [])
        await store.delete_job(last.job.job_id)
    async with backend.open() as store:
        assert (await store.create_job(a_record(), [])).number == 6
