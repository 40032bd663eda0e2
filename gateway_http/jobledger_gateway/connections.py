"""Connections: how many there may be, and how long one may take to say what it wants, and to take what it is told."""

import asyncio
import socket
import sys
from contextlib import suppress
from typing import Any

from aiohttp import web

from jobledger_gateway.errors import Problem, problem
from jobledger_gateway.writing import WRITE_SECONDS, bytes_taken

if sys.platform != "win32":
    import resource

# How long a connection may be silent at first, and how long the head of any request may take from its first byte.
HEAD_SECONDS = 15.0
# Each stream is a connection of its own: this admits thousands of readers.
MOST_CONNECTIONS = 8192
# What is left of the descriptors is for jobs, their logs, the database and the other doors.
SHARE_OF_DESCRIPTORS = 2
# On every answer. A page gets what the answer says itself; nothing else that we send is one.
SECURITY_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
SERVER = "jobledger"


def most_connections() -> int:
    """How many connections are held at a time, with the descriptors that this process may have."""
    if sys.platform == "win32":
        return MOST_CONNECTIONS
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST_CONNECTIONS if soft == resource.RLIM_INFINITY else min(MOST_CONNECTIONS, soft // SHARE_OF_DESCRIPTORS)


class BoundedHandler(web.RequestHandler):
    """Refuses connections beyond a number, and those that don't come to the point, or don't take what they asked for.

    aiohttp's own timer is for connections that idle between two requests, and lets the head of a request drip as long.
    It waits without end for a reader to take an answer, and for what is left of one when a connection closes.
    """

    def __init__(self, manager: web.Server, *, most: int, **options: Any) -> None:
        """`most`: how many connections there may be, this one among them."""
        super().__init__(manager, **options)
        self._holders, self._most = manager, most
        self._head_timer: asyncio.TimerHandle | None = None
        self._head_begun = False
        self._reader_timer: asyncio.TimerHandle | None = None
        # Of TLS the transport does not know it any more, nor aborts, once it was closed twice.
        self._socket: Any = None

    async def start(self) -> None:
        await super().start()
        if self.transport is not None:
            # Which is closing now, once all that was written is taken.
            self._watch_reader(self.transport)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Else aiohttp's timer for idle connections leaves those alone that have never asked for anything.
        self.keep_alive(True)
        self._socket = transport.get_extra_info("socket")
        super().connection_made(transport)
        if len(self._holders.connections) > self._most:
            self._refuse(problem("OVERLOADED", headers={"Retry-After": "1"}))
            return
        self._start_head_timer()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._stop_head_timer()
        self._leave_reader()
        # Else it would be closed, and watched, once more.
        self.transport = None
        super().connection_lost(exc)

    def force_close(self) -> None:
        transport = self.transport
        super().force_close()
        if transport is not None:
            self._watch_reader(transport)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self.transport is not None:
            self._watch_reader(self.transport)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.transport is not None and not self.transport.is_closing():
            self._leave_reader()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._messages or self._current_request is not None:
            self._stop_head_timer()
            self._head_begun = False
        elif data:
            self._head_begun = True
            if self._head_timer is None:
                self._start_head_timer()

    def _start_head_timer(self) -> None:
        loop = asyncio.get_running_loop()
        self._head_timer = loop.call_later(HEAD_SECONDS, self._too_slow)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _too_slow(self) -> None:
        self._head_timer = None
        if self._head_begun:
            self._refuse(problem("REQUEST_TIMEOUT"))
        else:
            self.force_close()

    def _watch_reader(self, transport: asyncio.WriteTransport) -> None:
        """Begins to look, now and then, whether anything is taken."""
        self._leave_reader()
        loop = asyncio.get_running_loop()
        taken = bytes_taken(transport, self._socket, self._written())
        self._reader_timer = loop.call_later(WRITE_SECONDS, self._look_at_reader, transport, taken)

    def _leave_reader(self) -> None:
        if self._reader_timer is not None:
            self._reader_timer.cancel()
            self._reader_timer = None

    def _look_at_reader(self, transport: asyncio.WriteTransport, before: int) -> None:
        if bytes_taken(transport, self._socket, self._written()) > before:
            self._watch_reader(transport)
        else:
            transport.abort()
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def _written(self) -> int:
        """Bytes of an answer that goes on while it is written; others are written at once."""
        return 0 if self._current_request is None else self._current_request.writer.output_size

    def _refuse(self, told: Problem) -> None:
        """Answers without having been asked, and hangs up."""
        transport = self.transport
        if isinstance(transport, asyncio.WriteTransport):
            transport.write(_bytes_of(told))
        self.force_close()


def _bytes_of(told: Problem) -> bytes:
    """A whole answer of HTTP/1.1, after which the connection ends."""
    body = told.encode()
    headers = {
        **SECURITY_HEADERS,
        **told.headers,
        "Server": SERVER,
        "Content-Type": "application/json; charset=utf-8",
        "Content-Length": str(len(body)),
        "Connection": "close",
    }
    lines = [f"HTTP/1.1 {told.status} Refused", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode("latin-1") + body
