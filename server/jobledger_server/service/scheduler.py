"""Starts queued jobs while there are free slots: by priority, then by age, past those whose queue or label is full."""

import asyncio
import errno
import logging
import os

from jobledger.v1.job_pb2 import JOB_STATE_QUEUED, Job

from jobledger_server.core import transitions
from jobledger_server.core.ports import (
    Clock,
    EndReason,
    Executor,
    JobRecord,
    Launch,
    Origin,
    Outcome,
    Running,
    Store,
    StoreUnavailableError,
)
from jobledger_server.service.finishing import Finisher
from jobledger_server.service.locks import JobLocks
from jobledger_server.service.secret_values import SecretError
from jobledger_server.service.signals import JobSignals, wait_at_most
from jobledger_server.service.slots import Slots
from jobledger_server.service.tasks import Background
from jobledger_server.service.tries import Failures
from jobledger_server.service.workspace import Workspaces

log = logging.getLogger(__name__)
# Between two looks at the queue, where nothing wakes the scheduler. A wake-up is a hint: it may come when the machine's
# clock is still a little short of the instant at which a job may start.
PAUSE_SECONDS = 1.0
# How long a start is tried for which the machine has no room. Between two tries PAUSE_SECONDS, doubled each time.
PATIENCE_SECONDS = 600.0
LONGEST_PAUSE_SECONDS = 30.0

OUR_FAULT = "The server met a fault of its own when it started the job; its log has it. Submit the job again"

# The machine has no room just now; the job itself is not at fault.
PASSING = frozenset({errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EDQUOT})


class Scheduler(Background):
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
        super().__init__("scheduler")
        self._store = store
        self._clock = clock
        self._executor = executor
        self._finisher = finisher
        self._workspaces = workspaces
        self._locks = locks
        self._signals = signals
        self._slots = slots

    async def note_started(self, job_id: str, attempt: int, running: Running) -> None:
        """Stores that an attempt runs."""
        await self._store.update_job(
            job_id, lambda current: transitions.started(current, attempt, running, self._clock.now())
        )
        self._signals.notify(job_id)

    async def _run(self) -> None:
        failures = Failures("the queue can't be read")
        while True:
            try:
                await self._fill_slots()
            except Exception as error:  # noqa: BLE001 - it is told, and nobody else would ever start a job
                failures.tell(error, PAUSE_SECONDS)
            await self._slots.changed(PAUSE_SECONDS)

    async def _fill_slots(self) -> None:
        while self._slots.available and await self._start_next():
            pass

    async def _start_next(self) -> bool:
        """Starts the next jobs that may start. True: some had to be passed over, so that others may come in."""
        # Jobs whose start is under way still count as queued: ask for as many more.
        limit = len(self._slots.starting) + self._slots.available
        now, full = self._clock.now(), self._slots.full_groups()
        passed_over = False
        for record in await self._store.queued_jobs(now=now, limit=limit, full=full):
            job_id, attempt, groups = record.job.job_id, record.job.attempt + 1, record.concurrency_groups
            if not self._slots.available:
                break
            if self._slots.why_full(groups):
                # By jobs that came before it here: full groups are not read at all.
                passed_over = True
            elif self._slots.take(job_id, attempt, groups):
                self._slots.starting.add(job_id)
                self._tasks.start(self._start(job_id, attempt), f"start {job_id}")
        return passed_over

    async def _start(self, job_id: str, attempt: int) -> None:
        """Starts one job, unless it does not wait any more. Its slot is taken already, and freed unless it runs."""
        found: Running | Outcome | str | None = None
        try:
            found = await self._persistently(job_id, attempt)
            if isinstance(found, str):
                # It keeps its slot until that is stored, as below; but may be cancelled, for its lock is free.
                await self._finisher.never_started(job_id, "E_JOB_SPAWN_FAILED", found, attempt=attempt - 1)
            if isinstance(found, Outcome):
                # It waits until that is stored, so that the queue is still to be read beyond it.
                await self._finisher.attempt_ended(job_id, attempt, found)
        finally:
            self._slots.starting.discard(job_id)
            self._slots.starved.discard(job_id)
            if found is None or isinstance(found, str):
                self._slots.free(job_id, attempt)

    async def _persistently(self, job_id: str, attempt: int) -> Running | Outcome | str | None:
        """What became of the attempt, after some tries; None: the job still waits, or not any more.

        An outcome says that it never began; a text why the job can't be started.

        The slot is kept meanwhile: what there is no room for here, there is none for elsewhere, and a queue of
        thousands must not be tried from end to end.
        """
        give_up, pause, last = self._clock.monotonic() + PATIENCE_SECONDS, PAUSE_SECONDS, False
        failures = Failures(f"{job_id} can't be started")
        while not last:
            last = self._clock.monotonic() >= give_up
            changed = self._signals.waiter(job_id)
            try:
                return await self._launch_queued(job_id, attempt, last=last)
            except Exception as error:  # noqa: BLE001 - it is told; without a pause the same would follow at once
                failures.tell(error, pause)
                self._slots.starved.add(job_id)
                # A cancel, and the end of its time in the queue, end the wait.
                await wait_at_most(changed, pause)
            finally:
                changed.cancel()
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
        return None

    async def _launch_queued(self, job_id: str, attempt: int, *, last: bool) -> Running | Outcome | str | None:
        async with self._locks.hold(job_id):
            record = await self._store.get_job(job_id)
            if record is None or record.job.state != JOB_STATE_QUEUED or record.job.attempt != attempt - 1:
                return None
            if self._slots.closed:
                return None
            return await self._launch(record, attempt, last=last)

    async def _launch(self, record: JobRecord, attempt: int, *, last: bool) -> Running | Outcome | str:
        """Starts the attempt. An outcome says that it never began, a text why the job can't be started.

        Raises:
            OSError: there is no room for it just now, and this was not the last try.
        """
        found = await self._begun(record, attempt, last=last)
        if isinstance(found, str) or (isinstance(found, Outcome) and found.reason == EndReason.SPAWN_FAILED):
            return found
        return await self._note_begun(record.job.job_id, attempt, found)

    async def _begun(self, record: JobRecord, attempt: int, *, last: bool) -> Running | Outcome | str:
        """What became of the attempt; in words why it can't be started."""
        try:
            return await self._begin(record, attempt)
        except StoreUnavailableError:
            raise
        except SecretError as error:
            return str(error)
        except OSError as error:
            if error.errno in PASSING and not last:
                raise
            return f"The job's directory or process can't be made: {error}"
        except Exception:
            log.exception("%s can't be started", record.job.job_id)
            # What failed may have come after its process.
            return await self._executor.find(record.job.job_id, attempt) or OUR_FAULT

    async def _begin(self, record: JobRecord, attempt: int) -> Running | Outcome:
        """Raises OSError, SecretError or StoreUnavailableError where it has not begun."""
        if record.origin and record.origin.attempt == attempt:
            # It was made ready before. If it has started after all, what it is made from is not taken again.
            found = await self._executor.find(record.job.job_id, attempt)
            if found is not None:
                return found
        launch, origin = await asyncio.to_thread(self._make_ready, record.job, attempt)
        if origin is not None:
            await self._store.update_job(record.job.job_id, lambda current: transitions.made_ready(current, origin))
        return await self._executor.start(launch)

    def _make_ready(self, job: Job, attempt: int) -> tuple[Launch, Origin | None]:
        launch = self._workspaces.prepare(job, attempt, os.environ)
        return launch, self._workspaces.take_origin(job, attempt, launch)

    async def _note_begun(self, job_id: str, attempt: int, found: Running | Outcome) -> Running:
        """Stores that an attempt has begun: with its end, where it is over and that can be stored at once."""
        if isinstance(found, Running):
            await self._note_persistently(job_id, attempt, found)
            return found
        running = Running(pid=0, started_at=found.started_at or self._clock.now())
        if not await self._finisher.end_at_once(job_id, attempt, found):
            await self._note_persistently(job_id, attempt, running)
        return running

    async def _note_persistently(self, job_id: str, attempt: int, running: Running) -> None:
        """Stores that an attempt runs, however long that takes.

        The job's lock is held for as long: a job that runs must never be cancelled or expired as one that waits.
        """
        while True:
            try:
                await self.note_started(job_id, attempt, running)
            except StoreUnavailableError as error:
                log.warning("the start of %s can't be stored just now, trying again: %s", job_id, error)
                await asyncio.sleep(PAUSE_SECONDS)
            else:
                return
