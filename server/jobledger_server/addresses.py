"""The addresses at which the server listens, and what to do where one is taken."""

import errno
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
from aiohttp import web
from jobledger_gateway.app import Address, serve

from jobledger_server.config import Settings
from jobledger_server.lifecycle import StartError

# What a path of a unix socket may measure, on the strictest of the platforms.
MOST_SOCKET_PATH = 100


def bind(server: grpc.aio.Server, settings: Settings) -> tuple[int, str | None]:
    """Gives the server its addresses: the port, and the path of the unix socket where there is one."""
    try:
        port = server.add_insecure_port(f"{bracketed(settings.host)}:{settings.grpc_port}")
    except RuntimeError:
        raise StartError(_taken("gRPC", settings.host, settings.grpc_port, "--grpc-port")) from None
    run = settings.data_dir / "run"
    run.mkdir(mode=0o700, exist_ok=True)
    path = str(run / "grpc.sock")
    if not settings.unix_socket or os.name != "posix" or len(path) > MOST_SOCKET_PATH:
        return port, None
    server.add_insecure_port(f"unix:{path}")
    return port, path


@asynccontextmanager
async def serving(app: web.Application, settings: Settings) -> AsyncIterator[Address]:
    try:
        async with serve(app, host=settings.host, port=settings.http_port) as address:
            yield address
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise StartError(_taken("HTTP", settings.host, settings.http_port, "--http-port")) from None


def bracketed(host: str) -> str:
    """A host as it stands before a port."""
    return f"[{host}]" if ":" in host else host


def _taken(door: str, host: str, port: int, flag: str) -> str:
    return f"the {door} address {host}:{port} is taken: stop what listens there, or choose another port with {flag}"
