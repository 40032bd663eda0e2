"""Readers of events whose connection is reset again and again: they are told each event once and in order."""

import asyncio
import os
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import aiohttp
import grpc
import pytest
from faults.cutting import CuttingProxy, cutting_proxy
from faults.serving import running_job, serving
from jobledger.v1.job_service_pb2 import WatchEventsRequest
from jobledger.v1.job_service_pb2_grpc import JobServiceStub
from support.doors import GrpcDoor, server_sent
from support.eventually import eventually, pace
from support.running import RunningServer

SECONDS = float(os.environ.get("JOBLEDGER_CUT_SECONDS", "10"))
CUT_EACH, JOB_EACH = 0.1, 0.04


class Reader(ABC):
    """Reads on after each cut with the number of the last event that it has.

    Attributes:
        numbers: of the events, in the order of their arrival.
        connections: how often it came back with an answer.
    """

    def __init__(self, server: RunningServer) -> None:
        self.numbers: list[int] = []
        self.connections = 0
        self.server = server

    async def read(self, address: str) -> None:
        """Goes on reading through a proxy."""
        while True:
            with suppress(OSError, aiohttp.ClientError, grpc.aio.AioRpcError):
                async for number in self._events(address, self.numbers[-1] if self.numbers else 0):
                    self.numbers.append(number)

    @abstractmethod
    def _events(self, address: str, last: int) -> AsyncIterator[int]:
        """The numbers of what follows, through one connection."""


class SseReader(Reader):
    """As a browser does it."""

    async def _events(self, address: str, last: int) -> AsyncIterator[int]:
        # Of a machine's own names, those alone are served that name the server's own port.
        host = self.server.url.removeprefix("http://")
        headers = {"Host": host, "Authorization": f"Bearer {self.server.token}", "Last-Event-ID": str(last)}
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://{address}/v1/stream", headers=headers) as response,
        ):
            assert response.status == 200, await response.text()
            self.connections += 1
            async for event in server_sent(response.content):
                if "id" in event:
                    yield int(event["id"])


class GrpcReader(Reader):
    """As a program does it."""

    async def _events(self, address: str, last: int) -> AsyncIterator[int]:
        metadata = (("authorization", f"Bearer {self.server.token}"),)
        async with grpc.aio.insecure_channel(address, (("grpc.use_local_subchannel_pool", 1),)) as channel:
            call = JobServiceStub(channel).WatchEvents(WatchEventsRequest(resume_from=last), metadata=metadata)
            async for event in call:
                if event.HasField("sequence_number"):
                    yield event.sequence_number
                else:
                    self.connections += 1


def address_of(server: RunningServer, reader: Reader) -> str:
    return server.target if isinstance(reader, GrpcReader) else server.url.removeprefix("http://")


async def make_events(door: GrpcDoor, seconds: float) -> None:
    """Jobs that are created and cancelled while they wait."""
    async with asyncio.timeout(seconds + 60):
        for _ in range(round(seconds / JOB_EACH)):
            job = await door.create("true")
            await door.call("CancelJob", job_id=job["job_id"])
            await pace(JOB_EACH)


async def cut_while(making: "asyncio.Task[None]", proxy: CuttingProxy) -> None:
    """Cuts all connections each 100 ms, while events are made."""
    cutting = asyncio.create_task(proxy.cut_each(CUT_EACH))
    try:
        await making
    finally:
        cutting.cancel()


@pytest.mark.timeout(2 * SECONDS + 120)
async def test_a_reader_that_is_cut_off_each_100_ms_has_each_event_once_and_in_order(tmp_path: Path) -> None:
    """One of each kind, of the same events, each with connections and cuts of its own."""
    async with serving(tmp_path / "data", "--max-running", "1") as (server, door):
        await running_job(door, tmp_path / "never")
        making = asyncio.create_task(make_events(door, SECONDS))
        readers = [kind(server) for kind in (SseReader, GrpcReader)]
        await asyncio.gather(*(has_each_event(reader, door, making) for reader in readers))


async def has_each_event(reader: Reader, door: GrpcDoor, making: "asyncio.Task[None]") -> None:
    """The reader is cut off while events are made, and has all of them in the end."""
    async with cutting_proxy(address_of(reader.server, reader)) as proxy:
        reading = asyncio.create_task(reader.read(proxy.address))
        await cut_while(making, proxy)
        last = (await door.call("GetStatus"))["last_sequence_number"]

        async def newest() -> int:
            assert not reading.done(), reading.exception()
            return reader.numbers[-1] if reader.numbers else 0

        await eventually(newest, until=lambda number: number >= int(last))
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
    print(f"{len(reader.numbers)} events through {reader.connections} connections, {proxy.cuts} cuts")
    assert reader.numbers == list(range(1, len(reader.numbers) + 1))
    assert reader.connections > 1
    assert proxy.cuts > 1
