"""Bodies on their way in: who may send one, in which encoding, and how many bytes of them are held at a time."""

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from unittest.mock import Mock

import pytest
from gateway.client import Client, parse
from gateway.engine import TOKEN, Engine, connected
from jobledger_gateway.app import build_app, serve
from jobledger_gateway.reading import MOST_MEMBERS

pytestmark = pytest.mark.parametrize("client", ["in process"], indirect=True)

LARGE = 1_000_000
CANCEL = b"POST /v1/jobs/j/cancel HTTP/1.1"
TEN, TEN_CHUNKED = b"Content-Length: 10", b"Transfer-Encoding: chunked"
WRONG = b"Authorization: Bearer jl_wrong"
SENT = b'{"reason":"r"}'
GZIP = gzip.compress(SENT, mtime=0)


@asynccontextmanager
async def begin(
    client: Client, *headers: bytes, line: bytes = CANCEL, body: bytes = b""
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A request whose body has not come to its end."""
    reader, writer = await asyncio.open_connection(client.host, client.port)
    try:
        writer.write(b"\r\n".join([line, b"Host: localhost", *headers, b"", b""]) + body)
        yield reader, writer
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def head(reader: asyncio.StreamReader) -> bytes:
    return await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)


@pytest.mark.parametrize(
    ("credential", "length", "body", "code"),
    [
        ((), TEN, b"", "AUTH_MISSING"),
        ((), TEN_CHUNKED, b"a\r\n", "AUTH_MISSING"),
        ((b"Authorization: Basic eDp5",), TEN, b"", "AUTH_INVALID"),
        ((b"Authorization: Bearer a", b"Authorization: Bearer b"), TEN, b"", "AUTH_INVALID"),
        ((WRONG,), b"Content-Length: %d" % LARGE, b"", "AUTH_INVALID"),
        ((WRONG,), b"Transfer-Encoding: chunked", b"80000\r\n" + b" " * 20_000, "AUTH_INVALID"),
    ],
    ids=["none", "none, in chunks", "another scheme", "two", "a wrong one", "a wrong one, in chunks"],
)
async def test_a_stranger_is_refused_before_a_body_is_waited_for(
    client: Client, engine: Engine, credential: tuple[bytes, ...], length: bytes, body: bytes, code: str
) -> None:
    async with begin(client, *credential, length, body=body) as (reader, _):
        answer = parse(await asyncio.wait_for(reader.read(), 10))
    assert (answer.status, answer.json["error_code"]) == (401, f"E_{code}")
    assert [call.method for call in engine.calls] == ["WhoAmI"]


async def test_a_stranger_is_refused_by_what_comes_in_however_little_it_inflates_to(
    client: Client, engine: Engine
) -> None:
    """A stored block of deflate without a byte in it has five."""
    nothing = zlib.compressobj(wbits=31).flush()[:10] + b"\0\0\0\xff\xff" * 4000
    headers = (WRONG, TEN_CHUNKED, b"Content-Encoding: gzip")
    async with begin(client, *headers, body=b"%x\r\n" % LARGE + nothing) as (reader, _):
        answer = parse(await asyncio.wait_for(reader.read(), 10))
    assert (answer.status, answer.json["error_code"]) == (401, "E_AUTH_INVALID")
    assert [call.method for call in engine.calls] == ["WhoAmI"]


@pytest.mark.parametrize("length", [b"Content-Length: 16000", TEN_CHUNKED])
async def test_a_body_of_more_members_than_anybody_sends_is_refused_at_the_first_past_them(
    client: Client, monkeypatch: pytest.MonkeyPatch, length: bytes
) -> None:
    """Each costs a state of its own, and a copy of what is behind it, whether or not it has anything in it."""
    inflate = Mock(wraps=zlib.decompressobj)
    monkeypatch.setattr(zlib, "decompressobj", inflate)
    body = gzip.compress(b"", mtime=0) * 800
    headers = (WRONG, length, b"Content-Encoding: gzip", b"Connection: close")
    async with begin(client, *headers, body=body if b"16000" in length else b"3e80\r\n" + body) as (reader, _):
        answer = parse(await asyncio.wait_for(reader.read(), 10))
    assert (answer.status, answer.json["error_code"], inflate.call_count) == (401, "E_AUTH_INVALID", MOST_MEMBERS)


async def test_what_comes_in_is_counted_however_little_it_inflates_to(
    client: Client, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobledger_gateway.reading.MOST_BYTES", LARGE // 10)
    token = b"Authorization: " + TOKEN.encode()
    async with connected(engine, "in process") as channel, serve(build_app(channel), host="127.0.0.1", port=0) as at:
        narrow = Client(client.session, at.host, at.port)
        nothing = zlib.compressobj(wbits=31).flush()[:10] + b"\0\0\0\xff\xff" * (LARGE // 6)
        headers = (token, b"Content-Length: %d" % LARGE, b"Content-Encoding: gzip")
        async with begin(narrow, *headers, body=nothing) as (reader, _):
            assert (await head(reader)).startswith(b"HTTP/1.1 429 ")


@pytest.mark.parametrize(
    ("line", "headers", "status"),
    [
        (b"POST /nope HTTP/1.1", (b"Content-Length: 10",), 404),
        (b"PUT /v1/jobs HTTP/1.1", (b"Content-Length: 10",), 405),
        (CANCEL, (b"Content-Length: 2000000",), 413),
        (CANCEL, (b"Content-Length: 10", b"Content-Encoding: br"), 415),
    ],
)
async def test_what_the_head_decides_is_told_before_a_body_is_asked_for(
    client: Client, engine: Engine, line: bytes, headers: tuple[bytes, ...], status: int
) -> None:
    token = b"Authorization: " + TOKEN.encode()
    async with begin(client, token, *headers, b"Expect: 100-continue", line=line) as (reader, _):
        assert (await head(reader)).startswith(b"HTTP/1.1 %d " % status)


async def test_large_bodies_past_the_room_are_put_off_and_small_ones_are_not(
    client: Client, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobledger_gateway.reading.MOST_BYTES", LARGE)
    token, length = b"Authorization: " + TOKEN.encode(), b"Content-Length: %d" % LARGE
    async with (
        connected(engine, "in process") as channel,
        serve(build_app(channel), host="127.0.0.1", port=0) as at,
        AsyncExitStack() as held,
    ):
        narrow = Client(client.session, at.host, at.port)
        both = [await held.enter_async_context(begin(narrow, token, length, body=b" " * (LARGE - 1))) for _ in range(2)]
        answers = [asyncio.create_task(head(reader)) for reader, _ in both]
        done, waiting = await asyncio.wait(answers, timeout=10, return_when=asyncio.FIRST_COMPLETED)
        (refused,) = done
        assert refused.result().startswith(b"HTTP/1.1 429 ")
        assert b"Retry-After: 1" in refused.result()
        assert (await narrow.post("/v1/jobs/j/cancel", json={})).status == 200
        # What was held for one that is gone is free again.
        for _, writer in both:
            writer.write(b"}")
        (other,) = waiting
        assert (await other).startswith(b"HTTP/1.1 400 ")
        large = {"reason": "r" * (LARGE - 100)}
        assert (await narrow.post("/v1/jobs/j/cancel", json=large)).status == 200


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("gzip", GZIP),
        ("x-gzip", GZIP),
        ("GZIP", GZIP),
        ("identity, gzip", GZIP),
        ("gzip", gzip.compress(SENT[:5], mtime=0) + gzip.compress(SENT[5:], mtime=0)),
        ("gzip", GZIP + gzip.compress(b"", mtime=0) * (MOST_MEMBERS - 1)),
        ("deflate", zlib.compress(SENT)),
        ("deflate", zlib.compress(SENT)[2:-4]),
        ("identity", SENT),
    ],
)
async def test_a_body_is_read_in_the_encodings_that_are_named(
    client: Client, engine: Engine, coding: str, body: bytes
) -> None:
    headers = {"Content-Encoding": coding, "Content-Type": "application/json"}

    async def bit_by_bit() -> AsyncIterator[bytes]:
        for at in range(0, len(body), 3):
            yield body[at : at + 3]

    for data in (body, bit_by_bit()):
        answer = await client.post("/v1/jobs/j/cancel", data=data, headers=headers)
        assert answer.status == 200, answer.body
    assert [request.reason for request in engine.requests("CancelJob")] == ["r", "r"]


@pytest.mark.parametrize("coding", ["foo", "compress", "br", "zstd", "gzip, gzip", "gzip, foo"])
async def test_any_other_encoding_is_told_which_there_are(client: Client, engine: Engine, coding: str) -> None:
    raw = (b"Content-Encoding: " + coding.encode(), b"Content-Length: %d" % len(SENT))
    answer = await client.line(CANCEL, *raw, body=SENT)
    assert (answer.status, answer.json["error_code"]) == (415, "E_UNSUPPORTED_MEDIA_TYPE")
    assert answer.headers["Accept-Encoding"] == "gzip, deflate"
    assert engine.requests("CancelJob") == []


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        *(("gzip", GZIP[:-cut]) for cut in (1, 6, 8, 12)),
        ("gzip", GZIP + b"more"),
        ("gzip", GZIP + gzip.compress(b"", mtime=0) * MOST_MEMBERS),
        ("deflate", zlib.compress(SENT)[:-1]),
        ("deflate", zlib.compress(SENT) + b"more"),
    ],
)
async def test_a_body_that_is_not_whole_in_its_encoding_is_refused(
    client: Client, engine: Engine, coding: str, body: bytes
) -> None:
    raw = (b"Content-Encoding: " + coding.encode(), b"Content-Length: %d" % len(body))
    answer = await client.line(CANCEL, *raw, body=body)
    assert (answer.status, answer.json["error_code"]) == (400, "E_BAD_REQUEST")
    assert engine.requests("CancelJob") == []
