"""Answers that are bytes (google.api.HttpBody): whole or in parts, with ETag and Range."""

import logging
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import grpc
from aiohttp import web
from google.protobuf.message import Message
from jobledger.v1 import annotations_pb2

from jobledger_gateway.binding import Binder
from jobledger_gateway.calls import Rpc, read
from jobledger_gateway.conditions import etag_matches, not_modified
from jobledger_gateway.errors import GatewayError, problem_of
from jobledger_gateway.exchange import Exchange
from jobledger_gateway.metadata import lookup
from jobledger_gateway.writing import abort, write

SIZE = "x-content-length"
LARGEST = (1 << 63) - 1

BYTE_RANGE = re.compile(r"bytes=(?:([0-9]{1,32})-([0-9]{1,32})?|-([0-9]{1,32}))", re.IGNORECASE)
MEDIA_TYPE = re.compile(r"[\w.+-]+/[\w.+-]+(;[\x20-\x7e]*)?", re.ASCII)
OPAQUE_TYPE = "application/octet-stream"

# Bytes that a job wrote must not act as a page of this origin.
SANDBOX = {"Content-Security-Policy": "default-src 'none'; sandbox"}


logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ByteRange:
    """A range as the request's fields say it: a negative offset counts from the end, length 0 means to the end."""

    offset: int
    length: int

    def within(self, size: int) -> tuple[int, int]:
        """First byte, and the one after the last, of a range that lies in content of that size."""
        start = self.offset if self.offset >= 0 else max(0, size + self.offset)
        return start, min(size, start + self.length) if self.length else size


def parse_range(header: str | None) -> ByteRange | None:
    """The range of a Range header; None where there is none that we serve: several ranges, another unit, nonsense."""
    match = BYTE_RANGE.fullmatch(header.strip()) if header else None
    if match is None:
        return None
    first, last, suffix = (min(int(text), LARGEST) if text else None for text in match.groups())
    if suffix is not None:
        # The last no bytes lie outside of any content.
        return ByteRange(-suffix if suffix else LARGEST, 0)
    if first is None or last is None:
        return ByteRange(first or 0, 0)
    return ByteRange(first, min(last - first + 1, LARGEST)) if first <= last else None


def content_response(
    request: web.Request, content: Any, headers: Mapping[str, str], *, status: int
) -> web.StreamResponse:
    """Content that came in one piece."""
    unchanged = not_modified(request, headers)
    if unchanged is not None:
        return unchanged
    response = web.Response(status=status, body=content.data, headers=headers)
    response.headers.update(SANDBOX)
    response.headers["Content-Type"] = _media_type(content)
    return response


class ContentEndpoint:
    """Answers with the bytes of a stream of HttpBody, or of messages that `take` takes one out of.

    Where the method has a RangeRule, the call's initial metadata says the size of the whole (`x-content-length`).
    """

    def __init__(self, binder: Binder, rpc: Rpc, rule: annotations_pb2.RangeRule, take: Callable[[Any], Any]) -> None:
        self._binder = binder
        self._rpc = rpc
        self._take = take
        self._rule = rule if rule.offset_field else None

    async def answer(self, exchange: Exchange) -> web.StreamResponse:
        message = self._binder.bind(exchange.incoming)
        wanted = await self._wanted(exchange, message)
        if isinstance(wanted, web.StreamResponse):
            return wanted
        async with self._opened(exchange, self._ranged(message, wanted)) as content:
            unchanged = not_modified(exchange.request, content.headers)
            if unchanged is not None:
                return unchanged
            return await _send(exchange.request, content, wanted, ranges=self._rule is not None)

    def _ranged(self, message: Message, wanted: ByteRange | None) -> Message:
        if wanted is None or self._rule is None:
            return message
        # A copy: the first message may still be in the hands of a call in this process.
        ranged = type(message)()
        ranged.CopyFrom(message)
        setattr(ranged, self._rule.offset_field, wanted.offset)
        if wanted.length:
            setattr(ranged, self._rule.length_field, wanted.length)
        return ranged

    async def _wanted(self, exchange: Exchange, message: Message) -> ByteRange | web.StreamResponse | None:
        """The range to ask for; or None for the whole; or the answer, where a condition settles it.

        Conditions come before the range (RFC 9110, 13.2.2), so that with both the whole is looked at first.
        """
        headers = exchange.request.headers
        wanted = parse_range(headers.get("Range")) if self._rule and exchange.request.method == "GET" else None
        if wanted is None or not headers.keys() & {"If-Match", "If-Range", "If-None-Match"}:
            return wanted
        async with self._opened(exchange, message) as content:
            unchanged = not_modified(exchange.request, content.headers)
            if unchanged is not None:
                return unchanged
            condition = headers.get("If-Range")
            if condition is None or etag_matches(condition, content.headers.get("ETag"), weak=False):
                return wanted
            return None

    @asynccontextmanager
    async def _opened(self, exchange: Exchange, message: Message) -> AsyncIterator["Content"]:
        """A call that has answered with its first piece. It ends when the context does."""
        call = self._rpc.open(message, metadata=exchange.metadata, deadline=exchange.deadline)
        try:
            pieces = Pieces(call, self._take)
            first = await anext(pieces, None)
            initial = await call.initial_metadata()
            size = lookup(initial, SIZE)
            yield Content(
                headers=exchange.answers_with(initial),
                size=_size(size, first),
                first=first,
                rest=pieces,
            )
        except grpc.aio.AioRpcError as failure:
            raise _unsatisfiable(failure) or failure from None
        finally:
            call.cancel()


class Pieces:
    """The HttpBody of each message of a call."""

    def __init__(self, call: Any, take: Callable[[Any], Any]) -> None:
        self._messages, self._take = aiter(call), take

    def __aiter__(self) -> "Pieces":
        return self

    async def __anext__(self) -> Any:
        return self._take(read(await anext(self._messages)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """Bytes on their way: headers, size of the whole (None: unknown), first piece (None: empty) and the others."""

    headers: Mapping[str, str]
    size: int | None
    first: Any
    rest: AsyncIterator[Any]


def _size(told: str | None, first: Any) -> int | None:
    if told is not None and told.isdecimal():
        return int(told)
    # Of a call without messages grpc.aio loses the initial metadata where it hears of the end first.
    return 0 if first is None else None


async def _send(
    request: web.Request, content: Content, wanted: ByteRange | None, *, ranges: bool
) -> web.StreamResponse:
    response = web.StreamResponse(headers=content.headers)
    response.headers.update(SANDBOX)
    response.headers["Content-Type"] = _media_type(content.first)
    if ranges:
        response.headers["Accept-Ranges"] = "bytes"
    expected = content.size
    # Nothing has no parts: a range that was admitted for it gets the whole.
    if wanted is not None and content.size != 0:
        if content.size is None:
            raise LookupError(f"the call's initial metadata lacks {SIZE}")
        start, end = wanted.within(content.size)
        expected = end - start
        response.set_status(206)
        response.headers["Content-Range"] = f"bytes {start}-{end - 1}/{content.size}"
    response.content_length = expected
    await response.prepare(request)
    if request.method != "HEAD":
        await _copy(request, response, content, expected)
    return response


async def _copy(request: web.Request, response: web.StreamResponse, content: Content, expected: int | None) -> None:
    """Sends the bytes; the connection breaks where they are not all, so that a part never passes for the whole."""
    try:
        sent = await _pump(request, response, content, expected)
        _check_length(sent, expected)
        await response.write_eof()
    except BaseException:
        abort(request)
        raise


async def _pump(request: web.Request, response: web.StreamResponse, content: Content, expected: int | None) -> int:
    """Sends the pieces, and says how many bytes they had; stops at the piece that would pass what is expected."""
    sent, piece = 0, content.first
    while piece is not None:
        # Each look at the field copies it.
        data = piece.data
        sent += len(data)
        if expected is not None and sent > expected:
            break
        await write(request, response, data)
        piece = await anext(content.rest, None)
    return sent


def _check_length(sent: int, expected: int | None) -> None:
    if expected is not None and sent != expected:
        logger.error("a call announced %d bytes and sent %d", expected, sent)
        raise ConnectionAbortedError("the call did not send what it had announced")


def _media_type(content: Any) -> str:
    named = content.content_type if content is not None else ""
    return named if MEDIA_TYPE.fullmatch(named) else OPAQUE_TYPE


def _unsatisfiable(failure: grpc.aio.AioRpcError) -> GatewayError | None:
    """The error for a range outside the content, which tells its size; None for any other failure."""
    if failure.code() is not grpc.StatusCode.OUT_OF_RANGE:
        return None
    told = problem_of(failure)
    if not str(told.details.get("size", "")).isdecimal():
        return None
    size = told.details["size"]
    # Not the server's own text: it may name an offset that stands for "past any end".
    message = f"The range lies outside of the content, which has {size} bytes"
    headers = {**told.headers, "Content-Range": f"bytes */{size}"}
    return GatewayError(replace(told, status=416, message=message, headers=headers), token_first=False)
