"""No more jobs of a queue, or with a label, run than its limit says; the others don't wait for them."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jobledger.v1.job_pb2 import JobPriority
from jobledger.v1.job_service_pb2 import CancelJobRequest
from jobledger_server.core.concurrency import ConcurrencyLimits
from jobledger_server.service import finishing
from jobledger_server.service import scheduler as scheduler_module
from jobledger_server.service.slots import Slots
from jobledger_server.stores.sqlite import SqliteStore
from support.clock import ManualClock
from support.eventually import eventually
from support.executors import FAILURE, ScriptedExecutor
from support.records import COMPLETED, QUEUED, RUNNING
from support.services import ANYBODY, Services, serving

GPU = ConcurrencyLimits(queues={"gpu": 2})
TENANT = ConcurrencyLimits(labels={"tenant": 1})
HIGH = JobPriority.JOB_PRIORITY_HIGH


@pytest.fixture(autouse=True)
def _no_looks_between(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scheduler looks when it is woken, and only then: a wake-up that is missing would show."""
    monkeypatch.setattr(scheduler_module, "PAUSE_SECONDS", 3600.0)
    monkeypatch.setattr(finishing, "RETRY_SECONDS", (0.01,))


@pytest.fixture
def life(tmp_path: Path, store: SqliteStore, clock: ManualClock, executor: ScriptedExecutor) -> Callable[..., Any]:
    """A server with ten slots over the store and the executor of this test; a second one comes after a crash."""

    def start(limits: ConcurrencyLimits, **options: Any) -> Any:
        return serving(tmp_path, store=store, clock=clock, executor=executor, limits=limits, **{"most": 10, **options})

    return start


async def create(served: Services, count: int, **fields: Any) -> list[str]:
    """Jobs one after the other, each a second younger."""
    jobs = []
    for _ in range(count):
        jobs.append(await served.create(**fields))
        served.clock.advance(1)
    return jobs


async def run(served: Services, *jobs: str) -> None:
    for job_id in jobs:
        await served.reaches(job_id, RUNNING)


async def end(served: Services, job_id: str) -> None:
    served.executor.end(job_id, 1)
    await served.reaches(job_id, COMPLETED)


async def test_no_more_jobs_of_a_queue_run_than_its_limit(life: Callable[..., Any], executor: ScriptedExecutor) -> None:
    async with life(GPU) as served:
        jobs = await create(served, 5, queue="gpu")
        for number, job_id in enumerate(jobs):
            await run(served, *jobs[number : number + 2])
            assert len(executor.running) <= 2
            await end(served, job_id)
    assert sorted(executor.started) == sorted((job_id, 1) for job_id in jobs)


async def test_a_full_queue_holds_up_no_other_whatever_the_priority(life: Callable[..., Any]) -> None:
    async with life(GPU, most=4) as served:
        gpu = await create(served, 5, queue="gpu", priority=HIGH)
        others = await create(served, 2)
        await run(served, *gpu[:2], *others)
        assert [(await served.get(job_id)).job.state for job_id in gpu[2:]] == [QUEUED] * 3


async def test_jobs_that_wait_together_fill_no_queue_beyond_its_limit(life: Callable[..., Any]) -> None:
    """All are read at once, and more than a reading holds wait behind them: those that may start are found."""
    async with life(GPU, schedule=False) as idle:
        gpu = await create(idle, 30, queue="gpu", priority=HIGH)
        others = await create(idle, 1)
    async with life(GPU, most=3) as served:
        await run(served, *gpu[:2], *others)
        assert len(served.executor.running) == 3


async def test_jobs_whose_start_is_under_way_count(life: Callable[..., Any], executor: ScriptedExecutor) -> None:
    """Their state is still `queued`."""
    executor.gate.clear()
    async with life(GPU) as served:
        gpu = await create(served, 4, queue="gpu")
        others = await create(served, 2)
        await eventually(lambda: asyncio.sleep(0, len(executor.asked)), until=lambda asked: asked == 4)
        executor.gate.set()
        await run(served, *gpu[:2], *others)
        assert len(executor.asked) == 4


async def test_a_limit_of_a_label_holds_for_each_of_its_values(life: Callable[..., Any]) -> None:
    async with life(TENANT) as served:
        acme = await create(served, 2, labels={"tenant": "acme"})
        initech = await create(served, 2, labels={"tenant": "initech", "other": "x"})
        free = await create(served, 2, labels={"other": "x"})
        await run(served, acme[0], initech[0], *free)
        assert len(served.executor.running) == 4
        await end(served, initech[0])
        await run(served, initech[1])
        assert (await served.get(acme[1])).job.state == QUEUED


async def test_a_job_runs_only_when_there_is_room_in_every_group_of_its(life: Callable[..., Any]) -> None:
    limits = ConcurrencyLimits(queues={"gpu": 2}, labels={"tenant": 1})
    async with life(limits) as served:
        first, second, third = [
            (await create(served, 1, queue="gpu", labels={"tenant": tenant}))[0] for tenant in ("a", "b", "a")
        ]
        await run(served, first, second)
        await end(served, second)
        (other,) = await create(served, 1, queue="gpu", labels={"tenant": "c"})
        await run(served, other)
        await end(served, first)
        await run(served, third)


async def test_a_job_that_is_cancelled_while_it_waits_frees_nothing(life: Callable[..., Any]) -> None:
    async with life(GPU) as served:
        gpu = await create(served, 4, queue="gpu")
        await run(served, *gpu[:2])
        await served.cancelling.cancel(CancelJobRequest(job_id=gpu[2]), ANYBODY)
        (other,) = await create(served, 1)
        await run(served, other)
        assert (await served.get(gpu[3])).job.state == QUEUED
        await end(served, gpu[0])
        await run(served, gpu[3])


async def test_a_job_that_waits_out_its_backoff_does_not_count(life: Callable[..., Any]) -> None:
    async with life(TENANT) as served:
        fails, waits = await create(served, 2, labels={"tenant": "acme"}, max_attempts=2, backoff=3600)
        await run(served, fails)
        served.executor.end(fails, 1, FAILURE)
        await served.reaches(fails, QUEUED)
        await run(served, waits)


async def test_adopted_jobs_count_though_they_be_more_than_the_limit_of_today(life: Callable[..., Any]) -> None:
    async with life(ConcurrencyLimits()) as served:
        gpu = await create(served, 3, queue="gpu")
        await run(served, *gpu)
    async with life(GPU) as served:
        (late,) = await create(served, 1, queue="gpu")
        assert served.slots.why_full(["queue gpu"]) == "queue gpu is full (3 of 2 running)"
        await end(served, gpu[0])
        (other,) = await create(served, 1)
        await run(served, other)
        assert (await served.get(late)).job.state == QUEUED
        await end(served, gpu[1])
        await run(served, late)


async def test_jobs_that_wait_since_before_a_limit_was_set_count_by_it(life: Callable[..., Any]) -> None:
    async with life(GPU, schedule=False) as served:
        jobs = await create(served, 3, queue="gpu", labels={"tenant": "acme"})
        assert (await served.get(jobs[0])).concurrency_groups == ("queue gpu",)
    async with life(TENANT) as served:
        await run(served, jobs[0])
        (other,) = await create(served, 1, queue="gpu")
        await run(served, other)
        assert len(served.executor.running) == 2
        assert {(await served.get(job_id)).concurrency_groups for job_id in jobs} == {("label tenant=acme",)}


def test_a_slot_counts_in_its_groups_until_it_is_freed() -> None:
    slots = Slots(most=9, limits=ConcurrencyLimits(queues={"gpu": 2}, labels={"tenant": 1}))
    assert slots.take("one", 1, ("queue gpu", "label tenant=a"))
    assert not slots.take("one", 1, ("queue gpu",))
    assert slots.full_groups() == {"label tenant=a"}
    assert slots.why_full(("queue gpu", "label tenant=a")) == "label tenant=a is full (1 of 1 running)"
    assert slots.why_full(("queue gpu", "label tenant=b")) is None
    slots.take("two", 1, ("queue gpu",))
    assert slots.full_groups() == {"queue gpu", "label tenant=a"}
    slots.free("one", 2)
    assert slots.full_groups() == {"queue gpu", "label tenant=a"}
    slots.free("one", 1)
    slots.free("one", 1)
    assert slots.full_groups() == frozenset()
