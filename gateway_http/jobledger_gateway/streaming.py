"""Server streams over HTTP: replay, live items, heartbeats, and always a marker at the end."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import grpc
from aiohttp import web
from google.protobuf.message import Message
from jobledger.v1 import annotations_pb2

from jobledger_gateway.binding import Binder
from jobledger_gateway.calls import Rpc
from jobledger_gateway.codec import PLAIN, Codec
from jobledger_gateway.errors import GatewayError, internal, problem, problem_of
from jobledger_gateway.exchange import Exchange
from jobledger_gateway.feed import End, Feed, Singles
from jobledger_gateway.framing import Framing, Framings, StreamShape
from jobledger_gateway.http_rule import RuleError, resolve
from jobledger_gateway.metadata import lookup
from jobledger_gateway.writing import abort, has_room, write, write_at_once

# A write costs more than encoding a hundred small items.
CHUNK = 64 * 1024
# Most items that a server is asked to send together, where its method says how to ask for that.
BATCH = 1000
RESUME, LARGEST = re.compile(r"[0-9]{1,19}"), (1 << 63) - 1


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
        codec: Codec = PLAIN,
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
        self._codec = codec
        try:
            self._shape = StreamShape(
                rpc.method.output_type, rule, dialect=codec.dialect, response_body=binder.rule.response_body
            )
            self._framings = Framings(self._shape)
            for name in filter(None, (rule.resume_field, rule.batch_size_field)):
                resolve(rpc.method.input_type, (name,))
        except RuleError as error:
            raise RuleError(f"{binder.rule}: {error}") from None

    async def answer(self, exchange: Exchange) -> web.StreamResponse:
        request = exchange.request
        message = self._bound(exchange)
        self._resume(request, message)
        if self._rule.batch_size_field:
            setattr(message, self._rule.batch_size_field, BATCH)
        framing = self._framings.asked_for(request.headers.get("Accept", ""))
        call = self._rpc.open(message, metadata=exchange.metadata, deadline=exchange.deadline)
        feed = Feed(call, silence=self._settings.ping_seconds, stopping=self._stopping)
        try:
            metadata = await feed.accepted(self._settings.accept_seconds)
            response = web.StreamResponse(headers={"Content-Type": framing.media_type, "X-Accel-Buffering": "no"})
            await response.prepare(request)
            if request.method != "HEAD":
                preamble = framing.preamble(self._starts_after(message, metadata))
                await self._send(request, response, feed, framing, preamble)
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
        """Last-Event-ID is what a browser sends when it comes back: it is newer than the address it first asked.

        One that says nothing is refused: to take it for none would skip what has happened since, without a word.
        """
        given = request.headers.getall("Last-Event-ID", ())
        if not self._rule.resume_field or not given:
            return
        [last, *others] = given
        if others or not RESUME.fullmatch(last) or int(last) > LARGEST:
            text = "Last-Event-ID is given more than once" if others else "Last-Event-ID is not the number of an event"
            raise GatewayError(problem(self._rule.resume_error or "BAD_REQUEST", f"{text}: send one number, or none"))
        setattr(message, self._rule.resume_field, int(last))

    def _starts_after(self, message: Any, metadata: Iterable[tuple[str, str | bytes]]) -> int | None:
        """The number after which the stream starts: as the server says, or as it was asked; None for neither."""
        told = lookup(metadata, self._rule.start_metadata)
        if told is not None and RESUME.fullmatch(told):
            return int(told)
        field = message.DESCRIPTOR.fields_by_name.get(self._rule.resume_field)
        if field is None or (field.has_presence and not message.HasField(field.name)):
            return None
        asked: int = getattr(message, field.name)
        return asked

    async def _send(
        self, request: web.Request, response: web.StreamResponse, feed: Feed, framing: Framing, preamble: bytes
    ) -> None:
        seconds = self._settings.write_seconds
        try:
            await write(request, response, preamble, seconds=seconds)
            if not self._rule.end_field:
                feed.shortcut = partial(_write_at_once, request, response, framing)
            async for chunk in self._chunks(feed, framing):
                await write(request, response, chunk, seconds=seconds)
            await response.write_eof()
        except BaseException:
            abort(request)
            raise

    async def _chunks(self, feed: Feed, framing: Framing) -> AsyncIterator[bytes]:
        """What to write, each chunk all that is ready up to 64 KiB; the last one holds the marker of the end."""
        chunk = bytearray()
        while True:
            if chunk and not await feed.more():
                yield bytes(chunk)
                chunk.clear()
            entry = await feed.next()
            if isinstance(entry, End):
                yield bytes(chunk) + self._marker(entry, framing)
                return
            if not entry:
                chunk += framing.ping()
            for framed, is_last in self._framed(entry, framing):
                chunk += framed
                if is_last or len(chunk) >= CHUNK:
                    yield bytes(chunk)
                    chunk.clear()
                if is_last:
                    return

    def _framed(self, entry: list[Any], framing: Framing) -> Iterator[tuple[bytes, bool]]:
        """The bytes of each message, and whether it is the last one."""
        if entry and hasattr(entry[0], "plain_json"):
            yield from ((framing.coded(item), False) for item in entry)
            return
        # What ends is told to one reader alone, and not worth remembering.
        ends, end_of = bool(self._rule.end_field), self._shape.end_of
        frame = framing.single if ends or isinstance(entry, Singles) else framing.message
        for message in entry:
            last = end_of(message) if ends else None
            yield (frame(message), False) if last is None else (framing.end(last), True)

    def _marker(self, end: End, framing: Framing) -> bytes:
        if end.failure is None:
            return framing.end(None)
        if isinstance(end.failure, GatewayError):
            return framing.error(end.failure.problem)
        if isinstance(end.failure, grpc.aio.AioRpcError):
            return framing.error(problem_of(end.failure, self._codec))
        return framing.error(internal(end.failure))


def _write_at_once(request: web.Request, response: web.StreamResponse, framing: Framing, burst: list[Message]) -> bool:
    """Writes a burst, in whatever task this is, if that does not come to a wait."""
    chunk = framing.burst(burst)
    return not chunk or (has_room(request, len(chunk)) and write_at_once(response, chunk))
