"""Requests whose ends are in dispute: each is refused as a whole, and no second request is found within it."""

import asyncio
from contextlib import suppress

import pytest
from gateway.client import Client
from gateway.engine import TOKEN, Engine

pytestmark = pytest.mark.parametrize("client", ["in process"], indirect=True)

HOST = b"Host: localhost\r\nAuthorization: " + TOKEN.encode() + b"\r\n"
# What would be answered if the bytes of a body were taken for a request.
INNER = b"DELETE /v1/jobs/inner HTTP/1.1\r\n" + HOST + b"\r\n"
POST = b"POST /v1/jobs/j/cancel HTTP/1.1\r\n" + HOST

DISPUTED = {
    "length and chunks": POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + INNER,
    "chunks and length": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n" + INNER,
    "two lengths": POST + b"Content-Length: 0\r\nContent-Length: 2\r\n\r\n{}" + INNER,
    "two lengths alike": POST + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}" + INNER,
    "a list of lengths": POST + b"Content-Length: 2, 2\r\n\r\n{}" + INNER,
    "a signed length": POST + b"Content-Length: +2\r\n\r\n{}" + INNER,
    "a negative length": POST + b"Content-Length: -1\r\n\r\n" + INNER,
    "a length with a blank": POST + b"Content-Length: 1 2\r\n\r\n{}" + INNER,
    "a hexadecimal length": POST + b"Content-Length: 0x2\r\n\r\n{}" + INNER,
    "a blank before the colon": POST + b"Content-Length : 2\r\n\r\n{}" + INNER,
    "a coding that hides": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + INNER,
    "chunks not last": POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + INNER,
    "another coding": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + INNER,
    "chunks before HTTP/1.1": POST.replace(b"HTTP/1.1", b"HTTP/1.0")
    + b"Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    + INNER,
    "chunks twice": POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + INNER,
    "a size that is none": POST + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n{}\r\n0\r\n\r\n" + INNER,
    "a negative size": POST + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n{}\r\n0\r\n\r\n" + INNER,
    "a size too small": POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{}\r\n0\r\n\r\n" + INNER,
    "a folded header": POST + b"X-A: b\r\n Content-Length: 2\r\n\r\n{}" + INNER,
    "a NUL in a header": POST + b"X-A: b\0\r\nContent-Length: 0\r\n\r\n" + INNER,
    "a bare CR in a header": POST + b"X-A: b\rTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n" + INNER,
}


@pytest.mark.parametrize("disputed", DISPUTED.values(), ids=list(DISPUTED))
async def test_a_request_whose_end_is_in_dispute_is_refused_and_hides_no_other(
    client: Client, engine: Engine, disputed: bytes
) -> None:
    answer = await client.raw(disputed)
    assert (answer.status, answer.json["error_code"]) == (400, "E_BAD_REQUEST")
    assert engine.calls == []


TRUNCATED = {
    "a body cut short": POST + b"Content-Length: 20\r\n\r\n{",
    "chunks cut short": POST + b'Transfer-Encoding: chunked\r\n\r\nf\r\n{"reason":',
    "no last chunk": POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
    "a head cut short": b"POST /v1/jobs/j/cancel HTTP/1.1\r\nHost: local",
    "half a line": b"POST /v1/jo",
    "nothing": b"",
}


@pytest.mark.parametrize("truncated", TRUNCATED.values(), ids=list(TRUNCATED))
async def test_a_request_that_ends_early_is_never_carried_out(client: Client, engine: Engine, truncated: bytes) -> None:
    reader, writer = await asyncio.open_connection(client.host, client.port)
    writer.write(truncated)
    writer.write_eof()
    received = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    assert received == b"" or received.startswith(b"HTTP/1.1 400 ")
    assert (await client.get("/healthz")).status == 200
    assert engine.calls == []


async def test_a_flood_of_headers_is_cut_off_and_leaves_others_served(client: Client, engine: Engine) -> None:
    flood = b"GET /healthz HTTP/1.1\r\n" + b"".join(b"X-%d: %s\r\n" % (n, b"a" * 1000) for n in range(2000))
    reader, writer = await asyncio.open_connection(client.host, client.port)
    writer.write(flood)
    assert (await client.get("/healthz")).status == 200
    # What was sent beyond the limit may cost the client the answer.
    with suppress(ConnectionError):
        assert (await asyncio.wait_for(reader.read(), 5))[:13] in {b"", b"HTTP/1.1 431 "}
    writer.close()
    assert engine.calls == []
