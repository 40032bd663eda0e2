"""Ends jobs: artifacts first, then state, receipt and events in one transaction, then the tidying.

Nothing is given up: while the store can't write, the job stays as it is, and the end is tried again.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Self

from jobledger.v1.events_pb2 import Event
from jobledger.v1.job_pb2 import JOB_STATE_QUEUED, Artifact, Job

from jobledger_server.core import transitions
from jobledger_server.core.ports import (
    Clock,
    EndReason,
    Executor,
    InvariantError,
    JobChange,
    JobRecord,
    LogSummary,
    Outcome,
    Running,
    Store,
    StoredReceipt,
)
from jobledger_server.core.states import ACTIVE, is_terminal
from jobledger_server.core.times import SECOND, micros, seconds
from jobledger_server.service.collecting import Collected, Collector, Refusal
from jobledger_server.service.declaring import Declaring
from jobledger_server.service.kept_log import kept_log
from jobledger_server.service.locks import JobLocks
from jobledger_server.service.overdue import Overdue
from jobledger_server.service.sealing import NOTHING, Sealer, SignatureNeededError
from jobledger_server.service.settling import Settling
from jobledger_server.service.signals import JobSignals
from jobledger_server.service.slots import Slots
from jobledger_server.service.tasks import Tasks
from jobledger_server.service.tries import Failures, until_done
from jobledger_server.service.workspace import Workspaces

log = logging.getLogger(__name__)
RETRY_SECONDS = (0.1, 0.5, 1.0, 2.0, 5.0)
# What the store, or the receipt, does not take, however often it is tried; and how often it is.
NOT_TAKEN = (InvariantError, ValueError, TypeError, OverflowError)
WHOLE_TRIES = 3
NOT_STORED = Collected((), (Refusal("", "The server could not store what the job left; its log says why"),))
# How long an end may take to be stored with its start, the job being taken for one that waits until then.
AT_ONCE_SECONDS = 0.5


class Finisher:
    """Ends jobs.

    Attributes:
        overdue: the ends that could not be stored yet.
    """

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        executor: Executor,
        declaring: Declaring,
        collector: Collector,
        sealer: Sealer,
        workspaces: Workspaces,
        locks: JobLocks,
        signals: JobSignals,
        slots: Slots,
    ) -> None:
        self._store = store
        self._clock = clock
        self._executor = executor
        self._declaring = declaring
        self._collector = collector
        self._sealer = sealer
        self._workspaces = workspaces
        self._locks = locks
        self._signals = signals
        self._slots = slots
        self._tasks = Tasks()
        self.overdue = Overdue()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._tasks.stop()

    async def attempt_ended(self, job_id: str, attempt: int, outcome: Outcome) -> None:
        """Stores the end of an attempt. Doing so again changes nothing."""
        async with self._locks.hold(job_id):
            # Nothing to do but let a start that is under way come first. From here on the store decides every race:
            # whoever cancels must not wait until gigabytes are collected, or a full disk has room again.
            pass
        await self._end_persistently(job_id, attempt, outcome, lambda: self._end(job_id, attempt, outcome))

    async def end_at_once(self, job_id: str, attempt: int, outcome: Outcome) -> bool:
        """Stores the end of an attempt whose start is not stored yet, both in one transaction.

        The caller holds the job's lock. False: that can't be done just now, or takes its time, and goes on in the
        background. Then the caller is to store the start alone: what ran is no job that waits.
        """
        if not self._sealer.signs_at_once:
            self.end_in_background(job_id, attempt, outcome)
            return False
        tried: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        async def end() -> None:
            stored = False
            try:
                await self._end(job_id, attempt, outcome)
                stored = True
            finally:
                if not tried.done():
                    tried.set_result(stored)

        self._tasks.start(self._end_persistently(job_id, attempt, outcome, end), f"end {job_id}")
        await asyncio.wait({tried}, timeout=AT_ONCE_SECONDS)
        return tried.done() and tried.result()

    def end_in_background(self, job_id: str, attempt: int, outcome: Outcome) -> asyncio.Task[None]:
        """Stores the end of an attempt, however long that takes."""
        return self._tasks.start(self.attempt_ended(job_id, attempt, outcome), f"end {job_id}")

    async def never_started(self, job_id: str, error_code: str, message: str, *, attempt: int) -> None:
        """Ends a job that still waits after `attempt` attempts: it can't be started, or has waited too long.

        The caller does not hold the job's lock: it is taken for each try, so that the job can be cancelled in between.

        Args:
            message: with bytes that are not UTF-8 as `os.fsdecode` gives them.
        """
        told = message.encode("utf-8", "backslashreplace").decode()

        async def end() -> None:
            log = await self._kept_log(job_id) if attempt else None

            def decide(record: JobRecord) -> JobChange | None:
                if record.job.attempt != attempt:
                    return None
                change = transitions.never_started(record, error_code, told, self._clock.now())
                return self._sealer.seal(change, log=log)

            async with self._locks.hold(job_id):
                await self._forget_next(await self._store_end(job_id, decide), attempt)

        await self._persistently(end)

    async def store(self, job_id: str, decide: Callable[[JobRecord], JobChange | None]) -> JobRecord | None:
        """Stores a change, with its receipt where it ends the job. The caller holds the job's lock."""
        record = await self._store.get_job(job_id)
        waits = record is not None and record.job.state == JOB_STATE_QUEUED
        attempt = record.job.attempt if record is not None else 0
        log = await self._kept_log(job_id) if waits and attempt else None
        after = await self._store_end(job_id, lambda record: self._sealer.seal(decide(record), log=log))
        if waits:
            await self._forget_next(after, attempt)
        return after

    def keep_trying(self, work: Callable[[], Awaitable[object]], name: str) -> None:
        """Does in the background what store or disk have no room for just now."""
        self._tasks.start(self._persistently(work), name)

    async def _forget_next(self, record: JobRecord | None, attempt: int) -> None:
        """Has the executor forget the attempt that would have come next, where a try or a look had it know of that."""
        if record is not None and is_terminal(record.job.state) and record.job.attempt == attempt:
            await self._executor.release(record.job.job_id, attempt + 1)

    def queued(self, record: JobRecord) -> None:
        """Minds a job that waits: it is looked at when it may start, and ended when its time in the queue is over."""
        loop, now, spec = asyncio.get_running_loop(), self._clock.now(), record.job.spec
        loop.call_later(max(0, record.eligible_at - now) / SECOND, self._slots.wake)
        if spec.HasField("queue_timeout"):
            left = micros(record.job.queued_at) + seconds(spec.queue_timeout) * SECOND - now
            loop.call_later(max(0, left) / SECOND, self._expire, record)

    def _expire(self, record: JobRecord) -> None:
        self._tasks.start(self._end_waiting(record), f"expire {record.job.job_id}")

    async def _end_waiting(self, record: JobRecord) -> None:
        job_id = record.job.job_id
        message = f"Waited in the queue for longer than {seconds(record.job.spec.queue_timeout):g} s"
        await self.never_started(job_id, "E_JOB_QUEUE_TIMEOUT", message, attempt=record.job.attempt)

    async def _kept_log(self, job_id: str, *, final: bool = False) -> LogSummary:
        """What is there of a job's log: of an attempt that left no word, or of those before the one that never began.

        Args:
            final: nobody writes to it any more, and nobody may have sealed it.
        """
        return await asyncio.to_thread(kept_log, self._workspaces.log_dir(job_id), final=final)

    async def _end_persistently(
        self, job_id: str, attempt: int, outcome: Outcome, end: Callable[[], Awaitable[None]]
    ) -> None:
        """Ends an attempt, however long that takes; its slot is free only then."""
        if outcome.ignored_messages:
            log.warning("%s, attempt %d: %d messages were not understood", job_id, attempt, outcome.ignored_messages)
        refused = 0

        async def whole_or_not() -> None:
            nonlocal refused
            try:
                await (end() if refused < WHOLE_TRIES else self._end(job_id, attempt, _bare(outcome), collects=False))
            except NOT_TAKEN:
                refused += 1
                raise

        await self._persistently(whole_or_not)
        async with self._locks.hold(job_id):
            # A start that is under way is over before the next attempt can have the slot.
            pass
        self._slots.free(job_id, attempt)
        await self._executor.release(job_id, attempt)

    async def _end(self, job_id: str, attempt: int, outcome: Outcome, *, collects: bool = True) -> None:
        if not outcome.log.sha256:
            log = await self._kept_log(job_id, final=outcome.reason == EndReason.LOST)
            # Of files that somebody has taken away only the writer can still tell how many entries they had.
            outcome = replace(outcome, log=log if log.entries else outcome.log)
        record = await self._started(job_id, attempt, outcome)
        await self._declaring.declare(job_id, attempt, outcome.declared)
        # A second time, where the job was cancelled meanwhile and is not tried again after all.
        while record is not None and self._runs(record, attempt, outcome):
            with self._collector.protecting():
                record = await self._store_end(job_id, await self._ending(record, attempt, outcome, collects=collects))

    def _runs(self, record: JobRecord, attempt: int, outcome: Outcome) -> bool:
        """Whether the attempt's end is still to be stored."""
        job = self._with_start(record, attempt, outcome)[0].job
        return job.state in ACTIVE and job.attempt == attempt

    def _with_start(self, record: JobRecord, attempt: int, outcome: Outcome) -> tuple[JobRecord, Sequence[Event]]:
        """The record with the attempt's start, and its event where that is not stored yet: both are then, with the end.

        A job that takes no longer than it takes to look at it has ended by then.
        """
        running = Running(pid=0, started_at=outcome.started_at or self._clock.now())
        start = transitions.started(record, attempt, running, self._clock.now())
        return (record, ()) if start is None else (start.record, start.events)

    async def _ending(
        self, record: JobRecord, attempt: int, outcome: Outcome, *, collects: bool
    ) -> Callable[[JobRecord], JobChange | None]:
        """The end of the record's attempt, with what the job left where that is the end of the job."""
        ends = transitions.ends_job(self._with_start(record, attempt, outcome)[0], outcome)
        left: tuple[Collected, Sequence[Artifact], int] = (NOTHING if collects else NOT_STORED, (), 0)
        collected, pending, first_id = await self._collect(record.job, outcome) if ends and collects else left

        def decide(stored: JobRecord) -> JobChange | None:
            current, start = self._with_start(stored, attempt, outcome)
            if transitions.ends_job(current, outcome) != ends:
                return None
            change = transitions.ended(current, attempt, outcome, self._clock.now())
            return self._sealer.seal(
                change and replace(change, events=[*start, *change.events]),
                log=outcome.log,
                isolation=outcome.isolation,
                collected=collected,
                pending=pending,
                first_artifact_id=first_id,
            )

        return decide

    async def _collect(self, job: Job, outcome: Outcome) -> tuple[Collected, Sequence[Artifact], int]:
        """What the job left, what it declared, and the first of the ids that are reserved for what it left."""
        pending = await self._store.artifacts(job.job_id)
        declared = [artifact.path for artifact in pending]
        output_dir = self._workspaces.output_dir(job.job_id)
        limits = job.spec.limits
        most_bytes = limits.disk_bytes if limits.HasField("disk_bytes") else None
        collected = await self._collector.collect(
            output_dir,
            list(job.spec.artifacts),
            declared,
            misdeclared=outcome.misdeclared,
            withheld=outcome.withheld,
            most_bytes=most_bytes,
        )
        if not collected.outputs:
            return collected, pending, 0
        return collected, pending, await self._store.reserve_artifact_ids(len(collected.outputs))

    async def _started(self, job_id: str, attempt: int, outcome: Outcome) -> JobRecord | None:
        """The record, with the attempt's start stored where that can't wait for the end. None: it never started.

        What it declared needs it, and a signature from elsewhere may take its time.
        """
        record = await self._store.get_job(job_id)
        if record is None or record.job.state != JOB_STATE_QUEUED or record.job.attempt != attempt - 1:
            return record
        if outcome.reason == EndReason.SPAWN_FAILED:
            await self.never_started(job_id, "E_JOB_SPAWN_FAILED", outcome.message, attempt=attempt - 1)
            return None
        if not outcome.declared and self._sealer.signs_at_once:
            return record
        running = Running(pid=0, started_at=outcome.started_at or self._clock.now())
        return await self._store.update_job(
            job_id, lambda current: transitions.started(current, attempt, running, self._clock.now())
        )

    async def _store_end(self, job_id: str, decide: Callable[[JobRecord], JobChange | None]) -> JobRecord | None:
        settling = Settling(decide)
        record = await self._settled(job_id, settling)
        if record is not None and is_terminal(record.job.state):
            # Where it had ended before, its receipt was made before.
            await self._copy_receipt(job_id, settling.receipt or await self._store.receipt(job_id))
        elif record is not None and record.job.state == JOB_STATE_QUEUED:
            self.queued(record)
        self._signals.notify(job_id)
        return record

    async def _settled(self, job_id: str, settling: Settling) -> JobRecord | None:
        while True:
            try:
                return await self._store.update_job(job_id, settling)
            except SignatureNeededError as needed:
                # No transaction waits for it: the others go on.
                settling.signed(await self._sealer.sign(needed))

    async def _copy_receipt(self, job_id: str, stored: StoredReceipt | None) -> None:
        if stored is None or not self._workspaces.job_dir(job_id).exists():
            return
        try:
            await asyncio.to_thread(self._workspaces.write_receipt, job_id, stored.receipt)
        except OSError as error:
            log.warning("the copy of the receipt of %s can't be written: %s", job_id, error)

    async def _persistently(self, work: Callable[[], Awaitable[object]]) -> None:
        await until_done(work, Failures("the end of a job can't be stored"), self.overdue, RETRY_SECONDS)


def _bare(outcome: Outcome) -> Outcome:
    """Without what the job chose itself, and what may not be taken."""
    return replace(outcome, message="", declared=(), misdeclared=(), withheld=())
