"""A gRPC client that does not read: the flow control of HTTP/2 holds the servicer, so that it costs bounded memory."""

from collections.abc import AsyncIterator, Callable
from operator import attrgetter
from pathlib import Path
from typing import Any

import grpc
import pytest
from jobledger.v1.events_pb2 import Event, Progress
from jobledger.v1.job_pb2 import LogEntry
from jobledger.v1.job_service_pb2 import TailLogsRequest, TailLogsResponse, WatchEventsRequest
from jobledger.v1.job_service_pb2_grpc import (
    JobServiceServicer,
    JobServiceStub,
    add_JobServiceServicer_to_server,
)
from jobledger_server.api.bursts import singly
from jobledger_server.api.grpc_server import OPTIONS
from jobledger_server.core.clock import SystemClock
from jobledger_server.core.policy import Principal
from jobledger_server.service.events import EventHub
from jobledger_server.stores.sqlite import SqliteStore

ANYBODY = Principal(token_id="token", scopes=frozenset({"jobs:read"}))
MANY, PAYLOAD = 2000, "x" * 16 * 1024
# What flow control lets through, and what is on its way: some 5 of 32 MiB.
MOST = MANY // 3


class Counted(JobServiceServicer):
    """Streams of both kinds; `handed` is how many messages gRPC has asked for, by stream."""

    def __init__(self, hub: EventHub) -> None:
        self._hub = hub
        self.handed: list[int] = []

    async def WatchEvents(self, request: WatchEventsRequest, context: Any) -> AsyncIterator[Event]:
        async for event in self._counted(singly(await self._hub.watch(request, ANYBODY), context)):
            yield event

    async def TailLogs(self, request: TailLogsRequest, context: Any) -> AsyncIterator[TailLogsResponse]:
        async for response in self._counted(singly(pages(), context)):
            yield response

    async def _counted(self, messages: AsyncIterator[Any]) -> AsyncIterator[Any]:
        number = len(self.handed)
        self.handed.append(0)
        async for message in messages:
            self.handed[number] += 1
            yield message


async def pages() -> AsyncIterator[list[TailLogsResponse]]:
    """What `Logs.tail` gives for a long log: pages, each when it is asked for."""
    for start in range(1, MANY + 1, 1000):
        numbers = range(start, start + 1000)
        yield [TailLogsResponse(log=LogEntry(job_sequence=number, message=PAYLOAD)) for number in numbers]


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[EventHub]:
    async with SqliteStore(tmp_path / "jobledger.db") as store, EventHub(store=store, clock=SystemClock()) as hub:
        event = Event(event_type="job.progress", progress=Progress(phase=PAYLOAD))
        for _ in range(10):
            await store.append_events([event] * (MANY // 10))
        yield hub


@pytest.fixture
async def servicer(hub: EventHub) -> Counted:
    return Counted(hub)  # type: ignore[abstract]  # the other methods are left unimplemented on purpose


@pytest.fixture
async def stubs(servicer: Counted) -> AsyncIterator[tuple[JobServiceStub, JobServiceStub]]:
    """Two clients with a connection each."""
    server = grpc.aio.server(options=OPTIONS)
    add_JobServiceServicer_to_server(servicer, server)
    target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    own = (("grpc.use_local_subchannel_pool", 1),)
    async with grpc.aio.insecure_channel(target, own) as one, grpc.aio.insecure_channel(target, own) as other:
        yield JobServiceStub(one), JobServiceStub(other)
    await server.stop(0)


async def numbers(call: Any, number_of: Callable[[Any], int]) -> list[int]:
    """The numbers of the messages that come, up to the last one."""
    found: list[int] = []
    while not found or found[-1] != MANY:
        found.append(number_of(await call.read()))
    return found


@pytest.mark.parametrize("method", ["WatchEvents", "TailLogs"])
async def test_who_does_not_read_is_held_delays_nobody_and_misses_nothing(
    servicer: Counted, stubs: tuple[JobServiceStub, JobServiceStub], method: str
) -> None:
    request: Any = WatchEventsRequest(resume_from=0) if method == "WatchEvents" else TailLogsRequest(job_id="job_1")
    number_of: Callable[[Any], int] = attrgetter("sequence_number" if method == "WatchEvents" else "log.job_sequence")
    idle, busy = (getattr(stub, method) for stub in stubs)
    idle_call = idle(request)
    assert number_of(await idle_call.read()) == 1
    assert await numbers(busy(request), number_of) == list(range(1, MANY + 1))
    assert servicer.handed[0] < MOST, "while another one was given all, it was given what fits on the way"
    assert await numbers(idle_call, number_of) == list(range(2, MANY + 1))
    idle_call.cancel()
