"""Queued jobs are started: by priority, then by age, within the slots, and each attempt once, whatever fails."""

import asyncio
import errno
from collections.abc import Callable
from functools import partial
from operator import eq
from pathlib import Path
from typing import Any

import pytest
from jobledger.v1.job_pb2 import JobPriority
from jobledger.v1.job_service_pb2 import CancelJobRequest
from jobledger_server.core.ports import EndReason, JobChange, JobRecord, Outcome, StoreUnavailableError
from jobledger_server.service import finishing
from jobledger_server.service import scheduler as scheduler_module
from jobledger_server.stores.sqlite import SqliteStore
from support.clock import ManualClock
from support.eventually import eventually
from support.executors import FAILURE, ScriptedExecutor
from support.records import CANCELLED, COMPLETED, FAILED, QUEUED, RUNNING
from support.services import ANYBODY, Services, serving


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler_module, "PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(finishing, "RETRY_SECONDS", (0.01,))


@pytest.fixture
def life(tmp_path: Path, store: SqliteStore, clock: ManualClock, executor: ScriptedExecutor) -> Callable[..., Any]:
    """A server over the store and the executor of this test."""

    def start(**options: Any) -> Any:
        return serving(tmp_path, store=store, clock=clock, executor=executor, **options)

    return start


async def asked(executor: ScriptedExecutor, count: int) -> None:
    """Waits until so many starts have been asked for."""

    async def look() -> int:
        return len(executor.asked)

    await eventually(look, until=lambda seen: seen >= count)


async def test_jobs_start_by_priority_then_by_age(life: Callable[..., Any], executor: ScriptedExecutor) -> None:
    async with life(schedule=False, recover=False) as idle:
        created = []
        for priority in ("LOW", "NORMAL", "HIGH", "NORMAL", "HIGH"):
            created.append(await idle.create(priority=JobPriority.Value(f"JOB_PRIORITY_{priority}")))
            idle.clock.advance(1)
    async with life(most=1) as served:
        for number in range(5):
            await asked(executor, number + 1)
            job_id, attempt = executor.asked[number]
            await served.reaches(job_id, RUNNING)
            executor.end(job_id, attempt)
    assert [created.index(job_id) for job_id, _ in executor.started] == [2, 4, 1, 3, 0]


async def test_no_more_jobs_run_than_there_are_slots(life: Callable[..., Any], executor: ScriptedExecutor) -> None:
    async with life(most=2) as served:
        jobs = [await served.create() for _ in range(5)]
        for number in range(5):
            await asked(executor, min(5, number + 2))
            assert len(executor.running) <= 2
            # Freed a moment after the end before is stored.
            free = partial(eq, max(0, 2 - (5 - number)))
            await eventually(lambda: asyncio.sleep(0, served.slots.available), until=free)
            job_id, attempt = executor.started[number]
            await served.reaches(job_id, RUNNING)
            executor.end(job_id, attempt)
            await served.reaches(job_id, COMPLETED)
    assert sorted(executor.started) == sorted((job_id, 1) for job_id in jobs)


async def test_a_job_that_waits_out_its_backoff_does_not_hold_up_the_queue(
    life: Callable[..., Any], executor: ScriptedExecutor, clock: ManualClock
) -> None:
    async with life(most=1) as served:
        first = await served.create(max_attempts=2, backoff=60)
        await served.reaches(first, RUNNING)
        executor.end(first, 1, FAILURE)
        waiting = await served.reaches(first, QUEUED)
        assert waiting.eligible_at == clock.now() + 60_000_000
        second = await served.create()
        await served.reaches(second, RUNNING)
        clock.advance(60)
        executor.end(second, 1)
        again = await served.reaches(first, RUNNING)
    assert again.job.attempt == 2


async def test_a_fault_of_the_job_itself_fails_it_at_once(life: Callable[..., Any], executor: ScriptedExecutor) -> None:
    executor.faults = [OSError(errno.EACCES, "not yours")]
    async with life() as served:
        job = (await served.reaches(await served.create(), FAILED)).job
    assert job.error_code == "E_JOB_SPAWN_FAILED"
    assert len(executor.asked) == 1


async def test_an_attempt_that_the_executor_can_not_start_fails_the_job(
    life: Callable[..., Any], executor: ScriptedExecutor, store: SqliteStore
) -> None:
    async with life(most=1) as served:
        executor.gate.clear()
        job_id = await served.create()
        await asked(executor, 1)
        executor.outcomes[job_id, 1] = Outcome(reason=EndReason.SPAWN_FAILED, message="no such program")
        executor.gate.set()
        job = (await served.reaches(job_id, FAILED)).job
        assert (job.error_code, job.error_message) == ("E_JOB_SPAWN_FAILED", "no such program")
        await served.reaches(await served.create(), RUNNING)
    assert await store.receipt(job_id)


async def users_of_lock(served: Services, job_id: str, count: int) -> None:
    """Waits until so many hold the job's lock or wait for it."""

    async def look() -> int:
        return served.locks._locks[job_id][1]

    await eventually(look, until=lambda seen: seen == count)


async def test_a_job_that_is_cancelled_before_its_start_never_starts(
    life: Callable[..., Any], executor: ScriptedExecutor
) -> None:
    """The one who cancels is first at the job's lock; the start, which comes next, finds nothing that waits."""
    async with life(most=1) as served:
        served.slots.take("other", 1)
        job_id = await served.create()
        async with served.locks.hold(job_id):
            cancel = asyncio.create_task(served.cancelling.cancel(CancelJobRequest(job_id=job_id), ANYBODY))
            await users_of_lock(served, job_id, 2)
            served.slots.free("other", 1)
            await users_of_lock(served, job_id, 3)
        assert (await cancel).state == CANCELLED
        await eventually(lambda: asyncio.sleep(0, served.slots.available), until=lambda free: free == 1)
    assert not executor.asked
    assert not executor.cancels


async def test_a_job_that_is_cancelled_while_it_starts_is_signalled(
    life: Callable[..., Any], executor: ScriptedExecutor
) -> None:
    """The start was first: the one who cancels waits for it, and finds a job that runs."""
    async with life() as served:
        executor.gate.clear()
        job_id = await served.create()
        await asked(executor, 1)
        cancel = asyncio.create_task(served.cancelling.cancel(CancelJobRequest(job_id=job_id), ANYBODY))
        await asyncio.sleep(0)
        assert not cancel.done()
        executor.gate.set()
        assert (await cancel).message == "Cancellation requested"
        assert executor.cancels == [((job_id, 1), 0.0)]


class Outage:
    """Makes the next changes of jobs fail, before or after they are stored."""

    def __init__(self, store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = 0
        self.after = False
        self._update = store.update_job
        monkeypatch.setattr(store, "update_job", self)

    async def __call__(self, job_id: str, decide: Callable[[JobRecord], JobChange | None]) -> JobRecord | None:
        if not self.left:
            return await self._update(job_id, decide)
        self.left -= 1
        if self.after:
            await self._update(job_id, decide)
        raise StoreUnavailableError("disk full")


@pytest.fixture
def outage(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> Outage:
    return Outage(store, monkeypatch)


@pytest.mark.parametrize("after", [False, True], ids=["nothing stored", "stored in fact"])
async def test_a_start_that_could_not_be_stored_is_not_made_twice(
    life: Callable[..., Any], executor: ScriptedExecutor, outage: Outage, after: bool
) -> None:
    outage.left, outage.after = 7, after
    async with life() as served:
        job_id = await served.create()
        await served.reaches(job_id, RUNNING)
        await eventually(lambda: _left(outage), until=lambda left: not left)
        executor.end(job_id, 1)
        await served.reaches(job_id, COMPLETED)
    assert executor.started == [(job_id, 1)]


async def _left(outage: Outage) -> int:
    return outage.left


async def test_a_job_that_started_unstored_is_not_cancelled_as_if_it_waited(
    life: Callable[..., Any], executor: ScriptedExecutor, outage: Outage
) -> None:
    """Its process runs: `cancelled` without a signal would leave it running behind everybody's back."""
    outage.left = 3
    async with life() as served:
        job_id = await served.create()
        await eventually(lambda: _left(outage), until=lambda left: left < 3)
        answer = await served.cancelling.cancel(CancelJobRequest(job_id=job_id), ANYBODY)
    assert answer.message == "Cancellation requested"
    assert executor.cancels == [((job_id, 1), 0.0)]


async def test_a_queue_that_can_not_be_read_is_read_again(
    life: Callable[..., Any], store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, failures = store.queued_jobs, [StoreUnavailableError("locked")] * 3

    async def fail(**arguments: Any) -> Any:
        if failures:
            raise failures.pop()
        return await read(**arguments)

    monkeypatch.setattr(store, "queued_jobs", fail)
    async with life() as served:
        await served.reaches(await served.create(), RUNNING)
    assert not failures


async def test_the_end_is_stored_again_and_again_until_it_can_be(
    life: Callable[..., Any], executor: ScriptedExecutor, outage: Outage, store: SqliteStore
) -> None:
    """And the slot is not given away before."""
    async with life(most=1) as served:
        job_id = await served.create()
        await served.reaches(job_id, RUNNING)
        outage.left = 5
        executor.end(job_id, 1)
        await eventually(lambda: _left(outage), until=lambda left: left < 5)
        assert served.slots.available == 0
        assert not executor.released
        await served.reaches(job_id, COMPLETED)
        await eventually(lambda: asyncio.sleep(0, served.slots.available), until=lambda free: free == 1)
    assert await store.receipt(job_id)
    assert executor.released == [(job_id, 1)]


async def test_an_end_that_is_told_again_changes_nothing(
    life: Callable[..., Any], executor: ScriptedExecutor, store: SqliteStore
) -> None:
    async with life() as served:
        job_id = await served.create()
        await served.reaches(job_id, RUNNING)
        executor.end(job_id, 1)
        before, receipt = await served.reaches(job_id, COMPLETED), await store.receipt(job_id)
        last = (await store.event_bounds()).last
        await served.finisher.attempt_ended(job_id, 1, FAILURE)
        assert await served.get(job_id) == before
    assert await store.receipt(job_id) == receipt
    assert (await store.event_bounds()).last == last


async def test_a_job_that_waits_too_long_fails_with_a_receipt(
    life: Callable[..., Any], executor: ScriptedExecutor, store: SqliteStore
) -> None:
    async with life(most=1) as served:
        runs = await served.create()
        await served.reaches(runs, RUNNING)
        job_id = await served.create(queue_timeout=0.02)
        job = (await served.reaches(job_id, FAILED)).job
        assert job.error_code == "E_JOB_QUEUE_TIMEOUT"
        assert job.error_message == "Waited in the queue for longer than 0.02 s"
    assert await store.receipt(job_id)
    assert executor.started == [(runs, 1)]


async def test_a_job_that_started_in_time_outlives_its_time_in_the_queue(life: Callable[..., Any]) -> None:
    async with life() as served:
        started = await served.create(queue_timeout=0.02)
        await served.reaches(started, RUNNING)
        # Made to end after the time of the first one: when it is over, so is that.
        blocker = await served.create()
        await served.reaches(blocker, RUNNING)
        late = await served.create(queue_timeout=0.02)
        await served.reaches(late, FAILED)
        assert (await served.get(started)).job.state == RUNNING


@pytest.mark.parametrize("turns", range(4))
async def test_a_wake_up_that_comes_with_the_end_does_not_undo_it(life: Callable[..., Any], turns: int) -> None:
    """Else the server would wait for its scheduler for ever."""
    async with asyncio.timeout(10), life() as served:
        await asyncio.to_thread(str)
        served.slots.wake()
        for _ in range(turns):
            await asyncio.sleep(0)
