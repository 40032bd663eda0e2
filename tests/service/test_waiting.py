"""What tasks wait with: signals, locks, slots, and tasks with an owner."""

import asyncio
import logging

import pytest
from jobledger_server.service.locks import JobLocks
from jobledger_server.service.signals import JobSignals, wait_at_most
from jobledger_server.service.slots import Slots
from jobledger_server.service.tasks import Tasks

PATIENCE = 10.0


async def turns(count: int = 5) -> None:
    """Lets every task that can go on do so."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_signal_wakes_everybody_who_waits_for_that_job() -> None:
    signals = JobSignals()
    waiting, other = [signals.waiter("job") for _ in range(3)], signals.waiter("other")
    signals.notify("job")
    await asyncio.wait_for(asyncio.gather(*waiting), PATIENCE)
    assert not other.done()


async def test_a_signal_before_the_look_is_not_lost() -> None:
    signals = JobSignals()
    waiter = signals.waiter("job")
    signals.notify("job")
    assert await wait_at_most(waiter, PATIENCE)


async def test_a_signal_that_nobody_waits_for_is_gone() -> None:
    signals = JobSignals()
    signals.notify("job")
    assert not await wait_at_most(signals.waiter("job"), 0.01)


async def test_signals_forget_those_who_wait_no_more() -> None:
    signals = JobSignals()
    gone, told = signals.waiter("job"), signals.waiter("job")
    gone.cancel()
    await turns()
    signals.notify("job")
    assert await wait_at_most(told, PATIENCE)
    await turns()
    assert not signals._waiting


async def test_a_waiter_that_gave_up_does_not_break_the_signal() -> None:
    signals = JobSignals()
    gone = signals.waiter("job")
    gone.cancel()
    signals.notify("job")
    assert gone.cancelled()


async def test_a_job_is_held_by_one_at_a_time() -> None:
    locks, log = JobLocks(), list[str]()

    async def work(name: str) -> None:
        async with locks.hold("job"):
            log.append(f"{name} in")
            await turns()
            log.append(f"{name} out")

    await asyncio.gather(*(work(name) for name in "abc"))
    assert log == [f"{name} {way}" for name in "abc" for way in ("in", "out")]


async def test_other_jobs_are_not_held_up() -> None:
    locks = JobLocks()
    async with locks.hold("one"), asyncio.timeout(PATIENCE), locks.hold("two"):
        pass


async def test_a_lock_that_nobody_uses_is_gone() -> None:
    locks = JobLocks()
    with pytest.raises(ValueError, match="fault"):
        async with locks.hold("job"):
            raise ValueError("fault")
    assert not locks._locks


async def test_one_who_stops_waiting_leaves_the_lock_to_the_others() -> None:
    locks, entered = JobLocks(), asyncio.Event()

    async def work() -> None:
        async with locks.hold("job"):
            entered.set()

    async with locks.hold("job"):
        impatient, patient = asyncio.create_task(work()), asyncio.create_task(work())
        await turns()
        impatient.cancel()
        await turns()
        assert not entered.is_set()
    await asyncio.wait_for(patient, PATIENCE)
    assert impatient.cancelled()
    assert not locks._locks


async def test_a_slot_is_taken_once_for_a_job() -> None:
    slots = Slots(most=2)
    assert slots.take("one", 1)
    assert not slots.take("one", 1)
    assert slots.available == 1
    slots.free("one", 1)
    slots.free("one", 1)
    assert slots.available == 2


async def test_adopted_jobs_may_take_more_slots_than_there_are() -> None:
    slots = Slots(most=1)
    for job_id in ("one", "two", "three"):
        assert slots.take(job_id, 1)
    assert slots.available == 0
    slots.free("one", 1)
    assert slots.available == 0


async def test_a_freed_slot_wakes_the_one_who_waits() -> None:
    slots = Slots(most=1)
    slots.take("one", 1)
    waiting = asyncio.create_task(slots.changed(PATIENCE))
    await turns()
    assert not waiting.done()
    slots.free("one", 1)
    async with asyncio.timeout(PATIENCE / 2):
        await waiting


async def test_a_wake_before_the_wait_counts_once() -> None:
    slots = Slots(most=1)
    slots.wake()
    slots.wake()
    async with asyncio.timeout(PATIENCE / 2):
        await slots.changed(PATIENCE)
    again = asyncio.create_task(slots.changed(PATIENCE))
    await turns()
    assert not again.done()
    again.cancel()


async def test_tasks_are_stopped_and_awaited() -> None:
    tasks, ended = Tasks(), list[str]()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await turns()
            ended.append("tidied")

    tasks.start(work(), "work")
    await turns()
    await tasks.stop()
    assert ended == ["tidied"]


async def test_the_fault_of_a_task_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        raise ValueError("its own fault")

    tasks = Tasks()
    with caplog.at_level(logging.ERROR):
        tasks.start(fail(), "doomed")
        await tasks.settle()
        await turns()
    assert "the task doomed failed" in caplog.text
    assert "its own fault" in caplog.text


async def test_settling_waits_for_tasks_that_tasks_start() -> None:
    tasks, log = Tasks(), list[str]()

    async def second() -> None:
        await turns()
        log.append("second")

    async def first() -> None:
        tasks.start(second(), "second")

    tasks.start(first(), "first")
    await asyncio.wait_for(tasks.settle(), PATIENCE)
    assert log == ["second"]
