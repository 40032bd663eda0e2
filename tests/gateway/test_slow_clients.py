"""Connections that come to no point, and more of them than there may be."""

import asyncio
from contextlib import suppress

import aiohttp
import pytest
from gateway.client import Client
from gateway.engine import TOKEN, Engine, connected
from jobledger_gateway.app import build_app, serve
from support.eventually import eventually

pytestmark = pytest.mark.parametrize("client", ["in process"], indirect=True)

HOST = b"Host: localhost\r\nAuthorization: " + TOKEN.encode() + b"\r\n"
GET_HEALTH = b"GET /healthz HTTP/1.1\r\n" + HOST + b"\r\n"
POST = b"POST /v1/jobs/j/cancel HTTP/1.1\r\n" + HOST


async def test_a_body_that_drips_is_given_up_at_the_deadline(
    client: Client, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often a byte comes."""
    monkeypatch.setattr("jobledger_gateway.reading.BODY_SECONDS", 0.2)
    reader, writer = await asyncio.open_connection(client.host, client.port)
    writer.write(POST + b"Content-Length: 1000\r\n\r\n")
    answered = asyncio.create_task(reader.readline())
    while not answered.done():
        writer.write(b" ")
        await asyncio.wait([answered], timeout=0.01)
    assert (await answered).startswith(b"HTTP/1.1 408 ")
    writer.close()
    assert engine.requests("CancelJob") == []


@pytest.mark.parametrize(
    ("head", "answer"),
    [(b"", b""), (b"GET /healthz HTTP/1.1\r\nHost: local", b"HTTP/1.1 408 ")],
    ids=["nothing", "half a head"],
)
async def test_a_connection_that_never_says_what_it_wants_is_closed(
    client: Client, engine: Engine, monkeypatch: pytest.MonkeyPatch, head: bytes, answer: bytes
) -> None:
    monkeypatch.setattr("jobledger_gateway.connections.HEAD_SECONDS", 0.1)
    reader, writer = await asyncio.open_connection(client.host, client.port)
    writer.write(head)
    received = await asyncio.wait_for(reader.read(), 5)
    assert (received[:13], bool(received)) == (answer, bool(answer))
    writer.close()


@pytest.mark.parametrize("before", [b"", GET_HEALTH], ids=["first", "second"])
async def test_a_head_that_drips_is_given_up_whichever_request_it_is(
    client: Client, engine: Engine, monkeypatch: pytest.MonkeyPatch, before: bytes
) -> None:
    monkeypatch.setattr("jobledger_gateway.connections.HEAD_SECONDS", 0.2)
    reader, writer = await asyncio.open_connection(client.host, client.port)
    writer.write(before + b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: ")
    received = bytearray()
    reading = asyncio.create_task(_read_into(received, reader))
    async with asyncio.timeout(5):
        while not reading.done():
            writer.write(b"x")
            await asyncio.wait([reading], timeout=0.01)
    writer.close()
    answers = bytes(received).split(b"HTTP/1.1 ")[1:]
    assert [answer[:3] for answer in answers[: bool(before)]] == ([b"200"] if before else [])
    # A byte that comes after the end may cost the client the answer.
    assert [answer[:3] for answer in answers[bool(before) :]] in ([b"408"], [])


async def _read_into(received: bytearray, reader: asyncio.StreamReader) -> None:
    with suppress(ConnectionError):
        while chunk := await reader.read(1024):
            received += chunk


async def test_a_connection_may_idle_between_requests(
    client: Client, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time for a head is not the time between two of them."""
    monkeypatch.setattr("jobledger_gateway.connections.HEAD_SECONDS", 0.05)
    reader, writer = await asyncio.open_connection(client.host, client.port)
    writer.write(GET_HEALTH)
    assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(_until_closed(reader), 0.3)
    writer.write(GET_HEALTH)
    assert (await asyncio.wait_for(reader.readuntil(b"200 OK"), 5)).endswith(b"200 OK")
    writer.close()


async def _until_closed(reader: asyncio.StreamReader) -> None:
    while await reader.read(1024):
        pass


async def test_connections_past_the_bound_are_told_so_and_the_others_are_served(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, client: Client
) -> None:
    monkeypatch.setattr("jobledger_gateway.connections.MOST_CONNECTIONS", 3)
    async with (
        connected(engine, "in process") as channel,
        serve(build_app(channel), host="127.0.0.1", port=0) as address,
        aiohttp.ClientSession(f"http://127.0.0.1:{address.port}") as session,
    ):
        assert (await session.get("/healthz")).status == 200
        held = [await asyncio.open_connection(address.host, address.port) for _ in range(2)]
        reader, writer = await asyncio.open_connection(address.host, address.port)
        refused = await asyncio.wait_for(reader.read(), 5)
        assert refused.startswith(b"HTTP/1.1 429 ")
        assert b"E_OVERLOADED" in refused
        assert b"Retry-After: 1" in refused
        assert (await session.get("/healthz")).status == 200
        for _, other in (*held, (reader, writer)):
            other.close()
            await other.wait_closed()

        async def admitted() -> bool:
            fresh, mine = await asyncio.open_connection(address.host, address.port)
            mine.write(GET_HEALTH)
            line = await asyncio.wait_for(fresh.readline(), 5)
            mine.close()
            return line.startswith(b"HTTP/1.1 200 ")

        await eventually(admitted)
