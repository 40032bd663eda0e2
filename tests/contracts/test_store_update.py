"""Changing jobs: one transaction each, decided on what is stored."""

import asyncio
from dataclasses import replace

import pytest
from jobledger.v1.job_pb2 import Artifact, Job, JobState
from jobledger_server.core.ports import CancelIntent, EventBounds, JobChange, JobFilter, JobRecord, Origin, Store
from jobledger_server.core.times import timestamp
from stores.backends import Backend
from support.records import (
    CANCELLED,
    COMPLETED,
    FAILED,
    NOW,
    QUEUED,
    RUNNING,
    TERMINAL,
    a_change,
    a_job_id,
    a_receipt,
    a_record,
    an_artifact,
    moved,
)


class RefusedError(Exception):
    """What a decision raises in these tests."""


def refuse(record: JobRecord) -> JobChange | None:
    raise RefusedError(record.job.job_id)


async def test_a_change_is_stored_with_all_that_belongs_to_it(store: Store) -> None:
    record = await store.create_job(a_record(RUNNING), [])
    receipt = a_receipt(record.job.job_id)

    def decide(stored: JobRecord) -> JobChange:
        return replace(a_change(stored, COMPLETED, receipt=receipt), artifacts=[an_artifact(1)])

    updated = await store.update_job(record.job.job_id, decide)
    assert updated is not None
    assert updated == moved(record, COMPLETED)
    assert await store.get_job(record.job.job_id) == updated
    assert await store.artifacts(record.job.job_id) == [an_artifact(1)]
    assert await store.receipt(record.job.job_id) == replace(receipt, leaf_index=0, workspace_id="default")
    [event] = await store.events_after(0, limit=10)
    assert (event.state_changed.old_state, event.state_changed.new_state) == (RUNNING, COMPLETED)


async def test_artifacts_are_added_or_stored_anew(store: Store) -> None:
    """Anew, with what the job had before gone, also where an id or a path comes back."""
    record = await store.create_job(a_record(RUNNING), [])
    job_id = record.job.job_id

    async def change(artifacts: list[Artifact], *, anew: bool) -> list[Artifact]:
        await store.update_job(
            job_id, lambda stored: JobChange(record=stored, artifacts=artifacts, artifacts_anew=anew)
        )
        return list(await store.artifacts(job_id))

    one, two, three = an_artifact(1, "a"), an_artifact(2, "b"), an_artifact(3, "a")
    assert await change([one], anew=False) == [one]
    assert await change([two], anew=False) == [one, two]
    assert await change([], anew=False) == [one, two]
    assert await change([three, two], anew=True) == [three, two]
    assert await change([], anew=True) == []


async def test_what_only_the_engine_needs_is_stored_too(store: Store) -> None:
    record = await store.create_job(a_record(), [])
    intent = CancelIntent(requested_at=NOW, requested_by="token", reason="", grace_seconds=0.0)
    origin = Origin(attempt=1, inputs={"/in/caf\udce9": "ab" * 32}, source_pins={"git_commit": "0" * 40})
    changed = replace(record, cancel=intent, eligible_at=NOW + 9, origin=origin)
    await store.update_job(record.job.job_id, lambda _: JobChange(record=changed))
    assert await store.get_job(record.job.job_id) == changed
    await store.update_job(record.job.job_id, lambda stored: JobChange(record=replace(stored, cancel=None)))
    assert await store.get_job(record.job.job_id) == replace(changed, cancel=None)


async def test_the_decision_sees_what_is_stored(store: Store) -> None:
    record = await store.create_job(a_record(), [])
    running = await store.update_job(record.job.job_id, lambda stored: a_change(stored, RUNNING))
    seen: list[JobRecord] = []

    def note(stored: JobRecord) -> None:
        seen.append(stored)

    await store.update_job(record.job.job_id, note)
    assert seen == [running]


async def test_deciding_on_nothing_changes_nothing(store: Store) -> None:
    record = await store.create_job(a_record(), [])
    assert await store.update_job(record.job.job_id, lambda _: None) == record
    assert await store.event_bounds() == EventBounds(first=1, last=0)


async def test_changing_a_job_that_is_not_there_asks_nobody(store: Store) -> None:
    assert await store.update_job(a_job_id(), refuse) is None


async def test_what_a_decision_raises_comes_out_and_nothing_changes(store: Store) -> None:
    record = await store.create_job(a_record(), [])
    with pytest.raises(RefusedError, match=record.job.job_id):
        await store.update_job(record.job.job_id, refuse)
    assert await store.get_job(record.job.job_id) == record


async def test_a_decision_that_raises_harms_no_other_change(store: Store) -> None:
    """Changes that wait together may share a transaction; each still stands for itself."""
    records = [await store.create_job(a_record(), []) for _ in range(10)]
    outcomes = await asyncio.gather(
        *(
            store.update_job(record.job.job_id, refuse if place % 2 else lambda stored: a_change(stored, RUNNING))
            for place, record in enumerate(records)
        ),
        return_exceptions=True,
    )
    assert [isinstance(outcome, RefusedError) for outcome in outcomes] == [False, True] * 5
    assert await store.count_by_state() == {QUEUED: 5, RUNNING: 5}
    assert [event.sequence_number for event in await store.events_after(0, limit=10)] == [1, 2, 3, 4, 5]


async def test_a_change_that_can_not_be_stored_whole_is_not_stored_at_all(store: Store) -> None:
    record = await store.create_job(a_record(RUNNING), [])

    def decide(stored: JobRecord) -> JobChange:
        change = a_change(stored, COMPLETED, receipt=a_receipt(stored.job.job_id))
        return replace(change, artifacts=[an_artifact(1, "a"), an_artifact(1, "b")])

    with pytest.raises(AssertionError):
        await store.update_job(record.job.job_id, decide)
    assert await store.get_job(record.job.job_id) == record
    assert await store.receipt(record.job.job_id) is None
    assert await store.artifacts(record.job.job_id) == []
    assert await store.event_bounds() == EventBounds(first=1, last=0)


async def test_of_racing_changes_of_state_exactly_one_wins(store: Store) -> None:
    record = await store.create_job(a_record(), [])

    def start_or_cancel(state: JobState.ValueType, stored: JobRecord) -> JobChange | None:
        return a_change(stored, state) if stored.job.state == QUEUED else None

    async def race(state: JobState.ValueType) -> None:
        await store.update_job(record.job.job_id, lambda stored: start_or_cancel(state, stored))

    await asyncio.gather(*(race(RUNNING if place % 2 else CANCELLED) for place in range(40)))
    stored = await store.get_job(record.job.job_id)
    [event] = await store.events_after(0, limit=100)
    assert stored is not None
    assert event.state_changed.new_state == stored.job.state
    assert await store.count_by_state() == {stored.job.state: 1}


@pytest.mark.parametrize("state", TERMINAL)
async def test_a_terminal_job_never_changes(store: Store, state: JobState.ValueType) -> None:
    record = await store.create_job(a_record(state), [])
    for to in (QUEUED, RUNNING, FAILED):
        with pytest.raises(AssertionError, match="terminal"):
            await store.update_job(record.job.job_id, lambda stored, to=to: a_change(stored, to))  # type: ignore[misc]
    assert await store.get_job(record.job.job_id) == record


@pytest.mark.parametrize(
    "difference",
    [
        Job(job_id="job_other"),
        Job(job_type="other"),
        Job(workspace_id="other"),
        Job(created_at=timestamp(NOW + 1)),
        Job(labels={"new": "label"}),
    ],
    ids=lambda job: job.ListFields()[0][0].name,
)
async def test_what_was_fixed_at_creation_never_changes(store: Store, difference: Job) -> None:
    record = await store.create_job(a_record(), [])

    def decide(stored: JobRecord) -> JobChange:
        job = Job()
        job.CopyFrom(stored.job)
        job.MergeFrom(difference)
        return JobChange(record=replace(stored, job=job))

    with pytest.raises(AssertionError, match="fixed"):
        await store.update_job(record.job.job_id, decide)
    assert await store.get_job(record.job.job_id) == record


async def test_activity_only_ever_moves_forward(store: Store) -> None:
    record = await store.create_job(a_record(), [])
    for at, expected in ((NOW + 50, NOW + 50), (NOW + 20, NOW + 50), (NOW + 60, NOW + 60)):
        await store.record_activity(record.job.job_id, at)
        stored = await store.get_job(record.job.job_id)
        assert stored == replace(record, last_activity_at=expected)


async def test_a_change_does_not_take_back_later_activity(store: Store) -> None:
    """The caller looks at the clock before the change; a log line may be noted in between."""
    record = await store.create_job(a_record(), [])
    await store.record_activity(record.job.job_id, NOW + 50)
    updated = await store.update_job(record.job.job_id, lambda stored: a_change(stored, RUNNING, at=NOW + 40))
    assert updated is not None
    assert updated.last_activity_at == NOW + 50
    assert await store.get_job(record.job.job_id) == updated


async def test_activity_of_a_job_that_is_not_there_is_ignored(store: Store) -> None:
    await store.record_activity(a_job_id(), NOW)
    assert (await store.list_jobs(JobFilter(), limit=1)).total == 0


async def test_an_acknowledged_change_is_there_after_reopening(backend: Backend) -> None:
    async with backend.open() as store:
        record = await store.create_job(a_record(), [])
        updated = await store.update_job(record.job.job_id, lambda stored: a_change(stored, RUNNING))
    async with backend.open() as store:
        assert await store.get_job(record.job.job_id) == updated
