"""What passes from headers to metadata, and who may call from where."""

import pytest
from gateway.client import Client, eventually
from gateway.engine import TOKEN, Engine


async def test_only_what_is_on_the_list_passes(client: Client, engine: Engine) -> None:
    headers = {
        "traceparent": "00-1-2-03",
        "X-Request-ID": "r1",
        "Cookie": "a=b",
        "X-Forwarded-For": "1.2.3.4",
        "x-jobledger-peer": "6.6.6.6",
        "grpc-status": "0",
    }
    await client.get("/v1/jobs", headers=headers)
    call = engine.call("ListJobs")
    assert call.values("authorization") == [TOKEN]
    assert call.values("traceparent") == ["00-1-2-03"]
    assert call.values("x-request-id") == ["r1"]
    assert call.peer == "127.0.0.1"
    assert {key for key, _ in call.metadata} <= {
        "authorization", "traceparent", "x-request-id", "x-jobledger-peer", "user-agent",
    }  # fmt: skip


async def test_the_server_sees_every_authorization_header(client: Client, engine: Engine) -> None:
    answer = await client.line(b"GET /v1/jobs HTTP/1.1", b"Authorization: Bearer other")
    assert answer.status == 401
    assert engine.call("ListJobs").values("authorization") == [TOKEN, "Bearer other"]


@pytest.mark.parametrize("token", [b"Bearer \xff\xfe", "Bearer é".encode(), b"Bearer\ta"])
@pytest.mark.parametrize("path", [b"/v1/jobs", b"/nope"])
async def test_credentials_that_metadata_can_not_carry_are_malformed(
    client: Client, engine: Engine, token: bytes, path: bytes
) -> None:
    answer = await client.line(b"GET " + path + b" HTTP/1.1", b"Authorization: " + token, token=False)
    assert (answer.status, answer.json["error_code"]) == (401, "E_AUTH_MALFORMED")
    assert engine.calls == []


async def test_a_long_token_reaches_the_server(client: Client, engine: Engine) -> None:
    """Tokens of identity providers are: it is the server that says how long one may be."""
    token = "Bearer " + "x" * 7000
    assert (await client.line(b"GET /v1/jobs HTTP/1.1", b"Authorization: " + token.encode(), token=False)).status == 401
    assert engine.call("ListJobs").values("authorization") == [token]


async def test_other_headers_that_are_not_ascii_are_dropped(client: Client, engine: Engine) -> None:
    answer = await client.line(b"GET /v1/jobs HTTP/1.1", b"X-Request-ID: \xff", b"tracestate: a\xc3\xa9")
    assert answer.status == 200
    assert engine.call("ListJobs").values("x-request-id") == []


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Grpc-Timeout": "5S"}, 5),
        ({"Grpc-Timeout": "1500m"}, 1.5),
        ({"X-Request-Timeout": "2.5"}, 2.5),
        ({"Grpc-Timeout": "5S", "X-Request-Timeout": "3"}, 3),
        ({"Grpc-Timeout": "99999999H"}, 330),
        ({}, 330),
    ],
)
async def test_a_deadline_goes_along(client: Client, engine: Engine, headers: dict[str, str], seconds: float) -> None:
    await client.get("/v1/jobs", headers=headers)
    remaining = engine.call("ListJobs").time_remaining
    assert remaining is not None
    # On a socket gRPC writes a deadline of minutes in whole seconds, rounded up.
    assert seconds - 1 < remaining <= seconds + (1 if seconds > 60 else 0.1)


async def test_a_stream_has_no_deadline_but_the_clients(client: Client, engine: Engine) -> None:
    await client.get("/v1/stream")
    assert engine.call("WatchEvents").time_remaining is None


@pytest.mark.parametrize(
    ("header", "value"),
    [("Grpc-Timeout", bad) for bad in ("soon", "5", "5x", "-1S", "0S", "999999999S")]
    + [("X-Request-Timeout", bad) for bad in ("soon", "-1", "0", "nan", "inf", "1e3", "5S")],
)
async def test_a_deadline_that_is_none_is_refused(client: Client, header: str, value: str) -> None:
    answer = await client.get("/v1/jobs", headers={header: value})
    assert (answer.status, answer.json["details"]["fields"][0]["field"]) == (422, header)


async def test_a_passed_deadline_is_told_as_such(client: Client, engine: Engine) -> None:
    import asyncio

    async def never(_: object) -> None:
        await asyncio.Event().wait()

    engine.unary = lambda method, request, context: never(request)  # type: ignore[method-assign]
    answer = await client.get("/v1/jobs", headers={"X-Request-Timeout": "0.05"})
    assert (answer.status, answer.json["error_code"]) == (504, "E_DEADLINE")


async def test_a_call_ends_when_its_client_leaves(client: Client, engine: Engine) -> None:
    import asyncio

    state: list[str] = []

    async def waits(_method: object, _request: object, _context: object) -> None:
        state.append("called")
        try:
            await asyncio.Event().wait()
        finally:
            state.append("cancelled")

    engine.unary = waits  # type: ignore[method-assign,assignment]
    _, writer = await asyncio.open_connection(client.host, client.port)
    writer.write(b"GET /v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    await eventually(lambda: state == ["called"])
    writer.close()
    await writer.wait_closed()
    await eventually(lambda: state == ["called", "cancelled"])
