"""What a server does with the jobs that an earlier one left: finish, adopt, start, or say that they are lost."""

import asyncio
from collections.abc import Sequence

from jobledger.v1.job_pb2 import JOB_STATE_CANCELLING, JOB_STATE_QUEUED

from jobledger_server.core.ports import Executor, JobRecord, Outcome, Running, Store
from jobledger_server.service.finishing import Finisher
from jobledger_server.service.restored import LOST
from jobledger_server.service.scheduler import Scheduler
from jobledger_server.service.slots import Slots

AT_A_TIME = 32
# How long the doors stay shut for ends that can't be stored: with a full disk that may last, and reading goes on.
PATIENCE_SECONDS = 10.0


class Recovery:
    """Goes through the jobs that are not terminal, once, before the server answers."""

    def __init__(
        self, *, store: Store, executor: Executor, scheduler: Scheduler, finisher: Finisher, slots: Slots
    ) -> None:
        self._store = store
        self._executor = executor
        self._scheduler = scheduler
        self._finisher = finisher
        self._slots = slots
        self._until = 0.0

    async def run(self, *, restored: bool = False) -> None:
        """Goes through them.

        Args:
            restored: this is a copy of an installation, which may have started since what waits here.
        """
        self._until = asyncio.get_running_loop().time() + PATIENCE_SECONDS
        limit = asyncio.Semaphore(AT_A_TIME)
        records = await self._store.unfinished_jobs()
        await self._executor.release_others({(record.job.job_id, _attempt(record)) for record in records})
        await self._regroup(records)

        async def one(record: JobRecord) -> None:
            async with limit:
                await self._recover(record, restored=restored)

        await asyncio.gather(*(one(record) for record in records))

    async def _regroup(self, records: Sequence[JobRecord]) -> None:
        """Has each job count where it does by the limits of today."""
        changed = {}
        for record in records:
            groups = self._slots.limits.groups_of(record.job)
            if groups != record.concurrency_groups:
                changed[record.job.job_id] = groups
        if changed:
            await self._store.set_concurrency_groups(changed)

    async def _recover(self, record: JobRecord, *, restored: bool) -> None:
        job = record.job
        waiting = job.state == JOB_STATE_QUEUED
        attempt = _attempt(record)
        found = await self._executor.find(job.job_id, attempt)
        if found is None and waiting and restored:
            await self._finisher.never_started(job.job_id, "E_JOB_LOST", LOST, attempt=job.attempt)
            return
        if found is None and waiting:
            self._finisher.queued(record)
            return
        if found is None:
            found = await self._executor.end_unknown(job.job_id, attempt)
        if isinstance(found, Outcome):
            ending = self._finisher.end_in_background(job.job_id, attempt, found)
            await asyncio.wait({ending}, timeout=max(0.0, self._until - asyncio.get_running_loop().time()))
        else:
            await self._adopt(record, attempt, found, waiting=waiting)

    async def _adopt(self, record: JobRecord, attempt: int, running: Running, *, waiting: bool) -> None:
        job_id = record.job.job_id
        self._slots.take(job_id, attempt, self._slots.limits.groups_of(record.job))
        if waiting:
            await self._scheduler.note_started(job_id, attempt, running)
        if record.job.state == JOB_STATE_CANCELLING and record.cancel is not None:
            grace = record.cancel.grace_seconds
            self._finisher.keep_trying(
                lambda: self._executor.cancel(job_id, attempt, grace_seconds=grace), f"cancel {job_id}"
            )


def _attempt(record: JobRecord) -> int:
    """The number of the attempt that runs, or that is next."""
    return record.job.attempt + (record.job.state == JOB_STATE_QUEUED)
