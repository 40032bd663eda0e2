"""Writing to readers that may be slow, or gone."""

import asyncio
import socket
import struct
import sys
from contextlib import suppress
from typing import Any

from aiohttp import HttpVersion11, web

# A reader that takes nothing for so long is cut off.
WRITE_SECONDS = 30.0
# Of SO_LINGER: on, and no time.
RESET = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
# Where Linux has, in struct tcp_info, how many bytes the other end has acknowledged.
ACKNOWLEDGED = struct.Struct("=120xQ")

UNDER_WAY = web.RequestKey("under_way", bool)


def begin(request: web.BaseRequest) -> None:
    """Notes that an answer begins: its head is about to be written."""
    request[UNDER_WAY] = True


def is_under_way(request: web.BaseRequest) -> bool:
    """Whether an answer has begun, so that no other one can be given."""
    return UNDER_WAY in request


async def write(
    request: web.BaseRequest, response: web.StreamResponse, chunk: bytes, *, seconds: float = WRITE_SECONDS
) -> None:
    """Writes to who asked, waiting for a slow reader.

    Raises:
        ConnectionError: the reader is gone, or has taken nothing for `seconds`.
    """
    if not chunk:
        return
    if has_room(request, len(chunk)):
        # It can't come to a wait: that saves most writes a timer.
        await response.write(chunk)
        return
    try:
        async with asyncio.timeout(seconds):
            await response.write(chunk)
    except TimeoutError:
        raise ConnectionAbortedError("the reader takes nothing") from None


async def write_last(
    request: web.BaseRequest, response: web.StreamResponse, chunk: bytes, *, seconds: float = WRITE_SECONDS
) -> None:
    """Writes what comes last, with the end of the answer behind it: each goes out by a system call of its own.

    Raises:
        ConnectionError: as `write` does.
    """
    if not has_room(request, len(chunk)):
        await write(request, response, chunk, seconds=seconds)
        chunk = b""
    await response.write_eof(chunk)


def has_room(request: web.BaseRequest, size: int) -> bool:
    """Whether the connection takes so many bytes, and what frames them, before it asks to wait."""
    transport = request.transport
    if transport is None or transport.is_closing():
        return False
    low, _ = transport.get_write_buffer_limits()
    return transport.get_write_buffer_size() + size <= low


def write_at_once(response: web.StreamResponse, chunk: bytes) -> bool:
    """Writes where there is room, outside of any task."""
    writing = response.write(chunk)
    try:
        writing.send(None)
    except StopIteration:
        return True
    except ConnectionError:
        return False
    raise RuntimeError("a write that had room came to a wait")


def bytes_taken(transport: asyncio.WriteTransport, connection: Any, written: int) -> int:
    """A number that grows as a reader takes what is written, of which there were so many bytes since some point.

    By what its end acknowledges, where that can be told. Our own buffer shows less: the kernel may take a megabyte of
    it at a time, for which a slow reader needs minutes, and behind TLS most of it is out of sight.
    """
    with suppress(OSError):
        if sys.platform == "linux" and connection.family in {socket.AF_INET, socket.AF_INET6}:
            told = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, ACKNOWLEDGED.size)
            if len(told) == ACKNOWLEDGED.size:
                acknowledged: int = ACKNOWLEDGED.unpack(told)[0]
                return acknowledged
    # That of TLS fails once it was closed twice.
    with suppress(AttributeError):
        return written - transport.get_write_buffer_size()
    return written


def abort(request: web.BaseRequest) -> None:
    """Breaks the connection, so that the client sees that the answer is not complete.

    Before HTTP/1.1 an answer may end with its connection: there it takes a reset to tell a break from that end.
    """
    if request.transport is None:
        return
    if request.version < HttpVersion11:
        connection = request.transport.get_extra_info("socket")
        with suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    request.transport.abort()
