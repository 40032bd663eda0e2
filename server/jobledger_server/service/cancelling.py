"""Cancels jobs. The intent is stored before anything is signalled, so that it survives a crash in between."""

import asyncio
import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial

from jobledger.v1.job_pb2 import (
    JOB_STATE_CANCELLED,
    JOB_STATE_CANCELLING,
    JOB_STATE_QUEUED,
    JOB_STATE_RUNNING,
    JobState,
)
from jobledger.v1.job_service_pb2 import (
    CancelJobRequest,
    CancelJobResponse,
    CancelJobsRequest,
    CancelJobsResponse,
    CancelResult,
)

from jobledger_server.access.live_calls import LiveCalls
from jobledger_server.core import transitions
from jobledger_server.core.audit import entry_about
from jobledger_server.core.changes import completed
from jobledger_server.core.errors import Reason, ServiceError, name_of
from jobledger_server.core.labels import parse_labels
from jobledger_server.core.policy import Principal
from jobledger_server.core.ports import (
    CancelIntent,
    Clock,
    Executor,
    JobChange,
    JobFilter,
    JobRecord,
    Store,
    StoreUnavailableError,
)
from jobledger_server.core.specs import grace_seconds
from jobledger_server.core.states import ACTIVE, LIVE, is_terminal, short_name
from jobledger_server.core.times import SECOND, seconds
from jobledger_server.service.finishing import Finisher
from jobledger_server.service.locks import JobLocks
from jobledger_server.service.lookup import find_job, note_hidden_jobs
from jobledger_server.service.signals import JobSignals, wait_at_most
from jobledger_server.service.slots import Slots
from jobledger_server.service.waiting import wait_for_end

log = logging.getLogger(__name__)
ENGINE = Principal(token_id="engine", scopes=frozenset())  # noqa: S106 - a name, not a token
STOP_LOOK_SECONDS = 1.0
# How long one look may take; and how long what runs on is asked to stop while nothing comes of that.
STOP_TRY_SECONDS, STOP_PATIENCE_SECONDS = 10.0, 30.0
WAIT_MARGIN_SECONDS = 5.0
ANSWER_SECONDS = 0.5
REQUESTED = "Cancellation requested"
ALREADY = "Job already cancelling or cancelled"
CANCELLED = "Job cancelled"
OUR_FAULT = "The server met a fault of its own; its log has it under the job's id"
# What is no reason to ask again.
HARMLESS = ("E_JOB_ALREADY_FINISHED", "E_JOB_NOT_FOUND")
AT_MOST = 1000


@dataclass(frozen=True, slots=True)
class Cancellation:
    """What became of a job when it was cancelled."""

    state: JobState.ValueType
    message: str


class Cancelling:
    """CancelJob and CancelJobs."""

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        executor: Executor,
        finisher: Finisher,
        locks: JobLocks,
        signals: JobSignals,
        slots: Slots,
        live: LiveCalls,
    ) -> None:
        self._store = store
        self._clock = clock
        self._executor = executor
        self._finisher = finisher
        self._locks = locks
        self._signals = signals
        self._slots = slots
        self._live = live

    async def cancel(
        self, request: CancelJobRequest, principal: Principal, *, deadline: float | None = None
    ) -> CancelJobResponse:
        """Asks for cancellation; returns when the intent is durable, or with `wait` when the job has ended.

        Args:
            deadline: seconds within which the caller wants an answer.

        Raises:
            ServiceError: JOB_NOT_FOUND, JOB_ALREADY_FINISHED; AUTH_INVALID or AUTH_TOKEN_EXPIRED where the token ended
                while this waited: the job is being cancelled all the same.
        """
        record = await find_job(self._store, principal, request.job_id)
        grace = seconds(request.grace_period) if request.HasField("grace_period") else None
        done = await self._cancel(record, principal, request.reason, grace)
        if not request.wait:
            return CancelJobResponse(job_id=request.job_id, state=done.state, message=done.message)
        patience = (grace_seconds(record.job.spec) if grace is None else grace) + WAIT_MARGIN_SECONDS
        if deadline is not None:
            patience = min(patience, deadline - ANSWER_SECONDS)
        with self._live.open(principal, is_stream=False):
            ended = (await wait_for_end(self._store, self._signals, principal, request.job_id, patience)).job
        at = ended.completed_at if is_terminal(ended.state) else None
        return CancelJobResponse(job_id=request.job_id, state=ended.state, message=done.message, completed_at=at)

    async def cancel_many(self, request: CancelJobsRequest, principal: Principal) -> CancelJobsResponse:
        """Cancels each job that the filter finds, oldest first. Named jobs that are not there get a result too."""
        grace = seconds(request.grace_period) if request.HasField("grace_period") else None
        records = await self._find(request, principal)
        found = {record.job.job_id for record in records}
        missing = [job_id for job_id in request.job_id if job_id not in found]
        # Before anything is changed: from then on nothing keeps the results from the caller.
        await note_hidden_jobs(self._store, principal, missing)
        results = []
        for record in reversed(records):
            if request.dry_run:
                results.append(_would_be(record))
            else:
                results.append(await self._cancel_one(record, principal, request.reason, grace))
        results += [_missing(job_id) for job_id in missing]
        return CancelJobsResponse(results=results, dry_run=request.dry_run)

    @completed
    async def _cancel_one(
        self, record: JobRecord, principal: Principal, reason: str, grace: float | None
    ) -> CancelResult:
        """One of many, of which each has its own entry in the audit log."""
        with entry_about(record.job.job_id):
            return await self._try(record, principal, reason, grace)

    async def stop_all(self) -> None:
        """Cancels every job that runs, and returns when nothing of any is left. Queued ones stay queued.

        While that can't be stored it is tried for STOP_PATIENCE_SECONDS: the jobs that are left then run on.
        """
        self._slots.close()
        for job_id in self._slots.starved:
            # Its start would be tried again only after a pause.
            self._signals.notify(job_id)
        states, in_vain_since = ACTIVE, self._clock.monotonic()
        while True:
            # Before the others are read: one that comes to run meanwhile is in neither else.
            starting = list(self._slots.starting)
            running, in_vain = await self._stop_round(states)
            left = [*starting, *(record.job.job_id for record in running or ())]
            if running is not None and not left:
                return
            if not in_vain:
                in_vain_since = self._clock.monotonic()
            elif self._clock.monotonic() - in_vain_since > STOP_PATIENCE_SECONDS:
                named = ", ".join(left) or "it can't be read which"
                log.error("the server stops, and jobs run on, or their ends are not stored yet: %s", named)
                return
            # One whose start was under way may have come to run only now.
            states = frozenset({JOB_STATE_RUNNING})
            await wait_at_most(self._signals.waiter(left[-1] if left else ""), STOP_LOOK_SECONDS)

    async def _stop_round(self, states: Collection[JobState.ValueType]) -> tuple[Sequence[JobRecord] | None, bool]:
        """Asks those in these states to stop. Returns what ran, None where that is unknown; and whether it is in vain.

        So it is where the store refuses it, or what has come of it; but not before each had the time that it was given.
        """
        running = None
        try:
            async with asyncio.timeout(STOP_TRY_SECONDS):
                running = await self._active()
                asked = [record for record in running if record.job.state in states]
                tries = (self._try(record, ENGINE, "the engine stops", None) for record in asked)
                results = await asyncio.gather(*tries)
        except Exception as error:  # noqa: BLE001 - the server stops all the same
            log.warning("jobs can't be stopped just now: %r", error)
            return running, True
        refused = any(result.error_code not in ("", *HARMLESS) for result in results)
        # A start takes seconds; one that can't be stored, until it can.
        waits = refused or len(self._finisher.overdue) > 0 or bool(self._slots.starting)
        return running, waits and not any(map(self._has_time, running))

    def _has_time(self, record: JobRecord) -> bool:
        """Whether its grace period goes on."""
        cancel = record.cancel
        return cancel is not None and self._clock.now() < cancel.requested_at + cancel.grace_seconds * SECOND

    async def _active(self) -> Sequence[JobRecord]:
        return (await self._store.list_jobs(JobFilter(states=tuple(ACTIVE)), limit=AT_MOST)).records

    async def _find(self, request: CancelJobsRequest, principal: Principal) -> Sequence[JobRecord]:
        named = bool(request.job_id)
        states = set(request.state) if named else set(request.state or LIVE) & LIVE
        if not states and not named:
            return ()
        where = JobFilter(
            states=tuple(sorted(states)),
            job_ids=tuple(request.job_id),
            labels=parse_labels(request.label),
            workspace_id=request.workspace_id if request.HasField("workspace_id") else None,
            job_type=request.job_type if request.HasField("job_type") else None,
            workspaces=None if principal.workspaces is None else tuple(sorted(principal.workspaces)),
        )
        return (await self._store.list_jobs(where, limit=AT_MOST)).records

    async def _try(self, record: JobRecord, principal: Principal, reason: str, grace: float | None) -> CancelResult:
        job_id = record.job.job_id
        try:
            done = await self._cancel(record, principal, reason, grace)
        except ServiceError as error:
            return _refused(job_id, record.job.state, error)
        except (StoreUnavailableError, OSError) as error:
            log.warning("%s can't be cancelled just now: %s", job_id, error)
            return _refused(job_id, record.job.state, ServiceError(Reason.ERROR_REASON_ENGINE_SAFE_MODE))
        except Exception:
            log.exception("%s can't be cancelled", job_id)
            return _refused(job_id, record.job.state, ServiceError(Reason.ERROR_REASON_INTERNAL, OUR_FAULT))
        return CancelResult(job_id=job_id, state=done.state, message=done.message)

    @completed
    async def _cancel(self, record: JobRecord, principal: Principal, reason: str, grace: float | None) -> Cancellation:
        job_id = record.job.job_id
        intent = CancelIntent(
            requested_at=self._clock.now(),
            requested_by=principal.identity,
            reason=reason,
            grace_seconds=grace_seconds(record.job.spec) if grace is None else grace,
        )
        async with self._locks.hold(job_id):
            before: list[JobRecord] = []
            after = await self._finisher.store(job_id, lambda current: _decide(current, intent, before))
            if after is None:
                raise ServiceError(Reason.ERROR_REASON_JOB_NOT_FOUND)
            if after.job.state == JOB_STATE_CANCELLING:
                await self._pass_on(job_id, after.job.attempt, intent.grace_seconds)
        return Cancellation(after.job.state, _message(before[0], after))

    async def _pass_on(self, job_id: str, attempt: int, grace: float) -> None:
        """Tells the attempt. The intent is stored by now: on a full disk it is passed on as soon as there is room."""
        tell = partial(self._executor.cancel, job_id, attempt, grace_seconds=grace)
        try:
            await tell()
        except Exception:  # noqa: BLE001 - it is told, and tried again
            self._finisher.keep_trying(tell, f"cancel {job_id}")


def _decide(current: JobRecord, intent: CancelIntent, before: list[JobRecord]) -> JobChange | None:
    before[:] = [current]
    if current.job.state not in LIVE and current.job.state != JOB_STATE_CANCELLED:
        raise _already_finished(current.job.state)
    return transitions.cancelled(current, intent)


def _message(before: JobRecord, after: JobRecord) -> str:
    if before.job.state == after.job.state:
        return ALREADY
    return CANCELLED if after.job.state == JOB_STATE_CANCELLED else REQUESTED


def _would_be(record: JobRecord) -> CancelResult:
    """What cancelling would say, from the record as it is now."""
    job_id, state = record.job.job_id, record.job.state
    if state in (JOB_STATE_CANCELLING, JOB_STATE_CANCELLED):
        return CancelResult(job_id=job_id, state=state, message=ALREADY)
    if state not in LIVE:
        return _refused(job_id, state, _already_finished(state))
    after = JOB_STATE_CANCELLED if state == JOB_STATE_QUEUED else JOB_STATE_CANCELLING
    return CancelResult(job_id=job_id, state=after, message="Would be cancelled")


def _missing(job_id: str) -> CancelResult:
    error = ServiceError(Reason.ERROR_REASON_JOB_NOT_FOUND)
    return _refused(job_id, None, error)


def _refused(job_id: str, state: JobState.ValueType | None, error: ServiceError) -> CancelResult:
    return CancelResult(job_id=job_id, state=state, message=error.message, error_code=f"E_{name_of(error.reason)}")


def _already_finished(state: JobState.ValueType) -> ServiceError:
    return ServiceError(Reason.ERROR_REASON_JOB_ALREADY_FINISHED, f"Cannot cancel {short_name(state)} job")
