"""Serving an application on sockets, with our own answers where HTTP itself is broken."""

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from aiohttp.streams import EMPTY_PAYLOAD
from aiohttp.web_protocol import RequestPayloadError, _ErrInfo

from jobledger_gateway.connections import SECURITY_HEADERS, SERVER, BoundedHandler, most_connections
from jobledger_gateway.errors import Problem, internal, problem
from jobledger_gateway.http_syntax import HeadError, fault_of
from jobledger_gateway.unix_peers import OneUser
from jobledger_gateway.writing import is_under_way

# Below the idle timeouts of common proxies, so that it is never they who find a connection closed.
KEEPALIVE_SECONDS = 75.0
# How long calls may take to finish at a shutdown.
DRAIN_SECONDS = 10.0
# Connections that may wait to be accepted, where the system allows so many: thousands of readers come back at once.
BACKLOG = 4096
# How long the rest of a refused body is read on, so that the client gets to see the answer.
LINGER_SECONDS = 2.0
# How long the handshake of TLS may take.
HANDSHAKE_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where an application is served. `port` is the one that was bound, where 0 was asked for."""

    host: str
    port: int
    unix_path: Path | None = None


class JsonRequestHandler(BoundedHandler):
    """Answers requests that are not HTTP in the shape of every other error, and without echoing them."""

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        # What came just now waits here until the loop is free: nothing of it is answered yet.
        for at, (message, _) in enumerate(self._messages):
            fault = None if isinstance(message, _ErrInfo) else fault_of(message)
            if fault is not None:
                self._messages[at] = (_ErrInfo(status=400, exc=fault, message=fault.message), EMPTY_PAYLOAD)

    def log_exception(self, *args: Any, **options: Any) -> None:
        """Logs, but not that a client sent a body which can't be read: it was told, and could fill the log."""
        if not isinstance(options.get("exc_info"), RequestPayloadError):
            super().log_exception(*args, **options)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - aiohttp's signature; the text quotes the request
    ) -> web.StreamResponse:
        if is_under_way(request) or request.writer.output_size > 0:
            raise ConnectionAbortedError("an answer was under way already")
        told = _told(status, exc)
        response = web.Response(
            status=told.status,
            body=told.encode(),
            content_type="application/json",
            headers={**SECURITY_HEADERS, "Server": SERVER},
        )
        response.force_close()
        return response


def _told(status: int, cause: BaseException | None) -> Problem:
    if isinstance(cause, LineTooLong):
        return problem("HEADERS_TOO_LARGE")
    if isinstance(cause, HeadError):
        return problem("BAD_REQUEST", cause.message)
    if isinstance(cause, HttpProcessingError):
        too_many = "too many headers" in cause.message.lower()
        return problem("HEADERS_TOO_LARGE") if too_many else problem("BAD_REQUEST", "The request is not valid HTTP")
    if status < 500:
        return problem("BAD_REQUEST", "The request is not valid HTTP")
    return internal(cause or RuntimeError(f"HTTP status {status}"))


@asynccontextmanager
async def serve(
    app: web.Application,
    *,
    host: str,
    port: int,
    unix_path: Path | None = None,
    unix_uid: int | None = None,
    tls: ssl.SSLContext | None = None,
    drain_seconds: float = DRAIN_SECONDS,
) -> AsyncIterator[Address]:
    """Serves until the context ends; then takes no more, lets calls finish, and ends streams with an error.

    Args:
        host, port: where to listen; port 0 for a free one.
        unix_path: a unix socket to listen on too, never with TLS.
        unix_uid: the one user who may connect to it; None for any.
        drain_seconds: how long calls may take to finish.

    Raises:
        OSError: the address can't be bound.
    """
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=drain_seconds)
    await runner.setup()
    protocol = _protocol_of(runner)
    listeners: list[asyncio.Server] = []
    try:
        listeners.append(await _listen(protocol, (host, port), tls))
        if unix_path is not None:
            listeners.append(await _listen_on_unix(protocol, unix_path, unix_uid))
        bound_host, bound_port = listeners[0].sockets[0].getsockname()[:2]
        yield Address(host=bound_host, port=bound_port, unix_path=unix_path)
    finally:
        for listener in listeners:
            listener.close()
        await runner.cleanup()
        if unix_path is not None:
            unix_path.unlink(missing_ok=True)  # noqa: ASYNC240 - one system call, at the end


def _protocol_of(runner: web.AppRunner) -> Callable[[], web.RequestHandler]:
    """What makes the handler of a connection."""
    loop, manager = asyncio.get_running_loop(), runner.server
    if manager is None:
        raise RuntimeError("aiohttp's runner has no server after its setup")
    most = most_connections()

    def protocol() -> web.RequestHandler:
        return JsonRequestHandler(
            manager,
            most=most,
            loop=loop,
            keepalive_timeout=KEEPALIVE_SECONDS,
            lingering_time=LINGER_SECONDS,
            access_log=None,
            # Bodies are inflated where they are read: aiohttp takes an encoding that it does not know for none.
            auto_decompress=False,
        )

    return protocol


async def _listen(
    protocol: Callable[[], web.RequestHandler], address: tuple[str, int], tls: ssl.SSLContext | None
) -> asyncio.Server:
    listener = await asyncio.get_running_loop().create_server(
        protocol, *address, ssl=tls, ssl_handshake_timeout=HANDSHAKE_SECONDS if tls else None, reuse_address=True
    )
    _widen_backlog(listener)
    return listener


async def _listen_on_unix(protocol: Callable[[], web.RequestHandler], path: Path, uid: int | None) -> asyncio.Server:
    admitted = protocol if uid is None else lambda: OneUser(uid, protocol)
    listener = await asyncio.get_running_loop().create_unix_server(admitted, str(path))
    _widen_backlog(listener)
    return listener


def _widen_backlog(listener: asyncio.Server) -> None:
    """Not by asyncio's argument: it tries as often in a row to accept, and logs as often that it has no descriptors."""
    for listening in listener.sockets:
        with socket.socket(fileno=os.dup(listening.fileno())) as same:
            same.listen(BACKLOG)
