"""Server streams over HTTP: replay, live items, heartbeats, and always a marker at the end."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import grpc
from aiohttp import web
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from jobledger.v1 import annotations_pb2

from jobledger_gateway.binding import Binder
from jobledger_gateway.calls import Rpc, is_own
from jobledger_gateway.codec import PLAIN, Codec
from jobledger_gateway.errors import GatewayError, internal, problem, problem_of
from jobledger_gateway.exchange import Exchange
from jobledger_gateway.feed import End, Feed, Singles
from jobledger_gateway.framing import Framing, Framings, StreamShape
from jobledger_gateway.http_rule import RuleError
from jobledger_gateway.metadata import lookup
from jobledger_gateway.percent import parse_query
from jobledger_gateway.scalars import RANGES
from jobledger_gateway.writing import abort, has_room, write, write_at_once, write_last

# A write costs more than encoding a hundred small items.
CHUNK = 64 * 1024
# Most items that a server is asked to send together, where its method says how to ask for that.
BATCH = 1000
# How long a call of Jobledger's own server may take to be accepted before its stream begins none the less.
OWN_SECONDS = 15.0
RESUME = re.compile(r"[0-9]{1,20}")


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSettings:
    """How streams behave.

    Attributes:
        ping_seconds: silence after which a heartbeat is sent.
        write_seconds: how long a reader may take nothing before it is cut off.
        accept_seconds: how long to wait, once the call is accepted, for an error that would come before all items.
        begin_seconds: how long to wait for a call to be accepted before the answer begins without its metadata.
    """

    ping_seconds: float = 15.0
    write_seconds: float = 30.0
    accept_seconds: float = 0.02
    begin_seconds: float = 0.5


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
        # Jobledger's own server says at once that it accepts: where it is slow, its refusals keep their status.
        self._most_seconds = OWN_SECONDS if is_own(rpc.method) else settings.begin_seconds
        self._largest = _largest(rpc.method.input_type, rule.resume_field)
        self._resume_names = _names_of(rpc.method.input_type, rule.resume_field)
        try:
            self._shape = StreamShape(
                rpc.method.output_type, rule, dialect=codec.dialect, response_body=binder.rule.response_body
            )
            self._framings = Framings(self._shape)
        except RuleError as error:
            raise RuleError(f"{binder.rule}: {error}") from None

    async def answer(self, exchange: Exchange) -> web.StreamResponse:
        request = exchange.request
        message = self._bound(exchange)
        self._resume(request, message)
        if self._rule.batch_size_field and not _is_given(message, self._rule.batch_size_field):
            setattr(message, self._rule.batch_size_field, BATCH)
        framing = self._framings.asked_for(", ".join(request.headers.getall("Accept", ())))
        call = self._rpc.open(message, metadata=exchange.metadata, deadline=exchange.deadline)
        feed = Feed(call, silence=self._settings.ping_seconds, stopping=self._stopping)
        try:
            metadata = await feed.accepted(self._settings.accept_seconds, self._most_seconds)
            response = web.StreamResponse(headers=exchange.answers_with(metadata))
            response.headers.update({"Content-Type": framing.media_type, "X-Accel-Buffering": "no"})
            preamble = framing.preamble(self._starts_after(message, metadata))
            await response.prepare(request)
            if request.method != "HEAD":
                await self._send(request, response, feed, framing, preamble)
            return response
        finally:
            await feed.close()

    def _bound(self, exchange: Exchange) -> Message:
        """The request. A point to resume from that is no number is an error of its own, in the query too.

        One that is given twice is what any parameter is then.
        """
        try:
            return self._binder.bind(exchange.incoming)
        except GatewayError as refusal:
            wrong = {it["field"] for it in refusal.problem.details.get("fields", ())}
            if not self._rule.resume_error or not wrong & self._resume_names:
                raise
            given = [name for name, _ in parse_query(exchange.incoming.query) if name in self._resume_names]
            if len(given) > 1:
                raise
            raise GatewayError(problem(self._rule.resume_error, refusal.problem.message)) from None

    def _resume(self, request: web.Request, message: Message) -> None:
        """Last-Event-ID is what a browser sends when it comes back: it is newer than the address it first asked.

        One that says nothing is refused: to take it for none would skip what has happened since, without a word.
        """
        given = request.headers.getall("Last-Event-ID", ())
        if not self._rule.resume_field or not given:
            return
        [last, *others] = given
        if others or not RESUME.fullmatch(last) or int(last) > self._largest:
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
            if not self._rule.end_field:
                feed.shortcut = partial(_write_at_once, request, response, framing)
            async for chunk, is_last in self._chunks(feed, framing, preamble):
                await (write_last if is_last else write)(request, response, chunk, seconds=seconds)
        except BaseException:
            abort(request)
            raise

    async def _chunks(self, feed: Feed, framing: Framing, preamble: bytes) -> AsyncIterator[tuple[bytes, bool]]:
        """What to write, each chunk all that is ready up to 64 KiB; the last one holds the marker of the end."""
        chunk, size = [preamble], len(preamble)
        while True:
            if size and not await feed.more():
                yield b"".join(chunk), False
                chunk, size = [], 0
            entry = await feed.next()
            if isinstance(entry, End):
                yield b"".join((*chunk, self._marker(entry, framing))), True
                return
            framed, is_last = self._framed(entry, framing)
            try:
                for part in framed:
                    chunk.append(part)
                    size += len(part)
                    if size >= CHUNK:
                        yield b"".join(chunk), False
                        chunk, size = [], 0
            except Exception as fault:  # noqa: BLE001 - a message that JSON can't say, such as a time out of range
                yield b"".join((*chunk, framing.error(internal(fault)))), True
                return
            if is_last:
                yield b"".join(chunk), True
                return

    def _framed(self, entry: list[Any], framing: Framing) -> tuple[Iterable[bytes], bool]:
        """The bytes of each message up to the last one of the stream, and whether that is among them.

        They are made as they are taken: what comes before a message that can't be encoded is written still.
        """
        if not entry:
            return (framing.ping(),), False
        numbers: Sequence[bytes] | None = getattr(entry, "numbers", None)
        if numbers is not None:
            return framing.coded(numbers, entry), False
        if not self._rule.end_field:
            return map(framing.single if isinstance(entry, Singles) else framing.message, entry), False
        # What ends is told to one reader alone, and not worth remembering.
        for place, message in enumerate(entry):
            last = self._shape.end_of(message)
            if last is not None:
                return chain(map(framing.single, entry[:place]), map(framing.end, (last,))), True
        return map(framing.single, entry), False

    def _marker(self, end: End, framing: Framing) -> bytes:
        if end.failure is None:
            return framing.end(None)
        if isinstance(end.failure, GatewayError):
            return framing.error(end.failure.problem)
        if isinstance(end.failure, grpc.aio.AioRpcError):
            return framing.error(problem_of(end.failure, self._codec))
        return framing.error(internal(end.failure))


def _largest(request: Descriptor, resume_field: str) -> int:
    """The largest number that the field takes which a stream resumes from."""
    return RANGES[request.fields_by_name[resume_field].type][1] if resume_field else 0


def _names_of(request: Descriptor, resume_field: str) -> frozenset[str]:
    """What a request may call that field."""
    field = request.fields_by_name.get(resume_field)
    return frozenset() if field is None else frozenset({field.name, field.json_name})


def _is_given(message: Message, name: str) -> bool:
    """Whether a request has a number of its own in this field."""
    has_presence = message.DESCRIPTOR.fields_by_name[name].has_presence
    return message.HasField(name) if has_presence else bool(getattr(message, name))


def _write_at_once(request: web.Request, response: web.StreamResponse, framing: Framing, burst: list[Message]) -> bool:
    """Writes a burst, in whatever task this is, if that does not come to a wait."""
    try:
        chunk = framing.burst(burst)
    except Exception:  # noqa: BLE001 - the writer comes to it in its turn, and tells its client
        return False
    return not chunk or (has_room(request, len(chunk)) and write_at_once(response, chunk))
