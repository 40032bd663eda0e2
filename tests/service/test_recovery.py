"""What the next server does with each job that a crash left: finish, adopt, start, or say that it is lost."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jobledger.v1.job_service_pb2 import CancelJobRequest
from jobledger_server.core.ports import EndReason, Outcome, Running, StoreUnavailableError
from jobledger_server.core.times import duration
from jobledger_server.service import recovery
from jobledger_server.stores.sqlite import SqliteStore
from support.clock import ManualClock
from support.executors import CANCELLED as STOPPED
from support.executors import FAILURE, SUCCESS, ScriptedExecutor
from support.records import CANCELLED, CANCELLING, COMPLETED, FAILED, QUEUED, RUNNING
from support.services import ANYBODY, serving

LOST = Outcome(reason=EndReason.LOST, message="left no word")
STARTED = Running(pid=7, started_at=2_000_000_000_000_000)


@pytest.fixture
def life(tmp_path: Path, store: SqliteStore, clock: ManualClock, executor: ScriptedExecutor) -> Callable[..., Any]:
    """A server over the store and the executor of this test; a second one comes after a crash of the first."""

    def start(**options: Any) -> Any:
        return serving(tmp_path, store=store, clock=clock, executor=executor, **options)

    return start


async def left_running(life: Callable[..., Any], **fields: Any) -> str:
    """A job that runs while no server lives."""
    async with life() as served:
        job_id = await served.create(**fields)
        await served.reaches(job_id, RUNNING)
        return str(job_id)


async def left_started_unstored(life: Callable[..., Any], executor: ScriptedExecutor) -> str:
    """A job whose process runs, while the store still says that it waits."""
    async with life(schedule=False) as served:
        job_id = await served.create()
    executor.running[job_id, 1] = STARTED
    return str(job_id)


async def test_a_job_that_ended_meanwhile_is_ended_with_that(
    life: Callable[..., Any], executor: ScriptedExecutor, store: SqliteStore
) -> None:
    job_id = await left_running(life)
    executor.end(job_id, 1, FAILURE)
    async with life(schedule=False) as served:
        job = (await served.get(job_id)).job
        assert (job.state, job.error_code, job.exit_code) == (FAILED, "E_JOB_EXIT_NONZERO", 1)
        assert served.slots.available == 2
    assert await store.receipt(job_id)
    assert executor.released == [(job_id, 1)]


async def test_an_end_that_can_not_be_stored_does_not_keep_the_doors_shut(
    life: Callable[..., Any], executor: ScriptedExecutor, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a full disk or without its signer a server can still be read, and ends the job once that is over."""
    job_id = await left_running(life)
    executor.end(job_id, 1, FAILURE)

    async def refuse(*_: object) -> None:
        raise StoreUnavailableError("no room")

    monkeypatch.setattr(recovery, "PATIENCE_SECONDS", 0.05)
    with monkeypatch.context() as full_disk:
        full_disk.setattr(SqliteStore, "update_job", refuse)
        opening = life(schedule=False)
        served = await opening.__aenter__()
        assert (await served.get(job_id)).job.state == RUNNING
    await served.reaches(job_id, FAILED)
    await opening.__aexit__(None, None, None)
    assert await store.receipt(job_id)


async def test_a_job_that_runs_is_adopted(life: Callable[..., Any], executor: ScriptedExecutor) -> None:
    """It has its slot, and its end is heard."""
    job_id = await left_running(life)
    async with life() as served:
        assert (await served.get(job_id)).job.state == RUNNING
        assert served.slots.available == 1
        executor.end(job_id, 1)
        await served.reaches(job_id, COMPLETED)
    assert executor.started == [(job_id, 1)]


async def test_adopted_jobs_may_be_more_than_there_are_slots(
    life: Callable[..., Any], executor: ScriptedExecutor
) -> None:
    """After a start with a smaller --max-running: all are adopted, and nothing is started until a slot is free."""
    adopted = [await left_running(life) for _ in range(2)]
    async with life(most=1) as served:
        waiting = await served.create()
        executor.end(adopted[0], 1)
        await served.reaches(adopted[0], COMPLETED)
        assert (await served.get(waiting)).job.state == QUEUED
        executor.end(adopted[1], 1)
        await served.reaches(waiting, RUNNING)
    assert executor.started == [(job_id, 1) for job_id in (*adopted, waiting)]


async def test_a_job_that_started_and_left_no_word_is_lost(
    life: Callable[..., Any], executor: ScriptedExecutor, store: SqliteStore
) -> None:
    job_id = await left_running(life)
    executor.end(job_id, 1, LOST)
    async with life(schedule=False) as served:
        assert (await served.get(job_id)).job.error_code == "E_JOB_LOST"
    assert await store.receipt(job_id)


async def test_a_running_job_that_nothing_is_known_of_is_lost(
    life: Callable[..., Any], executor: ScriptedExecutor, store: SqliteStore
) -> None:
    """Its control directory was deleted, say."""
    job_id = await left_running(life)
    executor.running.clear()
    async with life(schedule=False) as served:
        job = (await served.get(job_id)).job
    assert (job.state, job.error_code, job.error_message) == (FAILED, "E_JOB_LOST", "Its supervisor left no trace")
    assert executor.ended_unknown == [(job_id, 1)]
    assert await store.receipt(job_id)


async def test_a_lost_job_with_attempts_left_is_tried_again(
    life: Callable[..., Any], executor: ScriptedExecutor
) -> None:
    job_id = await left_running(life, max_attempts=2)
    executor.end(job_id, 1, LOST)
    async with life() as served:
        assert (await served.reaches(job_id, RUNNING)).job.attempt == 2
    assert executor.started == [(job_id, 1), (job_id, 2)]


async def test_a_job_that_never_started_is_started(life: Callable[..., Any], executor: ScriptedExecutor) -> None:
    async with life(schedule=False) as served:
        job_id = await served.create()
    async with life() as served:
        await served.reaches(job_id, RUNNING)
    assert executor.started == [(job_id, 1)]


async def test_a_job_that_runs_but_seems_to_wait_is_adopted(
    life: Callable[..., Any], executor: ScriptedExecutor
) -> None:
    """The crash came between the start and its storing."""
    job_id = await left_started_unstored(life, executor)
    async with life(most=1) as served:
        job = (await served.get(job_id)).job
        assert (job.state, job.attempt, job.started_at.ToMicroseconds()) == (RUNNING, 1, STARTED.started_at)
        assert served.slots.available == 0
        executor.end(job_id, 1)
        await served.reaches(job_id, COMPLETED)
    assert not executor.started


async def test_a_job_that_ended_but_seems_to_wait_is_ended(
    life: Callable[..., Any], executor: ScriptedExecutor, store: SqliteStore
) -> None:
    """The states in between are told all the same."""
    job_id = await left_started_unstored(life, executor)
    executor.end(job_id, 1, SUCCESS)
    async with life() as served:
        assert (await served.get(job_id)).job.state == COMPLETED
    told = [event.state_changed.new_state for event in await store.events_after(0, limit=10)]
    assert told == [QUEUED, RUNNING, COMPLETED]
    assert not executor.started


async def test_an_attempt_that_failed_but_seems_to_wait_is_told_of_before_the_next(
    life: Callable[..., Any], executor: ScriptedExecutor, store: SqliteStore
) -> None:
    """Its start and its end are stored in one transaction: nobody is told of a job that runs and has ended."""
    bursts = []
    async with life(schedule=False) as served:
        job_id = await served.create(max_attempts=2)
    executor.running[job_id, 1] = STARTED
    executor.end(job_id, 1, FAILURE)
    store.on_events(lambda events: bursts.append([event.state_changed.new_state for event in events]))
    async with life() as served:
        assert (await served.reaches(job_id, RUNNING)).job.attempt == 2
    assert bursts == [[RUNNING, QUEUED], [RUNNING]]
    assert executor.started == [(job_id, 2)]


async def test_a_cancellation_that_was_asked_for_is_asked_for_again(
    life: Callable[..., Any], executor: ScriptedExecutor, store: SqliteStore
) -> None:
    """The crash may have come between the stored intent and the signal."""
    job_id = await left_running(life)
    async with life(schedule=False) as served:
        await served.cancelling.cancel(CancelJobRequest(job_id=job_id, grace_period=duration(3)), ANYBODY)
    executor.cancels.clear()
    async with life() as served:
        assert executor.cancels == [((job_id, 1), 3.0)]
        assert (await served.get(job_id)).job.state == CANCELLING
        executor.end(job_id, 1, STOPPED)
        await served.reaches(job_id, CANCELLED)
    assert await store.receipt(job_id)


@pytest.mark.parametrize(("outcome", "state"), [(STOPPED, CANCELLED), (SUCCESS, COMPLETED), (LOST, FAILED)])
async def test_a_cancelled_job_that_ended_meanwhile_gets_the_end_that_it_had(
    life: Callable[..., Any], executor: ScriptedExecutor, outcome: Outcome, state: int
) -> None:
    job_id = await left_running(life)
    async with life(schedule=False) as served:
        await served.cancelling.cancel(CancelJobRequest(job_id=job_id), ANYBODY)
    executor.end(job_id, 1, outcome)
    async with life(schedule=False) as served:
        assert (await served.get(job_id)).job.state == state


async def test_time_in_the_queue_goes_on_while_no_server_lives(
    life: Callable[..., Any], clock: ManualClock, store: SqliteStore
) -> None:
    async with life(schedule=False) as served:
        job_id = await served.create(queue_timeout=60)
    clock.advance(61)
    async with life(schedule=False) as served:
        job = (await served.reaches(job_id, FAILED)).job
    assert job.error_code == "E_JOB_QUEUE_TIMEOUT"
    assert await store.receipt(job_id)


async def test_what_is_over_stays_as_it_is(
    life: Callable[..., Any], executor: ScriptedExecutor, store: SqliteStore
) -> None:
    job_id = await left_running(life)
    async with life() as served:
        executor.end(job_id, 1)
        before = await served.reaches(job_id, COMPLETED)
    last = (await store.event_bounds()).last
    async with life() as served:
        assert await served.get(job_id) == before
    assert (await store.event_bounds()).last == last
