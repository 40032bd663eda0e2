"""The rows of the vectors' table in which time matters (S6, S7, S8), in both dialects and over either channel."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from gateway.client import Client, eventually
from gateway.foreign import Recorder, message_class
from gateway.test_vectors import KINDS, answering
from jobledger_gateway.streaming import StreamSettings
from jobledger_gateway.transcoder import Dialect

Change: Any = message_class("vectors.v1.Change")
NDJSON = {"Accept": "application/x-ndjson"}
FOLLOW = "/v1/follow/x"
# Who says nothing is waited for longer than a test may last, unless a test says otherwise.
PATIENT = StreamSettings(ping_seconds=0.05, write_seconds=0.3, begin_seconds=600)


@pytest.fixture(params=[PATIENT])
def settings(request: pytest.FixtureRequest) -> StreamSettings:
    given: StreamSettings = request.param
    return given


@pytest.fixture(params=list(Dialect))
def dialect(request: pytest.FixtureRequest) -> Dialect:
    given: Dialect = request.param
    return given


@pytest.fixture(params=KINDS)
async def client(
    recorder: Recorder, settings: StreamSettings, dialect: Dialect, request: pytest.FixtureRequest
) -> AsyncIterator[Client]:
    async with answering(recorder, request.param, dialect, settings) as opened:
        yield opened


def change(number: int, text: str = "t") -> Any:
    return Change(number=number, kind="made", text=text)


class Held:
    """A stream that says nothing until it is told to."""

    def __init__(self) -> None:
        self.say = asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[Any]:
        await self.say.wait()
        yield change(1)


@pytest.mark.parametrize(
    ("headers", "first", "ping", "rest"),
    [
        ({}, b"retry: 2000\n\n", b": ping\n\n", b"id: 1\n"),
        (NDJSON, b"", b'{"heartbeat":{}}\n', b'{"result":'),
    ],
    ids=["sse", "ndjson"],
)
async def test_a_stream_that_is_accepted_begins_at_once_and_has_a_pulse(
    client: Client, recorder: Recorder, headers: dict[str, str], first: bytes, ping: bytes, rest: bytes
) -> None:
    """S6: nobody has to wait for the first message to know that there is a stream."""
    held = Held()
    recorder.answers["Follow"], recorder.initial_metadata = held, (("x-cost", "5"),)
    async with asyncio.timeout(10), client.session.get(client.base + FOLLOW, headers=headers) as response:
        assert (response.status, response.headers["X-Cost"]) == (200, "5")
        assert await response.content.readexactly(len(first + ping + ping)) == first + ping + ping
        held.say.set()
        assert rest in await response.content.read()


@pytest.mark.parametrize(
    "settings", [StreamSettings(ping_seconds=0.05, begin_seconds=0.1)], indirect=True, ids=["begins"]
)
async def test_a_stream_begins_although_its_service_says_nothing(client: Client, recorder: Recorder) -> None:
    """S6, of gRPC servers that send initial metadata with the first message, as they do where nobody makes them."""
    held = Held()
    recorder.answers["Follow"] = held
    async with asyncio.timeout(10), client.session.get(client.base + FOLLOW) as response:
        assert response.status == 200
        assert await response.content.readuntil(b": ping\n\n") == b"retry: 2000\n\n: ping\n\n"
        held.say.set()
        assert (await response.content.read()).endswith(b"event: end\ndata: {}\n\n")


async def test_a_call_ends_within_a_tenth_of_a_second_of_its_client(client: Client, recorder: Recorder) -> None:
    """S7. The best of some tries: a machine that is busy elsewhere may take longer."""

    async def endless() -> AsyncIterator[Any]:
        yield change(1)
        await asyncio.Event().wait()

    taken = []
    for tries in range(1, 4):
        recorder.answers["Follow"] = endless()
        async with client.session.get(client.base + FOLLOW) as response:
            await response.content.readuntil(b"event: made")
            response.close()
        began = time.monotonic()
        await eventually(lambda tries=tries: recorder.ended == tries)  # type: ignore[misc]
        taken.append(time.monotonic() - began)
    assert min(taken) < 0.1


async def test_a_reader_that_takes_nothing_holds_few_messages_and_is_cut_off(
    client: Client, recorder: Recorder
) -> None:
    """S8: what waits for it is bounded by the buffers between, not by what the service has to say."""
    produced = 0

    async def flood() -> AsyncIterator[Any]:
        nonlocal produced
        for number in range(1, 100_000):
            produced = number
            yield change(number, "x" * 50_000)

    recorder.answers["Follow"] = flood()
    connection = socket.create_connection((client.host, client.port))
    try:
        connection.sendall(b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n" % FOLLOW.encode())
        await eventually(lambda: recorder.ended == 1, within=10)
    finally:
        connection.close()
    assert 1 < produced < 1000
