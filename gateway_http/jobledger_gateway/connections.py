"""Connections: how many there may be, and how long one may take to say what it wants."""

import asyncio
import sys
from typing import Any

from aiohttp import web

from jobledger_gateway.errors import Problem, problem

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
    """Refuses connections beyond a number, and those that don't come to the point.

    aiohttp's own timer is for connections that idle between two requests, and lets the head of a request drip as long.
    """

    def __init__(self, manager: web.Server, *, most: int, **options: Any) -> None:
        """`most`: how many connections there may be, this one among them."""
        super().__init__(manager, **options)
        self._holders, self._most = manager, most
        self._head_timer: asyncio.TimerHandle | None = None
        self._head_begun = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Else aiohttp's timer for idle connections leaves those alone that have never asked for anything.
        self.keep_alive(True)
        super().connection_made(transport)
        if len(self._holders.connections) > self._most:
            self._refuse(problem("OVERLOADED", headers={"Retry-After": "1"}))
            return
        self._start_head_timer()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._stop_head_timer()
        super().connection_lost(exc)

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
