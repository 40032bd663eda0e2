"""CollectGarbage: removes what retention no longer keeps, and what nobody needs any more.

Everything goes in small batches, each a short transaction or a moment's work of a thread. Files go before the note that
they are there; so a crash leaves nothing behind that the next pass does not find.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from jobledger_server.core.ids import is_job_id
from jobledger_server.core.ports import (
    JOB_DIRS,
    LOGS,
    Blobs,
    Clock,
    EndedJob,
    Kept,
    Store,
    StoreUnavailableError,
)
from jobledger_server.core.ports.archive import Deletions
from jobledger_server.core.retention import Retention, expired
from jobledger_server.service.locks import JobLocks
from jobledger_server.service.storage import Storage
from jobledger_server.service.sweep import Sweep
from jobledger_server.service.trees import remove_tree, tree_size
from jobledger_server.service.workspace import Workspaces

log = logging.getLogger(__name__)
EVENTS_AT_A_TIME, KEYS_AT_A_TIME, AUDIT_AT_A_TIME, JOBS_AT_A_TIME = 500, 500, 500, 50

# What goes for another reason than its age.
KEYS, LEFTOVERS, BLOBS = "idempotency_keys", "leftovers", "blobs"
DATABASE = "database"


class GarbageCollector:
    """Removes what may go. Passes that overlap do no harm, and count nothing twice."""

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        blobs: Blobs,
        workspaces: Workspaces,
        locks: JobLocks,
        retention: Retention,
        storage: Storage,
        deletions: Deletions,
    ) -> None:
        self._store = store
        self._clock = clock
        self._blobs = blobs
        self._workspaces = workspaces
        self._locks = locks
        self._retention = retention
        self._storage = storage
        self._deletions = deletions

    async def collect(self, *, dry_run: bool = False, rest: float = 0.0) -> Sweep:
        """Makes a pass. What can't be removed is logged and tried again by the next.

        Args:
            rest: how long to rest after each batch, in times of what the batch took.

        Raises:
            StoreUnavailableError: some of it could not be done; what needs no store was.
        """
        sweep = Sweep(now=self._clock.now(), dry_run=dry_run, rest=rest)
        trouble: StoreUnavailableError | None = None
        # First what frees room without taking any: the disk may be full.
        for part in (self._files, self._leftovers, self._jobs, self._artifacts, self._events, self._keys, self._audit):
            try:
                await part(sweep)
            except StoreUnavailableError as error:
                trouble = error
        if not dry_run:
            self._storage.collected.update(sweep.count)
        if trouble is not None:
            raise trouble
        sweep.kept[DATABASE] = await self._store.size()
        self._storage.measured(sweep.kept)
        return sweep

    async def _files(self, sweep: Sweep) -> None:
        """Logs and directories of jobs that have ended long enough ago."""
        for kept in LOGS:
            await self._files_of(sweep, kept, self._workspaces.log_dir)
        for kept in JOB_DIRS:
            await self._files_of(sweep, kept, self._workspaces.job_dir)

    async def _files_of(self, sweep: Sweep, kept: Kept, place: Callable[[str], Path]) -> None:
        last: EndedJob | None = None
        while batch := await self._batch(sweep, kept, last):
            last = batch[-1]
            paths = {place(job.job_id) for job in batch}
            if not sweep.dry_run:
                # Whoever misses one of them meanwhile is not to take it for lost.
                self._workspaces.removing.update(paths)
            gone = [job.job_id for job in batch if await self._remove(sweep, kept.value, job.job_id, place)]
            if gone and not sweep.dry_run:
                await self._store.forget(kept, gone, at=self._clock.now())
            self._workspaces.removing.difference_update(paths)
            await sweep.breathe()

    async def _batch(self, sweep: Sweep, kept: Kept, last: EndedJob | None) -> Sequence[EndedJob]:
        cutoff = self._retention.cutoff(kept, sweep.now)
        if cutoff is None:
            return ()
        return await self._store.ended_jobs(kept, before=cutoff, limit=JOBS_AT_A_TIME, after=last)

    async def _remove(self, sweep: Sweep, name: str, job_id: str, place: Callable[[str], Path]) -> bool:
        """Removes a directory of a job, where there is one. False: it can't be removed."""
        path = place(job_id)
        async with self._locks.hold(job_id):
            size = await asyncio.to_thread(tree_size, path)
            if size is None:
                return True
            try:
                if not sweep.dry_run:
                    await asyncio.to_thread(remove_tree, path)
            except OSError as error:
                log.warning("%s can't be removed, and is tried again later: %s", path, error)
                return False
        sweep.add(name, size)
        return True

    async def _jobs(self, sweep: Sweep) -> None:
        """Jobs of which nothing else is kept, or would be by now. Their receipts stay."""
        if sweep.dry_run:
            sweep.add(Kept.JOBS.value, count=await self._store.count_due_jobs(self._retention.due(sweep.now)))
            return
        last: EndedJob | None = None
        while batch := await self._batch(sweep, Kept.JOBS, last):
            last = batch[-1]
            await self._deletions.note_deleted([job.job_id for job in batch])
            for job in batch:
                async with self._locks.hold(job.job_id):
                    if await self._store.delete_job(job.job_id):
                        sweep.add(Kept.JOBS.value)
            await sweep.breathe()

    async def _leftovers(self, sweep: Sweep) -> None:
        """Directories whose job was deleted before they were; and how much room all others take."""
        await self._leftovers_in(sweep, "job_dirs", self._workspaces.job_dir)
        await self._leftovers_in(sweep, "logs", self._workspaces.log_dir)

    async def _leftovers_in(self, sweep: Sweep, name: str, place: Callable[[str], Path]) -> None:
        sweep.kept[name] = 0
        top = place("any").parent
        if not await asyncio.to_thread(top.exists):
            return
        # Read a few at a time: there may be a million.
        with await asyncio.to_thread(os.scandir, top) as entries:
            while batch := await asyncio.to_thread(_next_names, entries):
                # A job is stored before it has a directory: one that is unknown here is none that is just being made.
                for job_id in await self._store.unknown_jobs([job_id for job_id in batch if is_job_id(job_id)]):
                    await self._remove(sweep, LEFTOVERS, job_id, place)
                sweep.kept[name] += await asyncio.to_thread(_total_size, [place(job_id) for job_id in batch])
                await sweep.breathe()

    async def _artifacts(self, sweep: Sweep) -> None:
        """The bytes of artifacts that no job has any more, or would have by now."""
        sweep.kept[BLOBS] = 0
        due = self._retention.due(sweep.now) if sweep.dry_run else None
        async for batch in self._blobs.stored():
            with self._blobs.protecting():
                unneeded = await self._store.unneeded_blobs([blob.sha256 for blob in batch], due=due)
                for blob in batch:
                    if blob.sha256 in unneeded and (sweep.dry_run or await self._blobs.delete(blob.sha256)):
                        sweep.add(BLOBS, blob.size)
                        sweep.kept[BLOBS] -= 0 if sweep.dry_run else blob.size
            sweep.kept[BLOBS] += sum(blob.size for blob in batch)
            await sweep.breathe()

    async def _events(self, sweep: Sweep) -> None:
        """Events that are old, from the first one on."""
        cutoff = self._retention.cutoff(Kept.EVENTS, sweep.now)
        if cutoff is None:
            return
        through, more = 0, True
        while more:
            events = await self._store.events_after(through, limit=EVENTS_AT_A_TIME)
            old = expired(events, cutoff)
            if old:
                through = old[-1].sequence_number
                count = len(old) if sweep.dry_run else await self._store.drop_events(through)
                sweep.add(Kept.EVENTS.value, sum(event.ByteSize() for event in old), count=count)
            more = len(old) == EVENTS_AT_A_TIME
            await sweep.breathe()

    async def _keys(self, sweep: Sweep) -> None:
        """Idempotency keys that are past their time."""
        if sweep.dry_run:
            sweep.add(KEYS, count=await self._store.count_expired_keys(sweep.now))
            return
        dropped = KEYS_AT_A_TIME
        while dropped == KEYS_AT_A_TIME:
            dropped = await self._store.drop_expired_keys(sweep.now, limit=KEYS_AT_A_TIME)
            sweep.add(KEYS, count=dropped)
            await sweep.breathe()

    async def _audit(self, sweep: Sweep) -> None:
        """Entries of the audit log that are old, from the first one on."""
        cutoff = self._retention.cutoff(Kept.AUDIT, sweep.now)
        if cutoff is None:
            return
        if sweep.dry_run:
            sweep.add(Kept.AUDIT.value, count=await self._store.count_audit(cutoff))
            return
        dropped = AUDIT_AT_A_TIME
        while dropped == AUDIT_AT_A_TIME:
            dropped = await self._store.drop_audit(cutoff, limit=AUDIT_AT_A_TIME)
            sweep.add(Kept.AUDIT.value, count=dropped)
            await sweep.breathe()


def _next_names(entries: Iterator[os.DirEntry[str]]) -> list[str]:
    return [entry.name for entry in islice(entries, JOBS_AT_A_TIME)]


def _total_size(paths: Sequence[Path]) -> int:
    return sum(tree_size(path) or 0 for path in paths)
