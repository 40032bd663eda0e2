"""Logs: a page, the whole output as bytes, or entries as they come."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from jobledger.v1.job_pb2 import Job
from jobledger.v1.job_service_pb2 import (
    SORT_ORDER_DESC,
    GetLogContentRequest,
    GetLogsRequest,
    GetLogsResponse,
    TailEnd,
    TailLogsRequest,
    TailLogsResponse,
)

from jobledger_server.core.errors import Reason, ServiceError
from jobledger_server.core.policy import Principal
from jobledger_server.core.ports import JobRecord, Store
from jobledger_server.core.ranges import ByteRange, byte_range
from jobledger_server.core.secret_references import references
from jobledger_server.core.states import is_terminal
from jobledger_server.core.times import micros
from jobledger_server.joblog.checked import Remembered
from jobledger_server.joblog.pieces import Piece, last_sequence
from jobledger_server.joblog.promises import Promise
from jobledger_server.joblog.reader import LogPage, LogQuery, LogReader
from jobledger_server.joblog.wire import wire_answer, wire_entries
from jobledger_server.service.job_log import JobLog, LogLostError, promise_of
from jobledger_server.service.lookup import find_job
from jobledger_server.service.sealed_pages import SealedPages, page_etag
from jobledger_server.service.signals import JobSignals, wait_at_most
from jobledger_server.service.workspace import Workspaces

log = logging.getLogger(__name__)

T = TypeVar("T")
DEFAULT_LIMIT = 1000
CHUNK_BYTES = 256 * 1024
LONGEST_BLIND_WAIT = 1.0
# Searches read whole logs: with more of them at a time, each would be slower, and pages would wait for a thread.
MOST_SEARCHES = 2
MOST_PROMISES = 4096


@dataclass(frozen=True, slots=True)
class Content:
    """The part of a job's output that was asked for, and its bytes.

    Attributes:
        dropped: bytes that are missing from the whole, since the log was at its cap.
        redacted: whether the job has secrets, in whose place `***` stands.
    """

    part: ByteRange
    chunks: AsyncIterator[bytes]
    dropped: int
    redacted: bool


@dataclass(frozen=True, slots=True)
class Page:
    """The bytes of an answer, and its entity tag, where it stays the same for good."""

    body: bytes
    etag: str | None


@dataclass(frozen=True, slots=True)
class Look:
    """What a tail finds of a log at a time: all of it by one thread, since each change of threads costs more than it.

    Attributes:
        reader: by which, and `query` for what, it looked.
        last: number of the last entry after that; None where the log goes on after these pieces.
    """

    reader: JobLog
    query: LogQuery
    pieces: Sequence[Piece]
    responses: Sequence[Any]
    last: int | None


# Puts together the bytes of an answer: of a job's number, the entries, and a message with all the rest.
Form = Callable[[int, Iterable[Piece], GetLogsResponse], bytes]
# The same of what TailLogs sends: responses, which may be coded already.
TailForm = Callable[[int, Iterable[Piece]], Sequence[Any]]


class Logs:
    """GetLogs, GetLogContent and TailLogs. Files are read in threads."""

    def __init__(self, *, store: Store, workspaces: Workspaces, signals: JobSignals) -> None:
        self._store = store
        self._workspaces = workspaces
        self._signals = signals
        self._sealed = SealedPages()
        # Receipts never change.
        self._promises: Remembered[str, tuple[Promise | None]] = Remembered(MOST_PROMISES)
        self._searches = asyncio.Semaphore(MOST_SEARCHES)

    async def page(self, request: GetLogsRequest, principal: Principal, form: Form = wire_answer) -> Page:
        """A page of entries in this form."""
        record = await find_job(self._store, principal, request.job_id)
        query = _query(request)
        if not is_terminal(record.job.state):
            return Page(await self._answer(record, query, form), None)
        log_dir = self._workspaces.log_dir(request.job_id)
        etag = page_etag(record.job, log_dir, query)
        body = self._sealed.get((etag, form))
        if body is not None:
            return Page(body, etag)
        body = await self._answer(record, query, form)
        if page_etag(record.job, log_dir, query) != etag:
            # Its files were changed or removed meanwhile: nobody knows of which state it is.
            return Page(body, None)
        self._sealed.put((etag, form), body)
        return Page(body, etag)

    async def _answer(self, record: JobRecord, query: LogQuery, form: Form) -> bytes:
        def read(reader: LogReader, job: Job, abandoned: Callable[[], bool] = lambda: False) -> bytes:
            page = reader.page(query, abandoned)
            return form(page.job_number, page.pieces, _totals(page, query, job))

        async def answer(reader: LogReader, job: Job) -> bytes:
            if query.is_search:
                return await self._search(partial(read, reader, job))
            return await asyncio.to_thread(read, reader, job)

        return await self._reading(record, answer)

    async def _reading(
        self, record: JobRecord, read: Callable[[JobLog, Job], Awaitable[T]], reader: JobLog | None = None
    ) -> T:
        """What `read` answers; of a log that a sweep has removed since the job was looked up, as of an empty one."""
        try:
            return await read(reader or await self._reader(record), record.job)
        except LogLostError as error:
            log_dir = self._workspaces.log_dir(record.job.job_id)
            removing = log_dir in self._workspaces.removing
            again = await self._store.get_job(record.job.job_id) or record
            if not removing and not again.job.HasField("log_removed_at"):
                log.error("A log is damaged: %s", error.__cause__)  # noqa: TRY400 - it is no fault of ours
                raise
            return await read(JobLog(log_dir, record.number), again.job)

    async def _search(self, read: Callable[[Callable[[], bool]], bytes]) -> bytes:
        """A thread can't be cancelled: it asks now and then whether somebody still waits."""
        abandoned = threading.Event()
        async with self._searches:
            try:
                return await asyncio.to_thread(read, abandoned.is_set)
            finally:
                abandoned.set()

    async def content(self, request: GetLogContentRequest, principal: Principal) -> Content:
        """The output as bytes, or a part of it. What is written after the call began is not in it."""
        record = await find_job(self._store, principal, request.job_id)
        reader, size = await self._reading(record, _sized)
        length = request.length if request.HasField("length") else None
        part = byte_range(size, offset=request.offset, length=length)
        dropped = await asyncio.to_thread(reader.dropped_content)
        return Content(part, _read(reader, part), dropped, bool(references(record.job.spec.env)))

    async def tail(
        self, request: TailLogsRequest, principal: Principal, form: TailForm = wire_entries
    ) -> AsyncIterator[Sequence[Any]]:
        """Entries after `after_sequence`, then those that come, until the job is terminal and all was sent; in lists.

        Each list has what is there together, up to a page, in this form; the last one the end, as a message.

        Raises:
            ServiceError: STREAM_INVALID_SEQUENCE, for a number that the log has not reached; STREAM_GAP_TOO_LARGE, at
                any time, for one whose entries have been removed.
        """
        record = await find_job(self._store, principal, request.job_id)
        limit = request.max_batch if request.max_batch > 1 else DEFAULT_LIMIT
        query = LogQuery(after_sequence=request.after_sequence, levels=frozenset(request.level), limit=limit)
        look = await self._reading(record, partial(_look, query, form))
        last = look.last
        if request.after_sequence and last == 0 and is_terminal(record.job.state):
            raise _removed(request.after_sequence)
        if last is not None and request.after_sequence > last:
            raise ServiceError(
                Reason.ERROR_REASON_STREAM_INVALID_SEQUENCE,
                f"The log has no entry {request.after_sequence}: the last one is {last}",
                metadata={"last_sequence": str(last)},
            )
        return self._tail(principal, record, look, form)

    async def _tail(
        self, principal: Principal, record: JobRecord, look: Look, form: TailForm
    ) -> AsyncIterator[Sequence[Any]]:
        job_id, cursor = record.job.job_id, look.query.after_sequence or 0
        while True:
            if look.pieces:
                cursor = last_sequence(look.pieces[-1])
                yield look.responses
            if look.last is not None and is_terminal(record.job.state):
                if look.last < cursor:
                    # Never told as the end: there was more, and now it is gone.
                    raise _removed(cursor)
                yield [TailLogsResponse(end=TailEnd(state=record.job.state, last_sequence=look.last))]
                return
            grown = self._signals.waiter(job_id)
            try:
                record = await find_job(self._store, principal, job_id)
                query = replace(look.query, after_sequence=cursor)
                look = await self._reading(record, partial(_look, query, form), look.reader)
                if not look.pieces and not is_terminal(record.job.state):
                    await wait_at_most(grown, LONGEST_BLIND_WAIT)
            finally:
                grown.cancel()

    async def _reader(self, record: JobRecord) -> JobLog:
        job = record.job
        promise = None
        # What could not be killed may write on after the receipt.
        is_final = is_terminal(job.state) and not job.HasField("log_removed_at")
        if is_final and job.error_code != "E_JOB_UNKILLABLE":
            promise = await self._promise(job.job_id)
        return JobLog(self._workspaces.log_dir(job.job_id), record.number, promise)

    async def _promise(self, job_id: str) -> Promise | None:
        known = self._promises.get(job_id)
        if known is None:
            known = (promise_of(await self._store.receipt(job_id)),)
            self._promises.put(job_id, known)
        return known[0]


def _removed(after_sequence: int) -> ServiceError:
    return ServiceError(
        Reason.ERROR_REASON_STREAM_GAP_TOO_LARGE, f"The log's entries after {after_sequence} are no longer kept"
    )


async def _sized(reader: JobLog, _: Job) -> tuple[JobLog, int]:
    return reader, await asyncio.to_thread(reader.content_size)


async def _look(query: LogQuery, form: TailForm, reader: JobLog, job: Job) -> Look:
    def read() -> Look:
        page, last = reader.look(query, is_final=is_terminal(job.state))
        responses = form(page.job_number, page.pieces) if page.pieces else ()
        return Look(reader, query, page.pieces, responses, last)

    return await asyncio.to_thread(read)


async def _read(reader: LogReader, part: ByteRange) -> AsyncIterator[bytes]:
    position, end = part.start, part.start + part.length
    while position < end:
        chunk = await asyncio.to_thread(reader.read_content, position, min(CHUNK_BYTES, end - position))
        if not chunk:
            raise OSError("the log has become shorter while it was read")
        yield chunk
        position += len(chunk)


def _query(request: GetLogsRequest) -> LogQuery:
    return LogQuery(
        offset=request.offset,
        limit=request.limit or DEFAULT_LIMIT,
        levels=frozenset(request.level),
        subsystem=request.subsystem if request.HasField("subsystem") else None,
        since=micros(request.since) if request.HasField("since") else None,
        until=micros(request.until) if request.HasField("until") else None,
        contains=request.contains if request.HasField("contains") else None,
        descending=request.order == SORT_ORDER_DESC,
        after_sequence=request.after_sequence if request.HasField("after_sequence") else None,
    )


def _totals(page: LogPage, query: LogQuery, job: Job) -> GetLogsResponse:
    """An answer without its entries. `offset` is what was asked for; with a cursor, the place that it leads to."""
    offset = query.offset if query.after_sequence is None else page.offset
    removed_at = job.log_removed_at if job.HasField("log_removed_at") else None
    return GetLogsResponse(
        total=page.total, offset=offset, limit=query.limit, has_more=page.has_more, log_removed_at=removed_at
    )
