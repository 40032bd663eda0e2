"""An executor without processes: a test says how attempts start and end."""

import asyncio
from collections.abc import Callable, Collection

from jobledger_server.core.ports import (
    Clock,
    EndReason,
    ExecutorListener,
    InputClosedError,
    Launch,
    Outcome,
    Running,
)

Attempt = tuple[str, int]
SUCCESS = Outcome(reason=EndReason.EXITED, exit_code=0)
FAILURE = Outcome(reason=EndReason.EXITED, exit_code=1)
CANCELLED = Outcome(reason=EndReason.CANCELLED, signal=15)


class ScriptedExecutor:
    """Implements `ports.Executor`. As supervisors outlive a server, it outlives the services that use it.

    Attributes:
        listener: whom it tells; None while no server lives.
        started: attempts that were started, in order; one that stands here twice was started twice.
        cancels: each request to cancel, with its grace period in seconds.
        faults: what the next calls of `start` raise, first one first.
        quick: how the next attempts have ended when `start` looks at them, first one first.
        ended_unknown: attempts whose remains were to be ended.
        gate: closed, it holds up `start` before the attempt exists; `asked` has those that have come so far.
        on_cancel: called with each attempt that is to be cancelled and still runs.
    """

    def __init__(self, *, clock: Clock) -> None:
        self._clock = clock
        self.listener: ExecutorListener | None = None
        self.asked: list[Attempt] = []
        self.started: list[Attempt] = []
        self.running: dict[Attempt, Running] = {}
        self.outcomes: dict[Attempt, Outcome] = {}
        self.cancels: list[tuple[Attempt, float]] = []
        self.released: list[Attempt] = []
        self.ended_unknown: list[Attempt] = []
        self.inputs: dict[Attempt, list[bytes]] = {}
        self.faults: list[OSError] = []
        self.quick: list[Outcome] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.on_cancel: Callable[[Attempt], None] = lambda attempt: None

    def end(self, job_id: str, attempt: int, outcome: Outcome = SUCCESS) -> None:
        """The attempt is over; who listens is told."""
        self.running.pop((job_id, attempt), None)
        self.outcomes[job_id, attempt] = outcome
        if self.listener is not None:
            self.listener.attempt_ended(job_id, attempt, outcome)

    def declare(self, job_id: str, attempt: int, *paths: str) -> None:
        """The job says that it is going to leave these files."""
        if self.listener is not None:
            self.listener.artifacts_declared(job_id, attempt, paths)

    async def start(self, launch: Launch) -> Running | Outcome:
        key = (launch.job_id, launch.attempt)
        self.asked.append(key)
        await self.gate.wait()
        if self.faults:
            raise self.faults.pop(0)
        known = await self.find(*key)
        if known is not None:
            return known
        self.started.append(key)
        if self.quick:
            self.outcomes[key] = self.quick.pop(0)
            return self.outcomes[key]
        self.running[key] = Running(pid=1000 + len(self.started), started_at=self._clock.now())
        return self.running[key]

    async def find(self, job_id: str, attempt: int) -> Running | Outcome | None:
        key = (job_id, attempt)
        return self.outcomes.get(key) or self.running.get(key)

    async def end_unknown(self, job_id: str, attempt: int) -> Outcome:
        self.ended_unknown.append((job_id, attempt))
        return Outcome(reason=EndReason.LOST, message="Its supervisor left no trace")

    async def cancel(self, job_id: str, attempt: int, *, grace_seconds: float) -> None:
        key = (job_id, attempt)
        self.cancels.append((key, grace_seconds))
        if key in self.running:
            self.on_cancel(key)

    async def send_input(self, job_id: str, attempt: int, data: bytes, *, close: bool) -> int:
        key = (job_id, attempt)
        if key not in self.running:
            raise InputClosedError
        self.inputs.setdefault(key, []).append(data)
        return len(self.inputs[key])

    def queued_inputs(self, job_id: str, attempt: int) -> int:
        return len(self.inputs.get((job_id, attempt), ()))

    async def release(self, job_id: str, attempt: int) -> None:
        key = (job_id, attempt)
        self.released.append(key)
        self.running.pop(key, None)
        self.outcomes.pop(key, None)

    async def release_others(self, kept: Collection[Attempt]) -> None:
        for key in {*self.running, *self.outcomes} - {*kept}:
            await self.release(*key)
