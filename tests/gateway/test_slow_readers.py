"""A reader that does not keep up with events, through the gateway and the channel within the process."""

import asyncio
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from gateway.client import eventually
from jobledger.v1.events_pb2 import Event
from jobledger.v1.job_service_pb2 import WatchEventsRequest
from jobledger.v1.job_service_pb2_grpc import JobServiceServicer, add_JobServiceServicer_to_server
from jobledger_gateway.app import Address, GatewayOptions, build_app, serve
from jobledger_gateway.streaming import StreamSettings
from jobledger_server.api.bursts import singly
from jobledger_server.api.inprocess import InProcessChannel
from jobledger_server.core.clock import SystemClock
from jobledger_server.core.policy import Principal
from jobledger_server.service.events import EventHub
from jobledger_server.stores.sqlite import SqliteStore
from support.records import a_record, state_changed

ANYBODY = Principal(token_id="token", scopes=frozenset({"jobs:read"}))
# More than the buffers of the kernel take.
MANY = 40_000
NUMBERED = re.compile(rb"\nid: ([0-9]+)\ndata: [^\n]+\n\n")


class Watching(JobServiceServicer):
    """Events alone, for anybody."""

    def __init__(self, hub: EventHub) -> None:
        self._hub = hub

    async def WatchEvents(self, request: WatchEventsRequest, context: Any) -> AsyncIterator[Event]:
        async for events in singly(await self._hub.watch(request, ANYBODY, push=context.push), context):
            yield events


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    async with SqliteStore(tmp_path / "jobledger.db") as store:
        yield store


@pytest.fixture
async def hub(store: SqliteStore) -> AsyncIterator[EventHub]:
    async with EventHub(store=store, clock=SystemClock()) as hub:
        yield hub


@asynccontextmanager
async def gateway(hub: EventHub, *, write_seconds: float) -> AsyncIterator[Address]:
    """One that cuts off who takes nothing for so long."""
    options = GatewayOptions(auth_probe="", streams=StreamSettings(write_seconds=write_seconds))
    async with InProcessChannel(()) as channel:
        watching = Watching(hub)  # type: ignore[abstract]  # the other methods are left unimplemented on purpose
        add_JobServiceServicer_to_server(watching, cast("grpc.aio.Server", channel))
        app = build_app(cast("grpc.aio.Channel", channel), options=options)
        async with serve(app, host="127.0.0.1", port=0, drain_seconds=0.5) as address:
            yield address


async def opened(address: Address, last: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A stream from there on, by a reader whose own buffers are small."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect((address.host, address.port))
    reader, writer = await asyncio.open_connection(sock=connection, limit=4096)
    writer.write(f"GET /v1/stream HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: {last}\r\n\r\n".encode())
    return reader, writer


async def numbers_of(reader: asyncio.StreamReader, last: int) -> list[int]:
    """Numbers of the events that come, until that one or until the connection breaks."""
    numbers, held = list[int](), b""
    while not numbers or numbers[-1] != last:
        try:
            received = await reader.read(65536)
        except ConnectionError:
            break
        if not received:
            break
        # What frames the chunks of HTTP stands between events, or at their edges where several come in one.
        held += received
        found = list(NUMBERED.finditer(held))
        numbers += [int(match[1]) for match in found]
        held = held[found[-1].end() - 2 :] if found else held
    return numbers


async def append_many(store: SqliteStore) -> None:
    record = a_record()
    for _ in range(20):
        await store.append_events([state_changed(record)] * (MANY // 20))


@pytest.mark.parametrize("live", [False, True])
async def test_a_reader_that_takes_nothing_is_cut_off_and_misses_nothing_when_it_comes_back(
    hub: EventHub, store: SqliteStore, *, live: bool
) -> None:
    if not live:
        await append_many(store)
    async with gateway(hub, write_seconds=0.5) as address:
        reader, writer = await opened(address, 0)
        await eventually(lambda: hub.watchers == 1)
        if live:
            await append_many(store)
        await eventually(lambda: hub.watchers == 0)
        first = await numbers_of(reader, MANY)
        writer.close()
    assert 0 < len(first) < MANY
    # This one reads, at whatever pace the machine has: it is not to be cut off.
    async with gateway(hub, write_seconds=60) as address:
        reader, writer = await opened(address, first[-1])
        rest = await numbers_of(reader, MANY)
        writer.close()
    assert first + rest == list(range(1, MANY + 1))
