"""The transcoder for a service that is not Jobledger's: streams, bytes, metadata, errors, and its command."""

import asyncio
import ipaddress
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import aiohttp
import grpc
import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from gateway.client import Client
from gateway.foreign import (
    VECTORS,
    Recorder,
    compile_protos,
    listening,
    message_class,
    reached,
    transcoded,
)
from jobledger_gateway.descriptors import DescriptorError, services_in
from jobledger_gateway.main import gateway
from jobledger_gateway.transcoder import Dialect, RuleError, TranscoderOptions, transcode

PAGE = Path(__file__).parents[2] / "gateway_http" / "README.md"
Job: Any = message_class("vectors.v1.Job")
Body: Any = message_class("google.api.HttpBody")


@pytest.fixture(params=["in process", "socket"])
async def client(recorder: Recorder, request: pytest.FixtureRequest) -> AsyncIterator[Client]:
    async with reached(recorder, request.param) as channel, serving(recorder, channel) as opened:
        yield opened


def serving(recorder: Recorder, channel: Any) -> AbstractAsyncContextManager[Client]:
    return transcoded(
        recorder.service,
        channel,
        dialect=Dialect.PROTOJSON,
        request_headers=("X-Tenant", "x-trace-bin"),
        response_headers=("x-cost", "x-signature-bin"),
    )


async def test_bytes_come_and_go_as_they_are(client: Client, recorder: Recorder) -> None:
    recorder.answers["Echo"] = Body(content_type="image/png", data=b"\x89PNG\xff")
    answer = await client.post("/v1/echo", data=b"\x00\xff", headers={"Content-Type": "application/x-thing"})
    assert (answer.headers["Content-Type"], answer.body) == ("image/png", b"\x89PNG\xff")
    assert recorder.calls[0][1] == Body(content_type="application/x-thing", data=b"\x00\xff")
    recorder.answers["Page"] = message_class("vectors.v1.UploadRequest")(file=Body(content_type="text/x", data=b"page"))
    answer = await client.get("/v1/pages/x")
    assert (answer.headers["Content-Type"], answer.body) == ("text/x", b"page")
    recorder.answers["Download"] = [Body(content_type="text/csv", data=b"a,"), Body(data=b"b")]
    answer = await client.get("/v1/downloads/x")
    assert (answer.headers["Content-Type"], answer.body) == ("text/csv", b"a,b")


async def test_pages_of_allowed_origins_may_send_and_read_the_headers_of_the_lists(recorder: Recorder) -> None:
    lists = {
        "allowed_origins": ("https://a.example",), "request_headers": ("x-tenant",), "response_headers": ("x-cost",),
    }  # fmt: skip
    page = {"Origin": "https://a.example", "Access-Control-Request-Method": "GET"}
    async with transcoded(recorder.service, Mock(), **lists) as client:
        answer = await client.ask("OPTIONS", "/v1/jobs/x", headers=page)
    assert "X-Tenant" in answer.headers["Access-Control-Allow-Headers"].split(", ")
    assert "X-Cost" in answer.headers["Access-Control-Expose-Headers"].split(", ")


@pytest.mark.parametrize(
    "name", ["grpc-timeout", "Host", "a b", "", "x-jobledger-peer", "content-length", "User-Agent"]
)
async def test_headers_of_http_and_grpc_can_not_be_passed(name: str, recorder: Recorder) -> None:
    with pytest.raises(ValueError, match="can't pass"):
        transcode(
            [recorder.service], grpc.aio.insecure_channel("x:1"), options=TranscoderOptions(request_headers=(name,))
        )


async def test_a_header_that_always_passes_or_is_named_twice_passes_once(recorder: Recorder) -> None:
    names = ("Authorization", "X-Request-Id", "traceparent", "X-Tenant", "x-tenant")
    headers = {"X-Request-Id": "r1", "Traceparent": "t1", "X-Tenant": "a"}
    async with (
        reached(recorder, "in process") as channel,
        transcoded(recorder.service, channel, request_headers=names) as client,
    ):
        await client.get("/v1/jobs/x", token="Bearer b", headers=headers)
    passed = [(key, value) for key, value in recorder.metadata[0] if key in {name.lower() for name in names}]
    assert sorted(passed) == [
        ("authorization", "Bearer b"), ("traceparent", "t1"), ("x-request-id", "r1"), ("x-tenant", "a"),
    ]  # fmt: skip


async def test_a_service_without_health_is_ready_and_one_that_is_away_is_not(recorder: Recorder) -> None:
    async with reached(recorder, "socket") as channel, serving(recorder, channel) as there:
        assert (await there.get("/readyz")).json == {"status": "ok"}
    async with grpc.aio.insecure_channel("127.0.0.1:1") as channel, serving(recorder, channel) as away:
        assert (await away.get("/readyz")).status == 503
        answer = await away.get("/v1/jobs/x")
        assert (answer.status, answer.json["error_code"]) == (503, "E_ENGINE_UNREACHABLE")


BASE = (
    'syntax = "proto3"; package p; import "google/api/annotations.proto"; message M { string a = 1; } service S { %s }'
)
RPC = "rpc %s (M) returns (M) { option (google.api.http) = { %s }; }"


@pytest.mark.parametrize(
    ("rpcs", "says"),
    [
        (RPC % ("A", 'get: "/x/{nope}"'), "p.S.A: GET /x/{nope}: p.M has no field 'nope'"),
        (RPC % ("A", 'get: "/x/{a}"') + RPC % ("B", 'get: "/x/*"'), "p.S.B: GET /x/*: .*p.S.A: GET /x/{a}"),
        (RPC.replace("(M)", "(stream M)", 1) % ("A", 'post: "/{nope}"'), "p.S.A: POST /{nope}"),
        (RPC.replace("(M)", "(stream M)", 1) % ("A", 'get: "/x"') + RPC % ("B", 'get: "/x"'), "p.S.B: GET /x.*p.S.A"),
    ],
)
async def test_a_rule_that_can_not_be_served_stops_the_start(tmp_path: Path, rpcs: str, says: str) -> None:
    (tmp_path / "p.proto").write_text(BASE % rpcs)
    services = services_in(compile_protos(tmp_path / "set", tmp_path / "p.proto").read_bytes(), name="set")
    with pytest.raises(RuleError, match=says.replace("*:", r"\*:").replace("{", r"\{")):
        transcode(services, grpc.aio.insecure_channel("x:1"))


@pytest.fixture
def descriptor_set(tmp_path: Path) -> Path:
    return compile_protos(tmp_path / "vectors.binpb", VECTORS / "vectors.proto")


def test_a_descriptor_set_that_can_not_be_served_is_told_with_what_to_do(tmp_path: Path, descriptor_set: Path) -> None:
    alone = compile_protos(tmp_path / "alone", VECTORS / "everything.proto", imports=False).read_bytes()
    (tmp_path / "bare.proto").write_text(
        'syntax = "proto3"; package p; message M {} service S { rpc A (M) returns (M); }'
    )
    bare = compile_protos(tmp_path / "bare", tmp_path / "bare.proto").read_bytes()
    for data, says in [
        (b"", "not a FileDescriptorSet"),
        (b"\xff\xfe", "not a FileDescriptorSet"),
        (VECTORS.joinpath("vectors.proto").read_bytes(), "not a FileDescriptorSet"),
        (alone, "imports .*proto, which the file does not hold.*--include_imports"),
        (bare, "no method has a google.api.http annotation.*p.S"),
        (descriptor_set.read_bytes()[:-9], "not a FileDescriptorSet"),
    ]:
        with pytest.raises(DescriptorError, match=says):
            services_in(data, name="file")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--target", "10.0.0.1:1"], "--target-tls"),
        (["--target", "example"], "HOST:PORT"),
        (["--target", "127.0.0.1:1", "--dialect", "protojson"], "--descriptor-set"),
        (["--target", "127.0.0.1:1", "--descriptor-set", __file__], "not a FileDescriptorSet"),
        (["--target", "127.0.0.1:1", "--http-host", "0.0.0.0"], "--insecure-bind"),
        (["--target", "127.0.0.1:1", "--target-ca", __file__], "holds no certificate"),
    ],
)
def test_the_command_refuses_what_it_can_not_or_must_not_do(arguments: list[str], says: str) -> None:
    result = CliRunner().invoke(gateway, arguments)
    assert result.exit_code in {1, 2}
    assert says in result.output
    assert "Traceback" not in result.output


@asynccontextmanager
async def command(*arguments: str) -> AsyncIterator[str]:
    """`jobledger gateway`, running; yields its address."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "from jobledger_gateway.main import gateway; gateway()", "--http-port", "0", *arguments,
        stderr=asyncio.subprocess.PIPE, env={**os.environ},
    )  # fmt: skip
    assert process.stderr is not None
    try:
        warning = (await asyncio.wait_for(process.stderr.readline(), 60)).decode()
        assert "vectors.v1.Vectors.Collect" in warning, warning
        line = (await asyncio.wait_for(process.stderr.readline(), 60)).decode()
        assert line.startswith("http://"), line + (await process.stderr.read()).decode()
        yield line.split()[0]
    finally:
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 60) == 0


async def test_the_command_serves_any_service(recorder: Recorder, descriptor_set: Path) -> None:
    recorder.answers["Get"] = Job(id="x", seq=5, state=2)
    async with listening(recorder) as target:
        for dialect, expected in (("protojson", {"id": "x", "seq": "5", "state": "STATE_RUNNING"}), ("plain", None)):
            options = ("--target", target, "--descriptor-set", str(descriptor_set), "--dialect", dialect)
            async with command(*options) as url, aiohttp.ClientSession() as session:
                told = await (await session.get(f"{url}/v1/jobs/x")).json()
                assert expected in (told, None)
                assert expected or (told["seq"], told["state"], told["tags"]) == (5, "running", [])


def self_signed() -> tuple[bytes, bytes]:
    """Key and certificate of 127.0.0.1, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(days=1), now + timedelta(days=1))
    signed = builder.add_extension(names, critical=False).sign(key, hashes.SHA256())
    plain = serialization.NoEncryption()
    secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    return secret, signed.public_bytes(serialization.Encoding.PEM)


async def test_the_command_speaks_tls_to_the_service(recorder: Recorder, descriptor_set: Path, tmp_path: Path) -> None:
    key, certificate = self_signed()
    trusted = tmp_path / "cert.pem"
    trusted.write_bytes(certificate)
    credentials = grpc.ssl_server_credentials([(key, certificate)])
    async with listening(recorder, credentials) as target:
        options = (
            "--target",
            target,
            "--target-ca",
            str(tmp_path / "cert.pem"),
            "--descriptor-set",
            str(descriptor_set),
        )
        async with command(*options) as url, aiohttp.ClientSession() as session:
            assert (await session.get(f"{url}/v1/jobs/x")).status == 200
    assert [name for name, _ in recorder.calls] == ["Get"]


async def test_the_example_of_the_page_runs_and_takes_more_than_grpc_does(
    recorder: Recorder, descriptor_set: Path
) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    recorder.answers["Get"] = Job(id="x" * 5_000_000)
    async with listening(recorder) as target:
        program = example.replace("api.binpb", str(descriptor_set)).replace("127.0.0.1:50051", target)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-u", "-c", program.replace("port=8080", "port=0"), stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        url = (await asyncio.wait_for(process.stdout.readline(), 60)).decode().split()[-1]
        try:
            async with aiohttp.ClientSession() as session:
                answer = await session.get(f"{url}/v1/jobs/x")
                assert (answer.status, len((await answer.json())["id"])) == (200, 5_000_000)
        finally:
            process.terminate()
            await process.wait()
