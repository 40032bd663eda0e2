"""Ways to reach made-up services: on a socket of their own, or within the process."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
from jobledger_server.api.inprocess import InProcessChannel


@asynccontextmanager
async def listening(
    handlers: Sequence[Any], credentials: grpc.ServerCredentials | None = None, at: int = 0
) -> AsyncIterator[str]:
    """The handlers on a port of their own, or `at` one; yields its address."""
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(handlers)
    address = f"127.0.0.1:{at}"
    port = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)


@asynccontextmanager
async def reached(handlers: Sequence[Any], kind: str) -> AsyncIterator[Any]:
    """A channel to the handlers: over a `socket`, or `in process`."""
    if kind == "in process":
        async with InProcessChannel(()) as channel:
            channel.add_generic_rpc_handlers(handlers)
            yield channel
    else:
        async with listening(handlers) as target, grpc.aio.insecure_channel(target) as opened:
            yield opened
