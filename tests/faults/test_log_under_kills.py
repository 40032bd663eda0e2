"""The server dies while a job writes 200,000 lines a second: what is kept and what is read is complete and in order."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import grpc
import pytest
from jobledger.v1.job_pb2 import LOG_LEVEL_WARN
from jobledger.v1.job_service_pb2 import GetLogContentRequest, GetLogsRequest, TailLogsRequest
from jobledger.v1.job_service_pb2_grpc import JobServiceStub
from support.doors import GrpcDoor
from support.eventually import eventually, pace
from support.running import RunningServer, start

KILLS = int(os.environ.get("JOBLEDGER_LOG_KILLS", "2"))
# Numbered lines at a steady rate until a file is there; then their number goes to it. One of 2,000 is a warning.
WRITER = """
import os, pathlib, sys, time
gate, count, began = pathlib.Path(os.environ["GATE"]), 0, time.monotonic()
while not gate.exists():
    block = b"".join(b"line %d\\n" % number for number in range(count + 1, count + 2000))
    sys.stdout.buffer.write(block + b'{"level":"warn","message":"line %d"}\\n' % (count + 2000))
    sys.stdout.buffer.flush()
    count += 2000
    time.sleep(max(0, began + count / 200_000 - time.monotonic()))
gate.write_text(f"{count} {count / (time.monotonic() - began):.0f}")
"""


def line(number: int) -> bytes:
    if number % 2000 == 0:
        return b'{"level":"warn","message":"line %d"}\n' % number
    return b"line %d\n" % number


class Reader:
    """Follows a job's warnings, and comes back with the last number after each crash.

    Attributes:
        numbers: of the entries, in the order of their arrival.
        connections: calls that gave an entry.
        ended: whether it was told of the log's end, and with which number.
    """

    def __init__(self, server: RunningServer, job_id: str) -> None:
        self.server = server
        self.numbers: list[int] = []
        self.connections = 0
        self.ended = 0
        self._job_id = job_id

    async def read(self) -> None:
        while not self.ended:
            with suppress(grpc.aio.AioRpcError):
                async for number in self._entries(self.numbers[-1] if self.numbers else 0):
                    self.numbers.append(number)
            await pace(0.02)

    async def _entries(self, last: int) -> AsyncIterator[int]:
        request = TailLogsRequest(job_id=self._job_id, after_sequence=last, level=[LOG_LEVEL_WARN])
        metadata = (("authorization", f"Bearer {self.server.token}"),)
        async with grpc.aio.insecure_channel(self.server.target) as channel:
            counted = False
            async for response in JobServiceStub(channel).TailLogs(request, metadata=metadata):
                if response.HasField("end"):
                    self.ended = response.end.last_sequence
                    return
                self.connections += not counted
                counted = True
                yield response.log.job_sequence

    async def has_more_than(self, count: int) -> None:
        async def seen() -> int:
            return len(self.numbers)

        await eventually(seen, until=lambda found: found > count, seconds=60)


@pytest.mark.timeout(120 + 60 * KILLS)
async def test_a_log_is_complete_and_in_order_though_the_server_is_killed_while_it_is_written(tmp_path: Path) -> None:
    data_dir, gate = tmp_path / "data", tmp_path / "gate"
    server = start(data_dir)
    try:
        async with grpc.aio.insecure_channel(server.target) as channel:
            door = GrpcDoor(channel, server.token)
            job_id = str((await door.create(sys.executable, "-c", WRITER, env={"GATE": str(gate)}))["job_id"])
        reader = Reader(server, job_id)
        reading = asyncio.create_task(reader.read())
        for _ in range(KILLS):
            await reader.has_more_than(len(reader.numbers) + 20)
            server.kill()
            reader.server = server = await asyncio.to_thread(start, data_dir)
        await reader.has_more_than(len(reader.numbers) + 20)
        gate.touch()
        await asyncio.wait_for(reading, 60)
        count, rate = map(int, gate.read_text().split())
        print(f"{count} lines, {rate} a second, {KILLS} kills")
        assert reader.numbers == list(range(2000, count + 1, 2000))
        assert (reader.ended, reader.connections) == (count, KILLS + 1)
        await _assert_complete(server, job_id, count)
        assert server.stop() == 0
    finally:
        gate.touch()
        server.kill()


async def _assert_complete(server: RunningServer, job_id: str, count: int) -> None:
    metadata = (("authorization", f"Bearer {server.token}"),)
    async with grpc.aio.insecure_channel(server.target) as channel:
        stub = JobServiceStub(channel)
        content = bytearray()
        async for body in stub.GetLogContent(GetLogContentRequest(job_id=job_id), metadata=metadata):
            content += body.data
        assert bytes(content) == b"".join(map(line, range(1, count + 1)))
        for offset in range(0, count, count // 7):
            page = await stub.GetLogs(GetLogsRequest(job_id=job_id, offset=offset), metadata=metadata)
            assert page.total == count
            assert [(entry.job_sequence, entry.message) for entry in page.logs] == [
                (number, f"line {number}") for number in range(offset + 1, min(count, offset + 1000) + 1)
            ]
