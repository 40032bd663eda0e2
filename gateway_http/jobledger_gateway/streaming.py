"""Server streams over HTTP: replay, live items, heartbeats, and always a marker at the end."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import grpc
from aiohttp import web
from google.protobuf.message import Message
from jobledger.v1 import annotations_pb2

from jobledger_gateway.binding import Binder
from jobledger_gateway.calls import Rpc
from jobledger_gateway.errors import GatewayError, Problem, internal, problem, problem_of
from jobledger_gateway.exchange import Exchange
from jobledger_gateway.framing import Framing, StreamShape, framing_for
from jobledger_gateway.http_rule import RuleError, resolve
from jobledger_gateway.writing import abort, write

CHUNK = 16 * 1024
# Messages that wait for a slow reader: enough to fill a chunk, few enough to bound memory.
BACKLOG = 64
RESUME = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSettings:
    """How streams behave.

    Attributes:
        ping_seconds: silence after which a heartbeat is sent.
        write_seconds: how long a reader may take nothing before it is cut off.
        accept_seconds: how long to wait, once the call is accepted, for an error that would come before all items.
    """

    ping_seconds: float = 15.0
    write_seconds: float = 30.0
    accept_seconds: float = 0.02


class StreamEndpoint:
    """Answers with the messages of a server stream, as server-sent events or NDJSON."""

    def __init__(
        self,
        binder: Binder,
        rpc: Rpc,
        rule: annotations_pb2.StreamRule,
        *,
        settings: StreamSettings,
        stopping: asyncio.Event,
    ) -> None:
        """Compiles the rule. When the gateway shuts down, `stopping` is set: streams then end with an error.

        Raises:
            RuleError: it can't be served.
        """
        self._binder = binder
        self._rpc = rpc
        self._rule = rule
        self._settings = settings
        self._stopping = stopping
        try:
            self._shape = StreamShape(rpc.method.output_type, rule)
            if rule.resume_field:
                resolve(rpc.method.input_type, (rule.resume_field,))
        except RuleError as error:
            raise RuleError(f"{rpc.method.full_name}: {error}") from None

    async def answer(self, exchange: Exchange) -> web.StreamResponse:
        request = exchange.request
        message = self._bound(exchange)
        self._resume(request, message)
        framing = framing_for(request.headers.get("Accept", ""), self._shape)
        call = self._rpc.open(message, metadata=exchange.metadata, deadline=exchange.deadline)
        feed = Feed(call)
        try:
            await feed.accepted(self._settings.accept_seconds)
            response = web.StreamResponse(headers={"Content-Type": framing.media_type, "X-Accel-Buffering": "no"})
            await response.prepare(request)
            if request.method != "HEAD":
                await self._send(request, response, feed, framing)
            return response
        finally:
            await feed.close()

    def _bound(self, exchange: Exchange) -> Message:
        """The request. A point to resume from that is no number is an error of its own, in the query too."""
        try:
            return self._binder.bind(exchange.incoming)
        except GatewayError as refusal:
            fields = refusal.problem.details.get("fields", ())
            if self._rule.resume_error and any(it["field"] == self._rule.resume_field for it in fields):
                raise GatewayError(problem(self._rule.resume_error, refusal.problem.message)) from None
            raise

    def _resume(self, request: web.Request, message: Message) -> None:
        """Last-Event-ID is what a browser sends when it comes back: it is newer than the address it first asked."""
        last = request.headers.get("Last-Event-ID", "")
        if not self._rule.resume_field or not last:
            return
        if not RESUME.fullmatch(last):
            raise GatewayError(problem(self._rule.resume_error or "BAD_REQUEST", "Last-Event-ID is not a number"))
        setattr(message, self._rule.resume_field, int(last))

    async def _send(self, request: web.Request, response: web.StreamResponse, feed: "Feed", framing: Framing) -> None:
        try:
            await self._write(response, framing.preamble())
            async for chunk in self._chunks(feed, framing):
                await self._write(response, chunk)
            await response.write_eof()
        except BaseException:
            abort(request)
            raise

    async def _write(self, response: web.StreamResponse, chunk: bytes) -> None:
        if chunk:
            await write(response, chunk, seconds=self._settings.write_seconds)

    async def _chunks(self, feed: "Feed", framing: Framing) -> AsyncIterator[bytes]:
        """What to write, each chunk all that is ready up to 16 KiB; the last one holds the marker of the end."""
        chunk = bytearray()
        while True:
            entry = feed.ready()
            if entry is None:
                if chunk:
                    yield bytes(chunk)
                    chunk.clear()
                entry = await feed.next(self._settings.ping_seconds, self._stopping)
                if entry is None:
                    yield framing.ping()
                    continue
            last = self._marker(entry, framing)
            if last is not None:
                yield bytes(chunk) + last
                return
            chunk += framing.item(self._shape.item_of(entry))
            if len(chunk) >= CHUNK:
                yield bytes(chunk)
                chunk.clear()

    def _marker(self, entry: Any, framing: Framing) -> bytes | None:
        """The marker that an entry of the feed is; None for an item."""
        if isinstance(entry, End):
            return framing.end(None) if entry.failure is None else framing.error(_problem(entry.failure))
        last = self._shape.end_of(entry)
        return None if last is None else framing.end(last)


def _problem(failure: Exception) -> Problem:
    if isinstance(failure, GatewayError):
        return failure.problem
    return problem_of(failure) if isinstance(failure, grpc.aio.AioRpcError) else internal(failure)


@dataclass(frozen=True, slots=True)
class End:
    """The stream is over: by a failure, or (None) as it should."""

    failure: Exception | None


class Feed:
    """Reads a call ahead, within bounds, so that what is ready can be written in one go."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self._queue: asyncio.Queue[Any] = asyncio.Queue(maxsize=BACKLOG)
        self._began = asyncio.Event()
        self._refusal: Exception | None = None
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        end = End(None)
        try:
            async for message in self._call:
                self._began.set()
                await self._queue.put(message)
        except Exception as failure:  # noqa: BLE001 - handed on: whoever reads the feed tells the client
            end = End(failure)
        if not self._began.is_set():
            self._refusal = end.failure
            self._began.set()
        await self._queue.put(end)

    async def accepted(self, patience: float) -> None:
        """Returns when the server has accepted the call.

        A refusal arrives with, or just after, the initial metadata, and nothing tells it from an acceptance but the
        status that follows: hence the patience, in seconds. A refusal later than that is told within the stream.

        Raises:
            grpc.aio.AioRpcError: it has refused.
        """
        with suppress(grpc.aio.AioRpcError):
            await self._call.initial_metadata()
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self._began.wait()
        if self._refusal is not None:
            raise self._refusal

    def ready(self) -> Any:
        """The next message or End if it is there already, else None."""
        return None if self._queue.empty() else self._queue.get_nowait()

    async def next(self, patience: float, stop: asyncio.Event) -> Any:
        """The next message or End; None after `patience` seconds of silence; an End once `stop` is set."""
        entry = asyncio.ensure_future(self._queue.get())
        stopping = asyncio.ensure_future(stop.wait())
        try:
            await asyncio.wait({entry, stopping}, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            if entry.done():
                return entry.result()
            return End(GatewayError(problem("ENGINE_SHUTTING_DOWN"))) if stopping.done() else None
        finally:
            entry.cancel()
            stopping.cancel()

    async def close(self) -> None:
        """Ends the call."""
        self._call.cancel()
        self._reader.cancel()
        await asyncio.wait({self._reader})
