"""The addresses at which the server listens, and what to do where one is taken."""

import errno
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
from aiohttp import web
from jobledger_gateway.app import Address, serve

from jobledger_server.access.private_files import open_directory
from jobledger_server.access.server_tls import ServerTls
from jobledger_server.api.tls import server_credentials
from jobledger_server.config import Settings
from jobledger_server.lifecycle import StartError

# What a path of a unix socket may measure, on the strictest of the platforms.
MOST_SOCKET_PATH = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class GrpcAddress:
    """Where gRPC is served: the port, and the path of the unix socket where there is one."""

    port: int
    unix_path: str | None


def bind(server: grpc.aio.Server, settings: Settings, tls: ServerTls | None) -> GrpcAddress:
    """Gives the server its addresses.

    Raises:
        StartError: one is taken.
        PrivateFileError: others may enter the directory of the sockets.
    """
    address = f"{bracketed(settings.host)}:{settings.grpc_port}"
    try:
        if tls is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, server_credentials(lambda: tls.material))
    except RuntimeError:
        raise StartError(_taken("gRPC", settings.host, settings.grpc_port, "--grpc-port")) from None
    path = socket_path(settings, "grpc.sock")
    if path is not None:
        server.add_insecure_port(f"unix:{path}")
    return GrpcAddress(port=port, unix_path=None if path is None else str(path))


def socket_path(settings: Settings, name: str) -> Path | None:
    """Where a unix socket goes; None where there is to be none, or can't.

    Raises:
        StartError: somebody listens there, whatever the lock on the data directory says.
        PrivateFileError: others may enter its directory.
    """
    run = settings.data_dir / "run"
    open_directory(run)
    path = run / name
    if not settings.unix_socket or os.name != "posix" or len(str(path)) > MOST_SOCKET_PATH:
        return None
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        # Whoever binds it takes it away from a server that lives.
        refusal = probe.connect_ex(str(path))
    if refusal in (errno.ENOENT, errno.ECONNREFUSED):
        return path
    raise StartError(f"a server listens on {path}: stop it, or choose another --data-dir")


@asynccontextmanager
async def serving(app: web.Application, settings: Settings, tls: ServerTls | None) -> AsyncIterator[Address]:
    """Serves REST: on its port, and on a unix socket on which only the server's own user is let in.

    Raises:
        StartError: an address is taken.
        PrivateFileError: others may enter the directory of the sockets.
    """
    path = socket_path(settings, "http.sock")
    context = None if tls is None else tls.context
    try:
        async with serve(
            app, host=settings.host, port=settings.http_port, unix_path=path, unix_uid=os.geteuid(), tls=context
        ) as address:
            yield address
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise StartError(_taken("HTTP", settings.host, settings.http_port, "--http-port")) from None


def reachable(host: str) -> str:
    """How clients on this machine call a host that is listened on."""
    return bracketed({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host))  # noqa: S104 - not bound here


def bracketed(host: str) -> str:
    """A host as it stands before a port."""
    return f"[{host}]" if ":" in host else host


def _taken(door: str, host: str, port: int, flag: str) -> str:
    return f"the {door} address {host}:{port} is taken: stop what listens there, or choose another port with {flag}"
