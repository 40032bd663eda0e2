"""Bodies of requests as they come in: how long one may take, how large it may be, and all those that come at a time."""

import asyncio
import re
import zlib
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from aiohttp import HttpVersion11, hdrs, web

from jobledger_gateway.errors import GatewayError, bad_request, problem

# A client that sends its body more slowly than this only holds a connection.
BODY_SECONDS = 15.0
# Of all bodies together that are still coming in.
MOST_BYTES = 64 * 1024 * 1024
# So much of each counts for nothing: a connection's own buffers hold more, and small requests are always let in.
UNCOUNTED_BYTES = 16 * 1024
# The form of a credential. Whether it is good, the server says.
BEARER = re.compile(r"bearer +[^ ]+", re.IGNORECASE)
# By content coding, what zlib is to expect.
CODINGS = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
READ = "gzip, deflate"
DEFLATED = 8  # The low half of the first byte of zlib's format; some clients send what is inside of it alone.
# Of gzip, one behind the other in a body. A block of bgzip has up to 64 KiB: that makes 18 in 1 MiB, its end with them.
MOST_MEMBERS = 64

# Raises GatewayError where whoever sends a request may not.
Admit = Callable[[], Awaitable[None]]


class Room:
    """How many bytes of bodies may be held while they come in, in all."""

    def __init__(self) -> None:
        self._free = MOST_BYTES

    @contextmanager
    def share(self) -> Iterator["Share"]:
        """What one body takes, given back in the end."""
        share = Share(self)
        try:
            yield share
        finally:
            self._free += share.held

    def take(self, size: int) -> None:
        """Takes so many bytes.

        Raises:
            GatewayError: `OVERLOADED`.
        """
        if size > self._free:
            told = problem("OVERLOADED", headers={"Retry-After": "1"})
            raise GatewayError(told, token_first=False)
        self._free -= size


class Share:
    """What one body has of a room."""

    def __init__(self, room: Room) -> None:
        self.held = 0
        self._room = room

    def grow(self, size: int) -> None:
        """Takes what a body of so many bytes needs.

        Raises:
            GatewayError: `OVERLOADED`.
        """
        more = size - UNCOUNTED_BYTES - self.held
        if more > 0:
            self._room.take(more)
            self.held += more


class Inflating:
    """A compressed body, bit by bit."""

    def __init__(self, coding: str) -> None:
        self._coding = coding
        self._stream: zlib._Decompress | None = None
        self._members = 0

    def feed(self, data: bytes, most: int) -> bytes:
        """What these bytes inflate to, at most `most` of it, which is above 0.

        Raises:
            GatewayError: `BAD_REQUEST`.
        """
        made = bytearray()
        while data and len(made) < most:
            if self._stream is None or (self._stream.eof and self._coding != "deflate"):
                self._stream = self._next(data)
            elif self._stream.eof:
                raise bad_request("The body goes on past the end of its encoding")
            try:
                made += self._stream.decompress(data, most - len(made))
            except zlib.error:
                raise bad_request("The body is not in the encoding that its headers say") from None
            data = self._stream.unused_data
        return bytes(made)

    def end(self) -> None:
        """Says that this is all.

        Raises:
            GatewayError: `BAD_REQUEST`: there must be more.
        """
        if self._stream is not None and not self._stream.eof:
            raise bad_request("The body ends before what is encoded in it does")

    def _next(self, data: bytes) -> "zlib._Decompress":
        # Each costs a state of its own, and a copy of all that came behind it, be there nothing in it.
        if self._members == MOST_MEMBERS:
            raise bad_request(f"The body has more than {MOST_MEMBERS} members of gzip: send it as one")
        self._members += 1
        return zlib.decompressobj(self._format(data))

    def _format(self, data: bytes) -> int:
        is_bare = self._coding == "deflate" and data[0] & 0xF != DEFLATED
        return -zlib.MAX_WBITS if is_bare else CODINGS[self._coding]


async def read_body(request: web.Request, limit: int, room: Room, admit: Admit) -> bytes:
    """The body, inflated where it came compressed. The limit holds for what it inflates to, too.

    `admit` is asked before anything is read where there is nothing like a token, else before much is.

    Raises:
        GatewayError: `TOO_LARGE`, `REQUEST_TIMEOUT`, `OVERLOADED`, `UNSUPPORTED_MEDIA_TYPE`, or it can't be read.
    """
    if not request.body_exists:
        return b""
    is_admitted = (request.content_length or 0) > UNCOUNTED_BYTES or not _names_a_token(request)
    if is_admitted:
        await admit()
    coding = _coding_of(request)
    await _invite(request)
    try:
        with room.share() as share:
            async with asyncio.timeout(BODY_SECONDS):
                inflating = Inflating(coding) if coding else None
                return await _read(request, limit, share, inflating, None if is_admitted else admit)
    except TimeoutError:
        raise GatewayError(
            problem("REQUEST_TIMEOUT", f"The body did not arrive within {BODY_SECONDS:g} s"), token_first=False
        ) from None
    except web.RequestPayloadError:
        raise bad_request("The body ends early, or is not framed as its headers say") from None


async def _read(
    request: web.Request, limit: int, share: Share, inflating: Inflating | None, admit: Admit | None
) -> bytes:
    body, came = bytearray(), 0
    async for chunk in request.content.iter_any():
        came += len(chunk)
        body += chunk if inflating is None else inflating.feed(chunk, limit + 1 - len(body))
        # What costs time comes in, what costs memory comes out: either may be the larger.
        size = max(came, len(body))
        if size > limit:
            raise too_large(limit)
        if admit is not None and size > UNCOUNTED_BYTES:
            await admit()
            admit = None
        share.grow(size)
    if inflating is not None:
        inflating.end()
    return bytes(body)


def _names_a_token(request: web.Request) -> bool:
    given = request.headers.getall(hdrs.AUTHORIZATION, [])
    return len(given) == 1 and BEARER.fullmatch(given[0]) is not None


def _coding_of(request: web.Request) -> str:
    """The one content coding of a body; "" for none."""
    names = [
        name.strip().lower() for value in request.headers.getall(hdrs.CONTENT_ENCODING, []) for name in value.split(",")
    ]
    codings = [name for name in names if name not in {"", "identity"}]
    if len(codings) > 1 or not CODINGS.keys() >= set(codings):
        told = problem(
            "UNSUPPORTED_MEDIA_TYPE",
            f"The body's Content-Encoding is not understood: send it as it is, or in one of {READ}",
            headers={"Accept-Encoding": READ},
        )
        raise GatewayError(told)
    return codings[0] if codings else ""


async def _invite(request: web.Request) -> None:
    """Lets a client that waits for it send its body; any other expectation is left unmet, as RFC 9110 allows."""
    if request.version >= HttpVersion11 and request.headers.get(hdrs.EXPECT, "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0


def too_large(limit: int) -> GatewayError:
    """A body over the limit: a limit of the transport, told before the token is looked at."""
    return GatewayError(problem("TOO_LARGE", f"The body is over {limit} bytes"), token_first=False)
