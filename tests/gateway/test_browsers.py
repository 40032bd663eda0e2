"""Names that the gateway answers for, and pages that may call it: what browsers are made to send."""

import pytest
from gateway.client import Client
from gateway.engine import Engine, connected
from jobledger_gateway.app import GatewayOptions, build_app, serve

# What is tested here lies before the channel: one kind of it will do.
pytestmark = pytest.mark.parametrize("client", ["in process"], indirect=True)


@pytest.mark.parametrize(
    "host",
    [
        b"evil.example", b"evil.example:8080", b"", b"127.0.0.1.evil.example", b"[::1", b"localhost.", b"localhost:1",
        b"127.0.0.1:1", b"localhost:x", b"localhost:99999", b"localhost@evil.example", b"2130706433", b"127.1",
        b"[::1]", b"[::ffff:127.0.0.1]", b"localhost,evil.example", b"localhost%00",
    ],
)  # fmt: skip
async def test_another_host_is_not_answered_for(client: Client, engine: Engine, host: bytes) -> None:
    answer = await client.raw(b"GET /healthz HTTP/1.1\r\nConnection: close\r\nHost: " + host + b"\r\n\r\n")
    assert (answer.status, answer.json["error_code"]) == (421, "E_HOST_NOT_ALLOWED")


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200), ("LocalHost:{port}", 200), ("127.0.0.1:{port}", 200), ("ops.example.org", 200),
        ("OPS.example.org:99", 200), ("localhost:9000", 200), ("127.0.0.1:9000", 421), ("gate.example.org:8443", 200),
        ("gate.example.org", 421), ("gate.example.org:8444", 421), ("[::1]:{port}", 200), ("[::1]:1", 421),
        ("127.0.0.1:0{port}", 421), ("127.0.0.1:+{port}", 421),
    ],
)  # fmt: skip
@pytest.mark.parametrize("absolute", [False, True], ids=["header", "absolute"])
async def test_a_host_is_held_to_the_list_and_a_local_one_to_its_port(
    engine: Engine, client: Client, host: str, status: int, absolute: bool
) -> None:
    names = ("localhost", "127.0.0.1", "::1", "ops.example.org", "localhost:9000", "gate.example.org:8443")
    async with (
        connected(engine, "in process") as channel,
        serve(build_app(channel, options=GatewayOptions(allowed_hosts=names)), host="127.0.0.1", port=0) as address,
    ):
        named = Client(client.session, address.host, address.port)
        authority = host.format(port=address.port)
        target = f"http://{authority}/healthz" if absolute else "/healthz"
        header = f"127.0.0.1:{address.port}" if absolute else authority
        lines = f"GET {target} HTTP/1.1\r\nConnection: close\r\nHost: {header}\r\n\r\n"
        assert (await named.raw(lines.encode())).status == status


@pytest.mark.parametrize("host", ["127.0.0.1: {port}", "127.0.0.1 :{port}", "127. 0.0.1:{port}"])
async def test_a_space_within_makes_it_another_host(client: Client, host: str) -> None:
    lines = f"GET /healthz HTTP/1.1\r\nConnection: close\r\nHost: {host.format(port=client.port)}\r\n\r\n"
    assert (await client.raw(lines.encode())).status == 421


async def test_an_absolute_target_is_held_to_the_same_list(client: Client) -> None:
    good = await client.line(b"GET http://localhost/healthz HTTP/1.1")
    assert good.status == 200
    for authority in (b"evil.example", b"localhost@evil.example", b"localhost:1"):
        bad = await client.line(b"GET http://" + authority + b"/healthz HTTP/1.1")
        assert bad.json["error_code"] == "E_HOST_NOT_ALLOWED"


@pytest.mark.parametrize("lines", [b"", b"Host: localhost\r\nHost: localhost\r\n"])
async def test_a_request_has_one_host(client: Client, lines: bytes) -> None:
    answer = await client.raw(b"GET /healthz HTTP/1.1\r\nConnection: close\r\n" + lines + b"\r\n")
    assert (answer.status, answer.json["error_code"]) == (400, "E_BAD_REQUEST")


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "null",
        "http://127.0.0.1:1",
        "https://ops.example.org.evil",
        "http://ops.example.org",
        "",
    ],
)
async def test_a_page_of_another_origin_may_not_call(client: Client, engine: Engine, origin: str) -> None:
    answer = await client.get("/v1/jobs", headers={"Origin": origin})
    assert (answer.status, answer.json["error_code"]) == (403, "E_FORBIDDEN")
    assert "Access-Control-Allow-Origin" not in answer.headers
    assert engine.calls == []


async def test_the_gateways_own_pages_may_call(client: Client) -> None:
    assert (await client.get("/v1/jobs", headers={"Origin": client.base})).status == 200


async def test_an_allowed_origin_may_call_and_read(client: Client) -> None:
    origin = {"Origin": "https://ops.example.org"}
    answer = await client.get("/v1/jobs", headers=origin)
    assert answer.headers["Access-Control-Allow-Origin"] == "https://ops.example.org"
    preflight = await client.ask(
        "OPTIONS", "/v1/jobs", token=None, headers={**origin, "Access-Control-Request-Method": "POST"}
    )
    assert preflight.status == 204
    assert "POST" in preflight.headers["Access-Control-Allow-Methods"]
    assert "Authorization" in preflight.headers["Access-Control-Allow-Headers"]
    assert "Access-Control-Allow-Private-Network" not in preflight.headers


PREFLIGHT = {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type",
    "Access-Control-Request-Private-Network": "true",
}


async def test_a_private_network_is_opened_to_allowed_origins_alone(client: Client, engine: Engine) -> None:
    allowed = {**PREFLIGHT, "Origin": "https://ops.example.org"}
    answer = await client.ask("OPTIONS", "/v1/jobs", token=None, headers=allowed)
    assert (answer.status, answer.headers["Access-Control-Allow-Private-Network"]) == (204, "true")
    for origin, status in (("https://evil.example", 403), ("null", 403), (client.base, 204), (None, 204)):
        headers = {**PREFLIGHT, **({"Origin": origin} if origin else {})}
        answer = await client.ask("OPTIONS", "/v1/jobs", token=None, headers=headers)
        assert answer.status == status
        assert [name for name in answer.headers if name.lower().startswith("access-control-")] == []
    assert engine.calls == []


async def test_every_answer_is_closed_to_what_browsers_would_make_of_it(client: Client) -> None:
    """Nothing is a page but the documentation, nothing is sniffed, framed, cached, or credentialed."""
    broken = await client.raw(b"NONSENSE\r\n\r\n")
    answers = [
        await client.get(path, headers={"Origin": client.base, "Cookie": "session=1"})
        for path in ("/v1/jobs", "/v1/jobs/j", "/nope", "/healthz", "/docs", "/v1/openapi.json", "/gateway/jobs")
    ]
    for answer in (*answers, broken):
        headers = {name.lower(): value for name, value in answer.headers.items()}
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["cache-control"] == "no-store" or "etag" in headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert not {"set-cookie", "access-control-allow-credentials", "access-control-allow-origin"} & headers.keys()


async def test_a_simple_request_of_a_page_is_not_taken_for_json(client: Client, engine: Engine) -> None:
    """What a page may send without asking first: a form's media types."""
    for media_type in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        answer = await client.post("/v1/jobs", data=b'{"spec": {}}', headers={"Content-Type": media_type})
        assert (answer.status, answer.json["error_code"]) == (415, "E_UNSUPPORTED_MEDIA_TYPE")
    assert engine.requests("CreateJob") == []


async def test_a_token_in_the_query_or_a_cookie_is_never_read(client: Client, engine: Engine) -> None:
    for name in ("access_token", "token", "authorization"):
        answer = await client.get(f"/v1/jobs?{name}=t", token=None, headers={"Cookie": f"{name}=t"})
        assert answer.status == 401
    assert all("t" not in dict(call.metadata).values() for call in engine.calls)


async def test_headers_that_claim_an_identity_or_a_method_go_nowhere(client: Client, engine: Engine) -> None:
    claims = {
        "Grpc-Metadata-Authorization": "Bearer other", "Grpc-Metadata-X": "1", "X-Forwarded-User": "root",
        "X-Forwarded-For": "10.0.0.1", "Forwarded": "for=10.0.0.1", "X-Jobledger-Peer": "10.0.0.1",
        "X-HTTP-Method-Override": "DELETE", "X-Method-Override": "DELETE", "X-Original-URL": "/v1/tokens",
    }  # fmt: skip
    answer = await client.get("/v1/jobs/job_1", headers=claims)
    assert answer.status == 200
    call = engine.call("GetJob")
    assert "DELETE" not in str(call)
    assert not {name.lower() for name in claims} - {"x-jobledger-peer"} & dict(call.metadata).keys()
    assert "other" not in str(call.metadata)
    assert "10.0.0.1" not in str(call.metadata)
