"""What starts, cancels and ends jobs, wired as in the server, over a store and an executor that outlive it."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jobledger.v1.job_pb2 import JobSpec, JobState
from jobledger_server.access.live_calls import LiveCalls
from jobledger_server.blobs.files import FileBlobs
from jobledger_server.core.concurrency import NO_LIMITS, ConcurrencyLimits
from jobledger_server.core.policy import Principal
from jobledger_server.core.ports import JobRecord, Store
from jobledger_server.core.receipts import Environment
from jobledger_server.core.times import duration
from jobledger_server.service.cancelling import Cancelling
from jobledger_server.service.collecting import Collector
from jobledger_server.service.declaring import Declaring
from jobledger_server.service.finishing import Finisher
from jobledger_server.service.listening import Listener
from jobledger_server.service.locks import JobLocks
from jobledger_server.service.recovery import Recovery
from jobledger_server.service.scheduler import Scheduler
from jobledger_server.service.sealing import Sealer
from jobledger_server.service.signals import JobSignals
from jobledger_server.service.signing import KeyRing
from jobledger_server.service.slots import Slots
from jobledger_server.service.workspace import Workspaces
from support.clock import ManualClock
from support.eventually import eventually
from support.executors import ScriptedExecutor
from support.records import a_record, state_changed

ANYBODY = Principal(token_id="token", scopes=frozenset({"jobs:cancel"}))
ENVIRONMENT = Environment(engine_version="0", os="Linux", platform="Linux", python="3", host="here", isolation="none")


@dataclass(frozen=True, kw_only=True)
class Services:
    """A life of the server, without its doors."""

    store: Store
    clock: ManualClock
    executor: ScriptedExecutor
    slots: Slots
    locks: JobLocks
    declaring: Declaring
    finisher: Finisher
    scheduler: Scheduler
    recovery: Recovery
    cancelling: Cancelling

    async def create(
        self,
        *,
        max_attempts: int = 1,
        backoff: float = 0,
        queue_timeout: float | None = None,
        also: JobSpec | None = None,
        **fields: Any,
    ) -> str:
        """Accepts a job, as CreateJob does. Durations in seconds; `also` is merged into the specification."""
        record = a_record(**{"created_at": self.clock.now(), **fields})
        spec = record.job.spec
        spec.MergeFrom(also or JobSpec())
        spec.max_attempts = max_attempts
        spec.retry_backoff.CopyFrom(duration(backoff))
        if queue_timeout is not None:
            spec.queue_timeout.CopyFrom(duration(queue_timeout))
        record = replace(record, concurrency_groups=self.slots.limits.groups_of(record.job))
        record = await self.store.create_job(record, [state_changed(record)])
        self.finisher.queued(record)
        return record.job.job_id

    async def get(self, job_id: str) -> JobRecord:
        record = await self.store.get_job(job_id)
        assert record is not None
        return record

    async def reaches(self, job_id: str, *states: JobState.ValueType) -> JobRecord:
        """The record once it is in one of the states."""
        return await eventually(lambda: self.get(job_id), until=lambda record: record.job.state in states)


@asynccontextmanager
async def serving(
    data_dir: Path,
    *,
    store: Store,
    clock: ManualClock,
    executor: ScriptedExecutor,
    most: int = 2,
    recover: bool = True,
    schedule: bool = True,
    limits: ConcurrencyLimits = NO_LIMITS,
    keys: KeyRing | None = None,
) -> AsyncIterator[Services]:
    """A life of the server. When the block is left all of it is dropped, whatever was under way, as in a crash."""
    signals, locks, slots = JobSignals(), JobLocks(), Slots(most=most, limits=limits)
    workspaces = Workspaces(data_dir=data_dir)
    keys = keys or KeyRing.open(data_dir / "keys", clock)
    async with AsyncExitStack() as stack:
        declaring = Declaring(store=store, clock=clock, locks=locks)
        listener = await stack.enter_async_context(
            Listener(store=store, clock=clock, signals=signals, declaring=declaring)
        )
        sealer = Sealer(keys=keys, environment=ENVIRONMENT)
        collector = Collector(blobs=FileBlobs(data_dir / "blobs"))
        shared: dict[str, Any] = {
            "store": store, "clock": clock, "executor": executor, "locks": locks, "signals": signals
        }  # fmt: skip
        ending: dict[str, Any] = {"declaring": declaring, "collector": collector, "sealer": sealer}
        finisher = await stack.enter_async_context(Finisher(**shared, **ending, workspaces=workspaces, slots=slots))
        listener.finisher, executor.listener = finisher, listener
        stack.callback(setattr, executor, "listener", None)
        scheduler = Scheduler(**shared, finisher=finisher, workspaces=workspaces, slots=slots)
        recovery = Recovery(store=store, executor=executor, scheduler=scheduler, finisher=finisher, slots=slots)
        if recover:
            await recovery.run()
        if schedule:
            await stack.enter_async_context(scheduler)
        yield Services(
            store=store,
            clock=clock,
            executor=executor,
            slots=slots,
            locks=locks,
            declaring=declaring,
            finisher=finisher,
            scheduler=scheduler,
            recovery=recovery,
            cancelling=Cancelling(
                **shared,
                finisher=finisher,
                slots=slots,
                live=LiveCalls(tokens=store, clock=clock, most_streams=1),
            ),
        )
