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
