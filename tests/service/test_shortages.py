"""A start for which the machine has no room is tried for ten minutes; meanwhile the job waits as any other does."""

import asyncio
import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from jobledger.v1.job_service_pb2 import CancelJobRequest
from jobledger_server.service import cancelling, finishing
from jobledger_server.service import scheduler as scheduler_module
from jobledger_server.stores.sqlite import SqliteStore
from support.clock import ManualClock
from support.eventually import eventually
from support.executors import CANCELLED as STOPPED
from support.executors import ScriptedExecutor
from support.records import CANCELLED, FAILED, QUEUED, RUNNING
from support.services import ANYBODY, Services

NO_ROOM = OSError(errno.EAGAIN, "no processes")
# So many failures that no test comes to their end.
FOR_EVER = 1_000_000


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler_module, "PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(scheduler_module, "LONGEST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(finishing, "RETRY_SECONDS", (0.01,))
    monkeypatch.setattr(cancelling, "STOP_LOOK_SECONDS", 0.01)


@pytest.fixture
def most() -> int:
    return 1


@asynccontextmanager
async def no_room(executor: ScriptedExecutor) -> AsyncIterator[None]:
    executor.faults = [NO_ROOM] * FOR_EVER
    try:
        yield
    finally:
        executor.faults = []


async def tried(executor: ScriptedExecutor, more: int = 3) -> None:
    """Waits until a start has been tried some more times."""
    before = len(executor.asked)

    async def look() -> int:
        return len(executor.asked) - before

    await eventually(look, until=lambda seen: seen >= more)


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.EMFILE, errno.ENOSPC, errno.ENOMEM])
async def test_a_start_that_the_machine_has_no_room_for_is_tried_again(
    served: Services, executor: ScriptedExecutor, number: int
) -> None:
    executor.faults = [OSError(number, "no room")] * 2
    record = await served.reaches(await served.create(), RUNNING, FAILED)
    assert record.job.state == RUNNING
    assert (len(executor.asked), len(executor.started)) == (3, 1)


async def test_the_pauses_between_tries_grow_up_to_the_longest(
    served: Services, executor: ScriptedExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All tries within a millisecond would be one try: the machine has had no time to find room."""
    pauses: list[float] = []

    async def noted(future: asyncio.Future[None], seconds: float) -> bool:
        pauses.append(seconds)
        await asyncio.sleep(0)
        return False

    monkeypatch.setattr(scheduler_module, "PAUSE_SECONDS", 1.0)
    monkeypatch.setattr(scheduler_module, "LONGEST_PAUSE_SECONDS", 30.0)
    monkeypatch.setattr(scheduler_module, "wait_at_most", noted)
    executor.faults = [NO_ROOM] * 7
    await served.reaches(await served.create(), RUNNING)
    assert pauses == [1, 2, 4, 8, 16, 30, 30]


async def test_a_shortage_of_minutes_fails_no_job(
    served: Services, executor: ScriptedExecutor, clock: ManualClock
) -> None:
    async with no_room(executor):
        job_id = await served.create()
        await tried(executor)
        clock.advance(599)
        await tried(executor)
        assert (await served.get(job_id)).job.state == QUEUED
        assert served.slots.starved == {job_id}
    await served.reaches(job_id, RUNNING)
    assert not served.slots.starved


async def test_a_machine_that_has_no_room_for_ten_minutes_fails_the_job(
    served: Services, executor: ScriptedExecutor, clock: ManualClock, store: SqliteStore
) -> None:
    async with no_room(executor):
        job_id = await served.create()
        await tried(executor)
        clock.advance(601)
        job = (await served.reaches(job_id, FAILED)).job
    assert (job.error_code, job.attempt) == ("E_JOB_SPAWN_FAILED", 0)
    assert "no processes" in job.error_message
    assert await store.receipt(job_id)
    await served.reaches(await served.create(), RUNNING)


async def test_a_job_can_be_cancelled_meanwhile_and_leaves_its_slot_at_once(
    served: Services, executor: ScriptedExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler_module, "PAUSE_SECONDS", 3600.0)
    monkeypatch.setattr(scheduler_module, "LONGEST_PAUSE_SECONDS", 3600.0)
    executor.faults = [NO_ROOM]
    job_id = await served.create()
    await eventually(lambda: _starved(served), until=lambda starved: job_id in starved)
    assert (await served.cancelling.cancel(CancelJobRequest(job_id=job_id), ANYBODY)).state == CANCELLED
    await served.reaches(await served.create(), RUNNING)
    assert len(executor.started) == 1


async def test_its_time_in_the_queue_goes_on_meanwhile(served: Services, executor: ScriptedExecutor) -> None:
    async with no_room(executor):
        job = (await served.reaches(await served.create(queue_timeout=0.05), FAILED)).job
    assert job.error_code == "E_JOB_QUEUE_TIMEOUT"
    await eventually(lambda: _starved(served), until=lambda starved: not starved)


async def test_jobs_behind_it_are_not_tried_one_after_the_other(served: Services, executor: ScriptedExecutor) -> None:
    """Each would fail as the first one does: a queue of thousands would be a storm of failing starts."""
    async with no_room(executor):
        jobs = [await served.create() for _ in range(5)]
        await tried(executor, 10)
        assert {job_id for job_id, _ in executor.asked} == {jobs[0]}


async def test_a_server_that_stops_its_jobs_waits_for_the_start_that_is_under_way(
    served: Services, executor: ScriptedExecutor
) -> None:
    """Else it would be gone before the job runs, and the job would outlive it."""
    executor.on_cancel = lambda attempt: executor.end(*attempt, STOPPED)
    executor.gate.clear()
    job_id = await served.create()
    await eventually(lambda: asyncio.sleep(0, executor.asked))
    stopping = asyncio.create_task(served.cancelling.stop_all())
    for _ in range(20):
        await asyncio.sleep(0)
    assert not stopping.done()
    executor.gate.set()
    await stopping
    assert (await served.get(job_id)).job.state == CANCELLED


async def test_a_server_that_stops_its_jobs_starts_no_other_one(served: Services, executor: ScriptedExecutor) -> None:
    async with no_room(executor):
        job_id = await served.create()
        await tried(executor)
        await served.cancelling.stop_all()
        assert not served.slots.starting
    assert (await served.get(job_id)).job.state == QUEUED
    assert not executor.started


async def _starved(served: Services) -> set[str]:
    return set(served.slots.starved)
