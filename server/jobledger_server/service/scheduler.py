"""Starts queued jobs while there are free slots: by priority, then by age."""

import asyncio
import errno
import logging
import os
from types import TracebackType
from typing import Self

from jobledger.v1.job_pb2 import JOB_STATE_QUEUED, Job

from jobledger_server.core import transitions
from jobledger_server.core.ports import (
    Clock,
    Executor,
    Outcome,
    Running,
    Store,
    StoreUnavailableError,
)
from jobledger_server.service.finishing import Finisher
from jobledger_server.service.locks import JobLocks
from jobledger_server.service.signals import JobSignals
from jobledger_server.service.slots import Slots
from jobledger_server.service.tasks import Tasks
from jobledger_server.service.workspace import Workspaces

log = logging.getLogger(__name__)
START_TRIES = 5
LONGEST_SLEEP = 60.0
PAUSE_SECONDS = 1.0

# The machine has no room just now; the job itself is not at fault.
PASSING = frozenset({errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EDQUOT})


class Scheduler:
    """Hands queued jobs to the executor."""

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        executor: Executor,
        finisher: Finisher,
        workspaces: Workspaces,
        locks: JobLocks,
        signals: JobSignals,
        slots: Slots,
    ) -> None:
        self._store = store
        self._clock = clock
        self._executor = executor
        self._finisher = finisher
        self._workspaces = workspaces
        self._locks = locks
        self._signals = signals
        self._slots = slots
        self._failed_starts: dict[str, int] = {}
        self._tasks = Tasks()

    async def __aenter__(self) -> Self:
        self._tasks.start(self._run(), "scheduler")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._tasks.stop()

    async def note_started(self, job_id: str, attempt: int, running: Running) -> None:
        """Stores that an attempt runs."""
        await self._store.update_job(
            job_id, lambda current: transitions.started(current, attempt, running, self._clock.now())
        )
        self._signals.notify(job_id)

    async def _run(self) -> None:
        while True:
            pause = LONGEST_SLEEP
            try:
                await self._fill_slots()
            except StoreUnavailableError as error:
                log.warning("the queue can't be read just now: %s", error)
                pause = PAUSE_SECONDS
            await self._slots.changed(pause)

    async def _fill_slots(self) -> None:
        if not self._slots.available:
            return
        # Jobs whose start is under way still count as queued: ask for as many more.
        limit = self._slots.most + self._slots.available
        for record in await self._store.queued_jobs(now=self._clock.now(), limit=limit):
            job_id = record.job.job_id
            if self._slots.available and self._slots.take(job_id):
                self._tasks.start(self._start(job_id), f"start {job_id}")

    async def _start(self, job_id: str) -> None:
        """Starts one job, unless it does not wait any more. Its slot is taken already, and freed unless it runs."""
        found: Running | Outcome | None = None
        attempt = 0
        try:
            async with self._locks.hold(job_id):
                record = await self._store.get_job(job_id)
                if record is not None and record.job.state == JOB_STATE_QUEUED:
                    attempt = record.job.attempt + 1
                    found = await self._launch(record.job, attempt)
        except StoreUnavailableError as error:
            log.warning("the start of %s can't be stored just now: %s", job_id, error)
            self._look_again_later()
        finally:
            if found is None:
                self._slots.free(job_id)
        if isinstance(found, Outcome):
            await self._finisher.attempt_ended(job_id, attempt, found)

    async def _launch(self, job: Job, attempt: int) -> Running | Outcome | None:
        """Starts the attempt. None: it still waits, or has been ended here."""
        try:
            launch = await asyncio.to_thread(self._workspaces.prepare, job, attempt, os.environ)
            found = await self._executor.start(launch)
        except OSError as error:
            await self._start_failed(job, attempt, error)
            return None
        self._failed_starts.pop(job.job_id, None)
        if isinstance(found, Running):
            await self.note_started(job.job_id, attempt, found)
        return found

    async def _start_failed(self, job: Job, attempt: int, error: OSError) -> None:
        tries = self._failed_starts.pop(job.job_id, 0) + 1
        if error.errno in PASSING and tries < START_TRIES:
            log.warning("%s can't be started just now, trying again: %s", job.job_id, error)
            self._failed_starts[job.job_id] = tries
            self._look_again_later()
            return
        message = f"The job's directory or process can't be made: {error}"
        await self._finisher.never_started(job.job_id, "E_JOB_SPAWN_FAILED", message, attempt=attempt - 1)

    def _look_again_later(self) -> None:
        asyncio.get_running_loop().call_later(PAUSE_SECONDS, self._slots.wake)
