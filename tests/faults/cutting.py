"""A proxy that resets its connections."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from support.eventually import pace

READ_SIZE = 64 * 1024
# SO_LINGER on, for no time: closing sends a reset, and what was not sent yet is lost.
RESET = struct.pack("ii", 1, 0)


class CuttingProxy:
    """Passes bytes on in both directions, until all its connections are cut.

    Attributes:
        address: where it listens, `host:port`.
        cuts: connections that were cut.
    """

    def __init__(self, host: str, port: int) -> None:
        self.address = ""
        self.cuts = 0
        self._target = (host, port)
        self._open: set[asyncio.StreamWriter] = set()

    async def pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serves a connection."""
        try:
            server_reader, server_writer = await asyncio.open_connection(*self._target)
        except OSError:
            _reset(writer)
            return
        self._open |= {writer, server_writer}
        ways = asyncio.gather(_pump(reader, server_writer), _pump(server_reader, writer))
        try:
            await ways
        finally:
            self._open -= {writer, server_writer}
            _reset(writer)
            _reset(server_writer)

    def cut(self) -> None:
        """Resets all connections, to the client and to the server."""
        self.cuts += len(self._open) // 2
        for writer in self._open:
            _reset(writer)

    async def cut_each(self, seconds: float) -> None:
        """Goes on cutting."""
        while True:
            await pace(seconds)
            self.cut()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(READ_SIZE):
            writer.write(data)
            await writer.drain()
    _reset(writer)


def _reset(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    if connection.fileno() != -1:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()


@asynccontextmanager
async def cutting_proxy(target: str) -> AsyncIterator[CuttingProxy]:
    """A proxy before `host:port`."""
    host, port = target.split(":")
    proxy = CuttingProxy(host, int(port))
    server = await asyncio.start_server(proxy.pass_on, "127.0.0.1", 0)
    async with server:
        proxy.address = "{}:{}".format(*server.sockets[0].getsockname())
        yield proxy
        proxy.cut()
