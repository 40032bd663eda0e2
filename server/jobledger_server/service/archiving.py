"""Keeps the archive of the receipts level with the database, and notices a database that is older than it.

A batch is one query, one signature and one flush of the disk, a few times a second at most, and no job waits for it.
Who asks for a checkpoint does wait: none is given out before all that it covers is in the archive, with a checkpoint of
the same size. So whatever anybody has a proof of survives the loss of the database, and two checkpoints that contradict
each other never carry the same key.
"""

import asyncio
import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from jobledger.tlog import Checkpoint, LogProofError, open_checkpoint
from jobledger.v1.events_pb2 import Event

from jobledger_server.archive.deletions import deletion_text
from jobledger_server.core.archive import sealed
from jobledger_server.core.frontier import Frontier
from jobledger_server.core.ports import Store, StoreUnavailableError
from jobledger_server.core.ports.archive import Archive, ArchiveError, ArchiveHead, SealedJob
from jobledger_server.service.signing import KeyRing
from jobledger_server.service.tasks import Tasks

log = logging.getLogger(__name__)
MOST_AT_A_TIME = 256
REST_SECONDS, RETRY_SECONDS = 0.2, 5.0
ADVICE = (
    "The server does not start, so that nothing is signed that contradicts what was. `jobledger recover` brings the "
    "jobs back from the archive; `jobledger recover --new-log` goes on with the database as it is, in a log with a new "
    "key"
)


class RolledBackError(Exception):
    """The database is not what the archive was made from; the message says what was found and what to do."""


@dataclass(frozen=True, slots=True)
class LogState:
    """Number of leaves of the log, and the root over them."""

    size: int
    root: bytes


class Archiver:
    """Appends to the archive what the store has more, in the background as long as it is open.

    Args:
        rest: seconds between two batches, in which what ends is collected for the next one.

    Raises:
        RolledBackError: on entering, the store has fewer receipts than the archive, or others.
        ArchiveError: on entering, the archive's end is damaged or missing, or not this installation's.
    """

    def __init__(self, *, store: Store, archive: Archive, keys: KeyRing, rest: float = REST_SECONDS) -> None:
        self._store = store
        self._archive = archive
        self._keys = keys
        self._rest = rest
        self._frontier = Frontier()
        self._appending = asyncio.Lock()
        self._writing = threading.Lock()
        self._wake = asyncio.Event()
        self._tasks = Tasks()

    async def __aenter__(self) -> Self:
        head = await asyncio.to_thread(self._archive.open)
        await self._refuse_rolled_back(head)
        self._frontier = await self._continued(head)
        self._wake.set()
        self._store.on_events(self._heard)
        self._tasks.start(self._run(), "archive")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._tasks.stop()
        try:
            await self.caught_up()
        except StoreUnavailableError as trouble:
            log.warning("the archive is behind, and is caught up by the next start: %s", trouble)

    async def caught_up(self) -> LogState:
        """The log as far as it is archived, which is as far as the store was when this was called.

        Raises:
            StoreUnavailableError: it can't be read or written just now.
        """
        async with self._appending:
            try:
                while jobs := await self._store.sealed_jobs(len(self._frontier), limit=MOST_AT_A_TIME):
                    events = await self._store.event_bounds()
                    await asyncio.to_thread(self._append, jobs, events.last)
            except OSError as error:
                raise StoreUnavailableError(f"The archive of receipts can't be written: {error}") from error
            return LogState(len(self._frontier), self._frontier.root())

    async def note_deleted(self, job_ids: Sequence[str]) -> None:
        """As `Deletions.note_deleted`."""
        note = self._keys.sign_note(deletion_text(self._keys.log_key.name, job_ids))
        try:
            await asyncio.to_thread(self._note_deleted, note)
        except OSError as error:
            raise StoreUnavailableError(f"The archive of receipts can't be written: {error}") from error

    def _note_deleted(self, note: str) -> None:
        with self._writing:
            self._archive.note_deleted(note)

    def _append(self, jobs: Sequence[SealedJob], events: int) -> None:
        # A caller that gives up leaves its thread at work here, and the lock of the loop to the next one.
        with self._writing:
            if jobs[0].leaf_index != len(self._frontier):
                return
            grown = self._frontier.copy()
            for job in jobs:
                grown.append(job.leaf)
            origin, sign = self._keys.log_key.name, self._keys.sign_checkpoint
            batch, note = sealed(jobs, events=events, frontier=grown, origin=origin, sign=sign)
            self._archive.append(batch, first=jobs[0].leaf_index, note=note)
            self._frontier = grown

    async def _refuse_rolled_back(self, head: ArchiveHead) -> None:
        if not head.size:
            return
        there = await self._store.sealed_jobs(head.size - 1, limit=1)
        if not there:
            stored = len(await self._store.receipt_leaves())
            raise RolledBackError(
                f"The database has {stored} receipts, and the archive's checkpoint has {head.size}: "
                f"the database was lost, or an old copy is in its place. {ADVICE}"
            )
        if there[0].leaf != head.last_leaf:
            raise RolledBackError(
                f"Receipt {head.size - 1} of the database is another one than that of the archive: "
                f"an old copy of the database was put in its place and went on. {ADVICE}"
            )

    async def _continued(self, head: ArchiveHead) -> Frontier:
        """What the log goes on from: the archive's end, or, where the log has a new key, its beginning."""
        if not head.size:
            return Frontier()
        key = self._keys.log_key
        if Checkpoint.parse(head.note).origin != key.name:
            aside = await asyncio.to_thread(self._archive.retire)
            log.warning("the log has a new key: its archive begins anew, the one until now is in %s", aside)
            return Frontier()
        try:
            open_checkpoint(head.note, key)
        except LogProofError as error:
            raise ArchiveError(f"The checkpoint at the end of the archive is not this log's: {error}") from None
        return Frontier(head.size, head.peaks)

    def _heard(self, events: Sequence[Event]) -> None:  # noqa: ARG002 - that there is news is enough
        self._wake.set()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            pause = self._rest
            try:
                await self.caught_up()
            except StoreUnavailableError as error:
                log.warning("receipts can't be archived just now, trying again in %.0f s: %s", RETRY_SECONDS, error)
                pause = RETRY_SECONDS
                self._wake.set()
            await asyncio.sleep(pause)
