"""Reading, listing, waiting for, feeding and deleting jobs."""

import asyncio
import logging
import os
from collections.abc import Sequence

from jobledger.v1.job_pb2 import JOB_STATE_QUEUED, JOB_STATE_RUNNING, Job
from jobledger.v1.job_service_pb2 import SendInputRequest, WaitJobRequest

from jobledger_server.core.changes import completed
from jobledger_server.core.errors import Reason, ServiceError
from jobledger_server.core.job_types import COMMAND
from jobledger_server.core.policy import Principal, require
from jobledger_server.core.ports import Clock, Executor, InputClosedError, InputFullError, JobRecord, Store
from jobledger_server.core.ports.archive import Deletions
from jobledger_server.core.ports.executor import MOST_WAITING, MOST_WAITING_BYTES
from jobledger_server.core.states import is_terminal
from jobledger_server.core.times import seconds
from jobledger_server.service.early_input import RETRY_SECONDS, keep_early_input
from jobledger_server.service.locks import JobLocks
from jobledger_server.service.lookup import find_job, note_hidden_jobs
from jobledger_server.service.signals import JobSignals
from jobledger_server.service.storage import Storage
from jobledger_server.service.waiting import wait_for_end
from jobledger_server.service.workspace import STDIN_OPEN, Workspaces

log = logging.getLogger(__name__)
DEFAULT_WAIT_SECONDS = 30.0


class Jobs:
    """GetJob, WaitJob, SendInput and DeleteJob."""

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        executor: Executor,
        workspaces: Workspaces,
        signals: JobSignals,
        locks: JobLocks,
        deletions: Deletions,
        storage: Storage,
    ) -> None:
        self._store = store
        self._clock = clock
        self._executor = executor
        self._workspaces = workspaces
        self._signals = signals
        self._locks = locks
        self._deletions = deletions
        self._storage = storage
        # As text: to make a path takes as long as all else that a read does.
        self._job_dirs = f"{workspaces.job_dir('')}{os.sep}"

    async def get(self, job_id: str, principal: Principal) -> Job:
        """The job in full."""
        return await self.full(await find_job(self._store, principal, job_id), principal)

    async def note_hidden(self, job_ids: Sequence[str], principal: Principal) -> None:
        """Has the audit log told of those, among jobs that a call names, which are there for others."""
        await note_hidden_jobs(self._store, principal, job_ids)

    async def full(self, record: JobRecord, principal: Principal) -> Job:
        """A record as GetJob shows it: with artifacts, place in the queue, waiting follow-ups.

        The place tells how many others wait: who may not see them all is not told it.
        """
        job = Job()
        job.CopyFrom(record.job)
        if job.HasField("job_dir") and job.job_dir != self._job_dirs + job.job_id:
            # It is of the installation that this one was restored from, or of this one before it was moved.
            own = self._workspaces.job_dir(job.job_id)
            job.job_dir = str(own)
            if not await asyncio.to_thread(own.is_dir):
                job.ClearField("job_dir")
        if job.state == JOB_STATE_QUEUED:
            position = None if principal.workspaces is not None else await self._store.queue_position(job.job_id)
            if position is not None:
                job.queue_position = position
            if job.spec.stdin == STDIN_OPEN:
                job.queued_followups = await asyncio.to_thread(self._workspaces.count_early_input, job)
        elif not is_terminal(job.state):
            job.queued_followups = self._executor.queued_inputs(job.job_id, job.attempt)
        else:
            job.artifacts.extend(await self._store.artifacts(job.job_id))
        return job

    async def wait(self, request: WaitJobRequest, principal: Principal) -> Job:
        """The job once it is terminal, or as it is when the time is over."""
        patience = seconds(request.timeout) if request.HasField("timeout") else DEFAULT_WAIT_SECONDS
        record = await wait_for_end(self._store, self._signals, principal, request.job_id, patience)
        return await self.full(record, principal)

    @completed
    async def send_input(self, request: SendInputRequest, principal: Principal) -> int:
        """Queues a follow-up; returns how many the process has not taken yet."""
        job = (await find_job(self._store, principal, request.job_id)).job
        if job.job_type == COMMAND:
            # What it reads may be what it does, as with a shell.
            require(principal, "jobs:exec")
        if job.spec.stdin != STDIN_OPEN:
            raise ServiceError(Reason.ERROR_REASON_JOB_INPUT_CLOSED)
        if request.text:
            # All of it is kept until the attempt has ended. To end the input takes next to nothing.
            await self._storage.require_room()
        try:
            count = await self._keep_for_start(job, request) if job.state == JOB_STATE_QUEUED else None
            if count is None:
                count = await self._pass_on(job.job_id, request)
        except InputClosedError:
            raise ServiceError(Reason.ERROR_REASON_JOB_INPUT_CLOSED, "The job's standard input was closed") from None
        except InputFullError:
            raise _full() from None
        await self._store.record_activity(job.job_id, self._clock.now())
        return count

    async def _keep_for_start(self, job: Job, request: SendInputRequest) -> int | None:
        """How many are kept by now; None where the job is not queued any more."""
        async with self._locks.hold(job.job_id):
            record = await self._store.get_job(job.job_id)
            if record is None or record.job.state != JOB_STATE_QUEUED:
                return None
            log_dir = self._workspaces.log_dir(job.job_id)
            return await asyncio.to_thread(keep_early_input, log_dir, request.text, close=request.close)

    async def _pass_on(self, job_id: str, request: SendInputRequest) -> int:
        record = await self._store.get_job(job_id)
        if record is None or record.job.state != JOB_STATE_RUNNING:
            raise ServiceError(Reason.ERROR_REASON_JOB_INPUT_CLOSED)
        attempt = record.job.attempt
        return await self._executor.send_input(job_id, attempt, request.text.encode(), close=request.close)

    @completed
    async def delete(self, job_id: str, principal: Principal) -> None:
        """Deletes a terminal job with its log and directory, for good: a recovery does not bring it back either.

        Its receipt stays.

        The bytes of its artifacts go with the next sweep, unless another job has left the same; so does what a crash
        leaves of the rest.
        """
        async with self._locks.hold(job_id):
            record = await find_job(self._store, principal, job_id)
            if not is_terminal(record.job.state):
                raise ServiceError(Reason.ERROR_REASON_JOB_NOT_FINISHED)
            await self._deletions.note_deleted([job_id])
            await self._store.delete_job(job_id)
            await self._remove_files(job_id)

    async def _remove_files(self, job_id: str) -> None:
        try:
            await asyncio.to_thread(self._workspaces.remove, job_id)
        except OSError as error:
            log.warning("the job %s is deleted, but not all of its files can be removed: %s", job_id, error)


def _full() -> ServiceError:
    return ServiceError(
        Reason.ERROR_REASON_JOB_INPUT_CLOSED,
        f"{MOST_WAITING_BYTES} bytes in {MOST_WAITING} follow-ups at most wait for the job to read them: send it again"
        " when it has read more of what it was sent (`queued_followups` says how many wait)",
        retry_after=RETRY_SECONDS,
    )
