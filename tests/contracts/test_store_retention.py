"""What a store tells and drops of what is kept for a time only."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import pytest
from jobledger.v1.job_pb2 import Job, JobState
from jobledger_server.core.ports import EventBounds, JobChange, JobRecord, Kept, Store
from jobledger_server.core.times import SECOND, timestamp
from stores.backends import Backend
from support.records import (
    CANCELLED,
    COMPLETED,
    NOW,
    QUEUED,
    RUNNING,
    a_change,
    a_job_id,
    a_key,
    a_receipt,
    a_record,
    an_artifact,
    an_event,
    state_changed,
)

LATER = NOW + 3600 * SECOND
BOTH = (Kept.LOGS_WARN, Kept.JOB_DIRS_COMPLETED)


async def ended(store: Store, *, at: int = NOW + 60 * SECOND, kept: Sequence[Kept] = BOTH) -> str:
    """A job that ended at an instant and left these."""
    record = a_record()
    job_id = record.job.job_id
    record.job.job_dir = "/data/jobs/job"
    await store.create_job(record, [state_changed(record)])
    await store.update_job(job_id, lambda stored: a_change(stored, RUNNING))
    await store.update_job(
        job_id, lambda stored: replace(a_change(stored, COMPLETED, at=at, receipt=a_receipt(job_id)), kept=kept)
    )
    return job_id


async def of(store: Store, kept: Kept, *, before: int = LATER) -> list[str]:
    return [job.job_id for job in await store.ended_jobs(kept, before=before, limit=100)]


async def test_what_a_job_leaves_is_found_by_when_it_ended(store: Store) -> None:
    late, early = await ended(store, at=NOW + 20 * SECOND), await ended(store, at=NOW + 10 * SECOND)
    assert await of(store, Kept.LOGS_WARN) == [early, late]
    assert await of(store, Kept.JOB_DIRS_COMPLETED, before=NOW + 20 * SECOND) == [early]
    assert await of(store, Kept.LOGS_INFO) == []
    [first, *_] = await store.ended_jobs(Kept.LOGS_WARN, before=LATER, limit=1)
    assert first.ended_at == NOW + 10 * SECOND


@pytest.mark.parametrize("state", [QUEUED, RUNNING])
async def test_a_job_that_has_not_ended_leaves_nothing(store: Store, state: JobState.ValueType) -> None:
    record = a_record(state)
    await store.create_job(record, [])
    assert [await of(store, kept) for kept in Kept] == [[]] * len(Kept)


async def test_pages_of_what_is_left_join_also_where_jobs_ended_at_once(store: Store) -> None:
    job_ids = [await ended(store) for _ in range(7)]
    found: list[str] = []
    page = await store.ended_jobs(Kept.LOGS_WARN, before=LATER, limit=3)
    while page:
        found += [job.job_id for job in page]
        page = await store.ended_jobs(Kept.LOGS_WARN, before=LATER, limit=3, after=page[-1])
    assert found == job_ids


async def test_a_job_may_go_once_all_that_it_left_is_gone(store: Store) -> None:
    job_id, other = await ended(store), await ended(store)
    await store.forget(Kept.LOGS_WARN, [job_id], at=LATER)
    assert (await of(store, Kept.LOGS_WARN), await of(store, Kept.JOBS)) == ([other], [])
    await store.forget(Kept.JOB_DIRS_COMPLETED, [job_id, other], at=LATER)
    assert (await of(store, Kept.JOB_DIRS_COMPLETED), await of(store, Kept.JOBS)) == ([], [job_id])


async def test_forgetting_again_and_what_is_unknown_changes_nothing(store: Store) -> None:
    job_id = await ended(store, kept=[Kept.LOGS_INFO])
    for _ in range(2):
        await store.forget(Kept.LOGS_INFO, [job_id, a_job_id()], at=LATER)
    assert await of(store, Kept.JOBS) == [job_id]


async def test_a_job_says_since_when_its_log_is_gone_and_that_its_directory_is(store: Store) -> None:
    job_id, other = await ended(store), await ended(store)
    record = await store.get_job(job_id)
    assert record is not None
    before = record.job
    assert before.HasField("job_dir")
    await store.forget(Kept.LOGS_WARN, [job_id], at=LATER)
    await store.forget(Kept.LOGS_WARN, [job_id], at=LATER + SECOND)
    before.log_removed_at.CopyFrom(timestamp(LATER))
    assert await job_of(store, job_id) == before
    await store.forget(Kept.JOB_DIRS_COMPLETED, [job_id], at=LATER)
    before.ClearField("job_dir")
    assert await job_of(store, job_id) == before
    kept = await job_of(store, other)
    assert (kept.HasField("log_removed_at"), kept.HasField("job_dir")) == (False, True)


async def test_a_job_that_never_ran_had_no_log_that_could_have_been_removed(store: Store) -> None:
    record = a_record()
    await store.create_job(record, [])
    change = replace(a_change(record, CANCELLED, at=NOW, receipt=a_receipt(record.job.job_id)), kept=BOTH)
    await store.update_job(record.job.job_id, lambda _: change)
    await store.forget(Kept.LOGS_WARN, [record.job.job_id], at=LATER)
    assert not (await job_of(store, record.job.job_id)).HasField("log_removed_at")


async def job_of(store: Store, job_id: str) -> Job:
    record = await store.get_job(job_id)
    assert record is not None
    return record.job


async def test_a_deleted_job_leaves_no_note(store: Store) -> None:
    job_id = await ended(store)
    await store.delete_job(job_id)
    assert [await of(store, kept) for kept in Kept] == [[]] * len(Kept)


async def test_dropped_events_are_gone_and_numbers_go_on(backend: Backend) -> None:
    async with backend.open() as store:
        await store.append_events([an_event() for _ in range(5)])
        assert await store.drop_events(3) == 3
        assert await store.event_bounds() == EventBounds(first=4, last=5)
        assert [event.sequence_number for event in await store.events_after(0, limit=10)] == [4, 5]
        assert [await store.drop_events(5), await store.drop_events(5)] == [2, 0]
        assert await store.event_bounds() == EventBounds(first=6, last=5)
    async with backend.open() as store:
        await store.append_events([an_event()])
        assert await store.event_bounds() == EventBounds(first=6, last=6)


async def test_keys_past_their_time_are_dropped_and_others_hold(store: Store) -> None:
    for number in range(5):
        await store.create_job(a_record(), [], a_key(f"old {number}", expires_at=NOW + 10))
    kept = await store.create_job(a_record(), [], a_key("young", expires_at=NOW + 11))
    assert await store.count_expired_keys(NOW + 9) == 0
    assert await store.count_expired_keys(NOW + 10) == 5
    assert [await store.drop_expired_keys(NOW + 10, limit=3) for _ in range(3)] == [3, 2, 0]
    again = await store.create_job(a_record(), [], a_key("young", expires_at=NOW + 11))
    assert again.job.job_id == kept.job.job_id


async def test_ids_that_no_job_has_are_told(store: Store) -> None:
    known, unknown = await ended(store), a_job_id()
    assert await store.unknown_jobs([known, unknown]) == {unknown}
    assert await store.unknown_jobs([]) == set()


def with_artifact(number: int, stored: JobRecord) -> JobChange:
    return JobChange(record=stored, artifacts=[an_artifact(number)])


async def test_a_blob_is_needed_as_long_as_an_artifact_of_any_job_has_it(store: Store) -> None:
    artifact = an_artifact(1)
    job_ids = []
    for number in (1, 2):
        record = a_record(RUNNING)
        await store.create_job(record, [])
        await store.update_job(record.job.job_id, partial(with_artifact, number))
        job_ids.append(record.job.job_id)
    hashes = [artifact.sha256, "0" * 64]
    assert await store.unneeded_blobs(hashes) == {"0" * 64}
    await store.delete_job(job_ids[0])
    assert await store.unneeded_blobs(hashes) == {"0" * 64}
    await store.delete_job(job_ids[1])
    assert await store.unneeded_blobs(hashes) == set(hashes)


async def test_an_artifact_that_was_stored_anew_needs_its_blob(store: Store) -> None:
    record = a_record(RUNNING)
    await store.create_job(record, [])
    await store.update_job(record.job.job_id, partial(with_artifact, 1))
    anew = an_artifact(1)
    anew.sha256 = "1" * 64
    await store.set_artifact_status(anew)
    assert await store.unneeded_blobs([an_artifact(1).sha256, "1" * 64]) == {an_artifact(1).sha256}


async def test_the_size_of_the_database_grows_with_what_is_stored(store: Store) -> None:
    before = await store.size()
    await store.append_events([an_event() for _ in range(20_000)])
    assert await store.size() > before > 0
