"""One server for each module, and the two doors to it."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import grpc
import pytest
from support.doors import Door, GrpcDoor, RestDoor
from support.running import RunningServer, start


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    running = start(tmp_path_factory.mktemp("jobledger") / "data", "--max-running", "4")
    yield running
    running.stop()


@pytest.fixture(params=["grpc", "rest"])
async def door(request: pytest.FixtureRequest, server: RunningServer) -> AsyncIterator[Door]:
    """The server through one door; the test runs through each."""
    if request.param == "grpc":
        async with grpc.aio.insecure_channel(server.target) as channel:
            yield GrpcDoor(channel, server.token)
    else:
        async with aiohttp.ClientSession() as session:
            yield RestDoor(session, server.url, server.token)


@pytest.fixture
async def rest(server: RunningServer) -> AsyncIterator[RestDoor]:
    async with aiohttp.ClientSession() as session:
        yield RestDoor(session, server.url, server.token)


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """A directory that jobs may run in."""
    return tmp_path
