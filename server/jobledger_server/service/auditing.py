"""The audit log: every call that changed something, each by itself; and what failed, counted where it repeats.

An entry of a call that changes something is stored with that change (`core.audit`), or before the answer. What failed
changes nothing, and may come from anybody: a moment later is soon enough, and of what repeats only the number is kept.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Protocol, Self

from jobledger.v1.engine_service_pb2 import AuditEntry, ListAuditEntriesRequest, ListAuditEntriesResponse

from jobledger_server.core.pages import PageTokens
from jobledger_server.core.policy import Principal, require_all_workspaces
from jobledger_server.core.ports import AuditFilter, AuditRecord, AuditStore, Clock, StoreUnavailableError
from jobledger_server.core.times import micros
from jobledger_server.service.repeated import Repeated
from jobledger_server.service.tasks import Tasks

log = logging.getLogger(__name__)
DEFAULT_LIMIT = 50
# What waits to be stored: entries beyond it are counted in the server's log.
MOST_WAITING = 10_000
AT_A_TIME = 500
ID_BYTES, IDS_AT_A_TIME = 8, 256
PAUSE_SECONDS, RETRY_SECONDS = 0.2, 5.0


class AuditCopy(Protocol):
    """Where a copy of the log goes, for other programs to read."""

    def last(self) -> int:
        """Number of the last entry that it has; 0 where it has none."""

    def append(self, entries: Sequence[AuditEntry]) -> None:
        """Adds entries.

        Raises:
            OSError: it can't be written.
        """


class AuditLog:
    """Takes entries, stores them, copies them, and lists them. An async context manager.

    Attributes:
        reads: whether calls that change nothing are told of as well.
    """

    def __init__(
        self, *, store: AuditStore, clock: Clock, pages: PageTokens, copy: AuditCopy, reads: bool = False
    ) -> None:
        self.reads = reads
        self._store = store
        self._clock = clock
        self._pages = pages
        self._copy = copy
        self._repeated = Repeated(clock=clock)
        self._waiting: deque[AuditRecord] = deque()
        self._dropped = 0
        self._copied = 0
        self._request_ids = _request_ids(clock)
        self._told = asyncio.Event()
        self._tasks = Tasks()

    async def __aenter__(self) -> Self:
        self._copied = await asyncio.to_thread(self._copy.last)
        newest = await self._store.audit_before(None, AuditFilter(), limit=1)
        # A database that was made anew numbers anew.
        self._copied = min(self._copied, newest[0].number if newest else 0)
        self._told.set()
        self._tasks.start(self._run(), "audit log")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._tasks.stop()
        self._waiting.extend(self._repeated.all())
        await self._flush()

    def note(self, entry: AuditRecord) -> None:
        """Has an entry stored soon."""
        if len(self._waiting) >= MOST_WAITING:
            self._dropped += 1
            return
        self._waiting.append(self.complete(entry))
        self._told.set()

    def note_failure(self, entry: AuditRecord) -> None:
        """The same; of those that repeat within a minute the first is stored, and then how many there were."""
        if self._repeated.is_first(self.complete(entry)):
            self.note(entry)

    async def keep(self, entry: AuditRecord) -> None:
        """Stores an entry.

        Raises:
            StoreUnavailableError: it can't be.
        """
        await self._store.append_audit([self.complete(entry)])

    def follow(self) -> None:
        """An entry was stored, with what it tells of: the copy is behind."""
        self._told.set()

    async def list(self, request: ListAuditEntriesRequest, principal: Principal) -> ListAuditEntriesResponse:
        """A page of entries, newest first; or those after a number, oldest first.

        Raises:
            ServiceError: FORBIDDEN for who is bound to workspaces; VALIDATION for a page token of another list.
        """
        require_all_workspaces(principal)
        where = AuditFilter(
            since=micros(request.since) if request.HasField("since") else None,
            token_id=request.token_id if request.HasField("token_id") else None,
            object=request.job_id if request.HasField("job_id") else None,
        )
        limit = request.limit or DEFAULT_LIMIT
        if request.HasField("after_number"):
            entries = await self._store.audit_after(request.after_number, where, limit=limit)
            return ListAuditEntriesResponse(entries=entries)
        binding = ["audit", principal.line, where.since, where.token_id, where.object]
        before = self._pages.open(request.page_token, binding)[0] if request.page_token else None
        entries = await self._store.audit_before(before, where, limit=limit + 1)
        page = ListAuditEntriesResponse(entries=entries[:limit])
        if len(entries) > limit:
            page.next_page_token = self._pages.seal((entries[limit - 1].number, ""), binding)
        return page

    def complete(self, entry: AuditRecord) -> AuditRecord:
        """The entry with its time and a request id, where it has none."""
        entry.at = entry.at or self._clock.now()
        entry.request_id = entry.request_id or next(self._request_ids)
        return entry

    async def _run(self) -> None:
        while True:
            # What is counted is stored when its minute is over, whoever calls meanwhile.
            if not self._told.is_set():
                try:
                    async with asyncio.timeout(self._repeated.window if self._repeated else None):
                        await self._told.wait()
                except TimeoutError:
                    pass
            self._told.clear()
            await asyncio.sleep(PAUSE_SECONDS)
            self._waiting.extend(self._repeated.due())
            if not await self._flush():
                await asyncio.sleep(RETRY_SECONDS)
                self._told.set()

    async def _flush(self) -> bool:
        """Stores what waits, and copies what is stored. False: one of them can't be done just now."""
        try:
            await self._store_waiting()
            await self._copy_stored()
        except (StoreUnavailableError, OSError) as error:
            log.warning("the audit log can't be written just now, and is tried again: %s", error)
            return False
        return True

    async def _store_waiting(self) -> None:
        while self._waiting:
            batch = [self._waiting[place] for place in range(min(AT_A_TIME, len(self._waiting)))]
            await self._store.append_audit(batch)
            for _ in batch:
                self._waiting.popleft()
        if self._dropped:
            log.error("%d entries of the audit log were lost: it could not be written", self._dropped)
            self._dropped = 0

    async def _copy_stored(self) -> None:
        while entries := await self._store.audit_after(self._copied, AuditFilter(), limit=AT_A_TIME):
            await asyncio.to_thread(self._copy.append, entries)
            self._copied = entries[-1].number


def _request_ids(clock: Clock) -> Iterator[str]:
    """Random ones, many at a time: to ask the system for each takes longer than the rest of an entry."""
    while True:
        digits = clock.random(ID_BYTES * IDS_AT_A_TIME).hex()
        for start in range(0, len(digits), 2 * ID_BYTES):
            yield f"req_{digits[start : start + 2 * ID_BYTES]}"
