"""Requests that no client library would send."""

import asyncio

import pytest
from gateway.client import Client
from gateway.engine import TOKEN, Engine

# What is tested here lies before the channel: one kind of it will do.
pytestmark = pytest.mark.parametrize("client", ["in process"], indirect=True)

REJECTED = [
    b"NONSENSE\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    b"GET /v1/jobs HTTP/9.9\r\nHost: localhost\r\n\r\n",
    b"GET /v1/jobs HTTP/1.1\r\nHost: localhost\r\nBad Header: x\r\n\r\n",
    b"GET /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n",
    b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"GET /v1/jobs/\x00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET http://[::1/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /healthz\r\n\r\n",
    b"GET /healthz HTTP/2.0\r\nHost: localhost\r\n\r\n",
    b"FOO /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
]


@pytest.mark.parametrize("request_bytes", REJECTED)
async def test_what_is_not_http_gets_our_error_and_no_echo(
    client: Client, engine: Engine, request_bytes: bytes
) -> None:
    answer = await client.raw(request_bytes)
    assert answer.status == 400
    assert answer.json["error_code"] == "E_BAD_REQUEST"
    assert b"NONSENSE" not in answer.body
    assert engine.calls == []


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /" + b"a" * 10_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 10_000 + b"\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + b"X: a\r\n" * 500 + b"\r\n",
    ],
    ids=["line", "field", "count"],
)
async def test_headers_over_the_limit_get_431(client: Client, request_bytes: bytes) -> None:
    answer = await client.raw(request_bytes)
    assert (answer.status, answer.json["error_code"]) == (431, "E_HEADERS_TOO_LARGE")


@pytest.mark.parametrize(
    "line", [b"GET /v1/jobs/\xff HTTP/1.1", b"GET /v1/jobs/\xc3\xbc HTTP/1.1", b"GET /v1/jobs#x HTTP/1.1"]
)
async def test_bytes_that_must_be_encoded_are_refused(client: Client, line: bytes) -> None:
    answer = await client.line(line)
    assert (answer.status, answer.json["error_code"]) == (400, "E_BAD_REQUEST")


async def test_a_target_that_is_no_path_is_refused(client: Client) -> None:
    answer = await client.line(b"OPTIONS * HTTP/1.1")
    assert (answer.status, answer.json["error_code"]) == (400, "E_BAD_REQUEST")


async def test_a_compressed_body_is_inflated_within_the_limit(client: Client, engine: Engine) -> None:
    import gzip

    headers = (b"Content-Type: application/json", b"Content-Encoding: gzip")
    small = gzip.compress(b'{"reason":"r"}')
    answer = await client.line(
        b"POST /v1/jobs/j/cancel HTTP/1.1", *headers, b"Content-Length: %d" % len(small), body=small
    )
    assert answer.status == 200
    assert engine.requests("CancelJob")[0].reason == "r"
    bomb = gzip.compress(b'{"reason":"' + b"x" * 5_000_000 + b'"}')
    answer = await client.line(
        b"POST /v1/jobs/j/cancel HTTP/1.1", *headers, b"Content-Length: %d" % len(bomb), body=bomb
    )
    assert (answer.status, answer.json["error_code"]) == (413, "E_TOO_LARGE")


async def test_a_body_that_is_not_in_its_encoding_is_refused(client: Client) -> None:
    answer = await client.line(
        b"POST /v1/jobs/j/cancel HTTP/1.1", b"Content-Encoding: gzip", b"Content-Length: 2", body=b"{}"
    )
    assert (answer.status, answer.json["error_code"]) == (400, "E_BAD_REQUEST")


async def test_a_client_that_waits_for_100_is_told_to_go_on(client: Client, engine: Engine) -> None:
    answer = await client.line(
        b"POST /v1/jobs/j/cancel HTTP/1.1", b"Expect: 100-continue", b"Content-Length: 2", body=b"{}"
    )
    assert answer.status == 100
    assert b"HTTP/1.1 200 OK" in answer.body


async def test_pipelined_requests_are_answered_in_order(client: Client, engine: Engine) -> None:
    one = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    last = b"GET /nope HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    answer = await client.raw(one + one + last)
    assert answer.status == 200
    assert answer.body.count(b"HTTP/1.1 ") == 2
    assert answer.body.endswith(b"}")


ASK = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nAuthorization: " + TOKEN.encode() + b"\r\n"


@pytest.mark.parametrize("protocol", [b"h2c", b"websocket", b"TLS/1.0, h2c"])
@pytest.mark.parametrize("path", [b"/healthz", b"/nope", b"/v1/jobs/j/logs/tail"])
async def test_an_upgrade_that_is_not_taken_up_ends_the_connection(
    client: Client, engine: Engine, protocol: bytes, path: bytes
) -> None:
    """What comes behind it is of the other protocol: nobody would answer it, and nobody hang up."""
    upgrade = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: " + protocol + b"\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"
    answer = await client.raw(ASK.replace(b"/healthz", path) + upgrade + ASK + b"\r\n")
    assert answer.status == (404 if path == b"/nope" else 200)
    assert answer.headers.getall("Connection") == ["close"]
    assert b"HTTP/1.1" not in answer.body


async def test_a_connect_ends_the_connection(client: Client) -> None:
    answer = await client.raw(ASK.replace(b"GET", b"CONNECT") + b"\r\n" + ASK + b"\r\n")
    assert (answer.status, answer.headers["Connection"]) == (405, "close")
    assert b"HTTP/1.1" not in answer.body


async def test_a_body_that_never_comes_is_not_waited_for(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobledger_gateway.reading.BODY_SECONDS", 0.05)
    reader, writer = await asyncio.open_connection(client.host, client.port)
    head = b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nAuthorization: " + TOKEN.encode()
    writer.write(head + b"\r\nContent-Length: 10\r\n\r\n{")
    assert (await reader.readline()).startswith(b"HTTP/1.1 408 ")
    writer.close()
    await writer.wait_closed()
