"""Who is at the other end of a unix socket: only one user is let in, before anything is read."""

import asyncio
import socket
import struct
from collections.abc import Callable

# struct ucred: process, user, group.
UCRED = struct.Struct("3i")


class OneUser(asyncio.Protocol):
    """Stands before the handler of a connection, and hands it over if it comes from that user.

    Where the system does not tell (only Linux is asked), the socket's directory has to keep others out.
    """

    def __init__(self, uid: int, handler: Callable[[], asyncio.Protocol]) -> None:
        self._uid = uid
        self._handler = handler

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        uid = peer_uid(transport.get_extra_info("socket"))
        if uid not in (None, self._uid) and isinstance(transport, asyncio.WriteTransport):
            transport.abort()
            return
        handler = self._handler()
        transport.set_protocol(handler)
        handler.connection_made(transport)


def peer_uid(connection: socket.socket) -> int | None:
    """The user who connected; None where the system does not tell."""
    if not hasattr(socket, "SO_PEERCRED"):
        return None
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size)
    uid: int = UCRED.unpack(credentials)[1]
    return uid
