"""Reading the logs of jobs."""

from collections.abc import AsyncGenerator, Sequence
from datetime import datetime
from typing import Any, Literal, TypedDict, Unpack

from jobledger.calls.base import Calls
from jobledger.calls.content import content
from jobledger.v1.job_pb2 import LogEntry, LogLevel
from jobledger.v1.job_service_pb2 import (
    GetLogContentRequest,
    GetLogsRequest,
    GetLogsResponse,
    SortOrder,
    TailLogsRequest,
    TailLogsResponse,
)
from jobledger.values import enum_number, timestamp

PAGE = 1000


class LogFilter(TypedDict, total=False):
    """Which entries: any of these levels, exactly this subsystem, `since` (inclusive), `until` (exclusive), a text."""

    level: Sequence[str]
    subsystem: str
    since: datetime
    until: datetime
    contains: str


class LogCalls(Calls):
    """Verbs on logs."""

    async def logs(
        self,
        job_id: str,
        *,
        offset: int | None = None,
        limit: int | None = None,
        after_sequence: int | None = None,
        order: Literal["asc", "desc"] = "asc",
        **where: Unpack[LogFilter],
    ) -> GetLogsResponse:
        """One page of a job's log by `job_sequence`; `iter_logs` gives all of it.

        Raises:
            NotFoundError: there is no such job.
        """
        request = GetLogsRequest(
            job_id=job_id,
            offset=offset,
            limit=limit,
            after_sequence=after_sequence,
            order=enum_number(SortOrder, order),
            **_filter_fields(where),
        )
        return await self._transport.call(self._jobs.GetLogs, request)

    async def iter_logs(
        self, job_id: str, *, after_sequence: int = 0, page_size: int = PAGE, **where: Unpack[LogFilter]
    ) -> AsyncGenerator[LogEntry, None]:
        """All entries that there are now; `tail_logs` goes on until the job ends."""
        async for page in self.iter_log_pages(job_id, after_sequence=after_sequence, page_size=page_size, **where):
            for entry in page:
                yield entry

    async def iter_log_pages(
        self, job_id: str, *, after_sequence: int = 0, page_size: int = PAGE, **where: Unpack[LogFilter]
    ) -> AsyncGenerator[Sequence[LogEntry], None]:
        """What `iter_logs` gives, page by page; none is empty."""
        request = GetLogsRequest(job_id=job_id, limit=page_size, after_sequence=after_sequence, **_filter_fields(where))
        while True:
            page = await self._transport.call(self._jobs.GetLogs, request)
            if page.logs:
                yield page.logs
            if not page.has_more or not page.logs:
                return
            request.after_sequence = page.logs[-1].job_sequence

    async def tail_logs(
        self, job_id: str, *, after_sequence: int = 0, level: Sequence[str] = ()
    ) -> AsyncGenerator[LogEntry, None]:
        """Entries after a point, then live ones until the job has ended. Lives through restarts of the server."""
        async for page in self.tail_log_pages(job_id, after_sequence=after_sequence, level=level):
            for entry in page:
                yield entry

    async def tail_log_pages(
        self, job_id: str, *, after_sequence: int = 0, level: Sequence[str] = ()
    ) -> AsyncGenerator[Sequence[LogEntry], None]:
        """What `tail_logs` gives, in lists of what was there together; none is empty, and none waits to fill."""
        request = TailLogsRequest(
            job_id=job_id,
            after_sequence=after_sequence,
            level=[enum_number(LogLevel, name) for name in level],
            max_batch=PAGE,
        )
        async for item in self._transport.follow(self._jobs.TailLogs, request, _after_entries):
            if entries := _entries_of(item):
                yield entries

    async def log_content(
        self, job_id: str, *, offset: int = 0, length: int | None = None
    ) -> AsyncGenerator[bytes, None]:
        """The job's output, byte for byte as it wrote it, in chunks.

        Args:
            offset: first byte, from 0.
            length: number of bytes; None for all that there are.

        Raises:
            NotFoundError: there is no such job.
            OutOfRangeError: the output ends before the first byte.
        """
        if offset < 0:
            raise ValueError("offset counts from 0")
        request = GetLogContentRequest(job_id=job_id, offset=offset, length=length)
        async for chunk in content(self._transport, self._jobs.GetLogContent, request):
            yield chunk


def _entries_of(item: TailLogsResponse) -> Sequence[LogEntry]:
    """An older server sends each by itself."""
    return (item.log,) if item.HasField("log") else item.batch.logs


def _after_entries(request: TailLogsRequest, item: TailLogsResponse) -> None:
    if entries := _entries_of(item):
        request.after_sequence = entries[-1].job_sequence


def _filter_fields(where: LogFilter) -> dict[str, Any]:
    """Fields of a request from plain values."""
    fields: dict[str, Any] = dict(where)
    fields["level"] = [enum_number(LogLevel, name) for name in fields.get("level", ())]
    for name in ("since", "until"):
        if name in fields:
            fields[name] = timestamp(fields[name])
    return fields
