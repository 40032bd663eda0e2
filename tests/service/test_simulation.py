"""A seeded simulation: whatever comes in whatever order, crashes included, each job ends once, with its receipt.

A run that fails prints its seed; JOBLEDGER_SEED=<it> runs that one alone. The seed decides what happens and the order
in which ready tasks run; the threads of the store keep some freedom of their own.
"""

import asyncio
import operator
import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import pytest
from jobledger.v1.job_pb2 import JobPriority
from jobledger.v1.job_service_pb2 import CancelJobRequest
from jobledger_server.core.concurrency import ConcurrencyLimits
from jobledger_server.core.errors import ServiceError
from jobledger_server.core.ports import EndReason, JobRecord, Outcome
from jobledger_server.core.states import is_terminal
from jobledger_server.service import finishing, scheduler
from jobledger_server.stores.sqlite import SqliteStore
from support.clock import ManualClock
from support.eventually import eventually
from support.executors import CANCELLED, FAILURE, SUCCESS, ScriptedExecutor
from support.services import ANYBODY, Services, serving

SEEDS = [int(os.environ["JOBLEDGER_SEED"])] if "JOBLEDGER_SEED" in os.environ else range(5)
STEPS = 40
MOST = 3
LIMITS = ConcurrencyLimits(queues={"gpu": 2, "single": 1}, labels={"tenant": 2, "tenant=small": 1})
QUEUES, TENANTS = ("default", "default", "gpu", "single"), (None, "small", "large")
OUTCOMES = (SUCCESS, SUCCESS, FAILURE, Outcome(reason=EndReason.LOST), Outcome(reason=EndReason.TIMED_OUT))


class ShuffledLoop(asyncio.SelectorEventLoop):
    """Runs what is ready in an order that the seed decides."""

    def __init__(self, random_source: random.Random) -> None:
        super().__init__()
        self._random = random_source

    def _run_once(self) -> None:
        self._random.shuffle(self._ready)  # type: ignore[attr-defined]
        super()._run_once()  # type: ignore[misc]


class World:
    """Store and executor, which outlive each crash, and the life of the server that there is just now."""

    def __init__(self, data_dir: Path, store: SqliteStore, chance: random.Random) -> None:
        self.data_dir, self.store, self.chance = data_dir, store, chance
        self.clock = ManualClock()
        self.executor = ScriptedExecutor(clock=self.clock)
        self.jobs: list[str] = []
        self.groups: dict[str, tuple[str, ...]] = {}
        self._life = AsyncExitStack()

    @classmethod
    @asynccontextmanager
    async def made(cls, data_dir: Path, chance: random.Random) -> AsyncIterator["World"]:
        async with SqliteStore(data_dir / "jobledger.db") as store:
            world = cls(data_dir, store, chance)
            await world.restart()
            try:
                yield world
            finally:
                await world._life.aclose()

    async def restart(self) -> None:
        """A crash, whatever is under way, and a new server."""
        await self._life.aclose()
        for attempt in list(self.executor.running):
            if self.chance.random() < 0.3:
                self.executor.end(*attempt, self._outcome(attempt))
        served = serving(
            self.data_dir, store=self.store, clock=self.clock, executor=self.executor, most=MOST, limits=LIMITS
        )
        self.served: Services = await self._life.enter_async_context(served)

    async def create(self) -> None:
        tenant = self.chance.choice(TENANTS)
        job_id = await self.served.create(
            max_attempts=self.chance.choice((1, 1, 2, 3)),
            queue=self.chance.choice(QUEUES),
            labels={"tenant": tenant} if tenant else {},
            priority=self.chance.choice(JobPriority.values()),
        )
        self.jobs.append(job_id)
        self.groups[job_id] = (await self.served.get(job_id)).concurrency_groups

    async def cancel(self) -> None:
        """Refused where the job has finished: what it must not do then is checked at the end."""
        if self.jobs:
            with suppress(ServiceError):
                await self.served.cancelling.cancel(CancelJobRequest(job_id=self.chance.choice(self.jobs)), ANYBODY)

    async def end_one(self) -> None:
        if self.executor.running:
            attempt = self.chance.choice(sorted(self.executor.running))
            self.executor.end(*attempt, self._outcome(attempt))

    async def crash_amid_work(self) -> None:
        """The server dies while calls are under way."""
        calls = [asyncio.ensure_future(self.cancel()), asyncio.ensure_future(self.end_one())]
        for _ in range(self.chance.randrange(8)):
            await asyncio.sleep(0)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        await self.restart()

    async def step(self) -> None:
        self.clock.advance(self.chance.random())
        acts: Sequence[Callable[[], Awaitable[None]]] = (self.create, self.create, self.cancel, self.end_one)
        await asyncio.gather(*(act() for act in self.chance.choices(acts, k=3)))
        if self.chance.random() < 0.15:
            await self.crash_amid_work()
        for _ in range(self.chance.randrange(20)):
            await asyncio.sleep(0)
        self.check_now()

    async def settle(self) -> None:
        """Lets all that runs end, until no job is left that does not. Meanwhile none waits that could run."""

        async def unfinished() -> int:
            await eventually(self.may_start, until=operator.not_)
            self.check_now()
            await self.end_one()
            return len(await self.store.unfinished_jobs())

        await eventually(unfinished, until=lambda left: not left, seconds=30)

    async def may_start(self) -> Sequence[str]:
        """Jobs that wait for nothing: there is a slot, and room in each of their groups."""
        slots = self.served.slots
        if not slots.available:
            return ()
        queue = await self.store.queued_jobs(now=self.clock.now(), limit=1000)
        return [record.job.job_id for record in queue if not slots.why_full(record.concurrency_groups)]

    def check_now(self) -> None:
        """What holds at any moment."""
        assert max(Counter(self.executor.started).values(), default=1) == 1, "an attempt was started twice"
        assert len(self.executor.running) <= MOST, "more jobs run than there are slots"
        running = Counter(group for job_id, _ in self.executor.running for group in self.groups[job_id])
        for group, count in running.items():
            assert count <= LIMITS.most(group), f"more jobs of {group} run than may"

    async def check_at_the_end(self) -> None:
        """What holds once nothing is left to do."""
        self.check_now()
        assert not self.executor.running, "something was left running"
        ends: Counter[str] = Counter()
        for event in await self.store.events_after(0, limit=100_000):
            ends[event.job.job_id] += is_terminal(event.state_changed.new_state)
        assert ends == Counter(dict.fromkeys(self.jobs, 1)), "a job did not end exactly once"
        assert len(await self.store.receipt_leaves()) == len(self.jobs)
        for job_id in self.jobs:
            record: JobRecord = await self.served.get(job_id)
            assert is_terminal(record.job.state)
            assert await self.store.receipt(job_id), "a job has no receipt"
        free = await eventually(lambda: asyncio.sleep(0, self.served.slots.available), until=lambda it: it == MOST)
        assert free == MOST

    def _outcome(self, attempt: tuple[str, int]) -> Outcome:
        asked = any(cancelled == attempt for cancelled, _ in self.executor.cancels)
        return CANCELLED if asked and self.chance.random() < 0.7 else self.chance.choice(OUTCOMES)


async def simulate(data_dir: Path, chance: random.Random) -> None:
    async with World.made(data_dir, chance) as world:
        for _ in range(STEPS):
            await world.step()
        await world.settle()
        await world.check_at_the_end()


@pytest.mark.parametrize("seed", SEEDS)
def test_each_job_ends_once_whatever_happens(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    print(f"JOBLEDGER_SEED={seed}")
    monkeypatch.setattr(finishing, "RETRY_SECONDS", (0.01,))
    monkeypatch.setattr(scheduler, "PAUSE_SECONDS", 0.01)
    chance = random.Random(seed)
    with asyncio.Runner(loop_factory=lambda: ShuffledLoop(chance)) as runner:
        runner.run(simulate(tmp_path, chance))
