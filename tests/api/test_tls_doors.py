"""TLS on both doors: who gets in, as whom, and what a renewal does to those who are connected."""

import asyncio
import base64
import socket
import ssl
import warnings
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from api.conftest import Guards
from api.doors import Servicer
from api.tls_doors import REFUSED, TlsDoors, client_context, opened
from jobledger.v1 import job_service_pb2 as pb
from jobledger.v1.job_service_pb2_grpc import JobServiceStub
from jobledger_server.access.certificates import ClientCertificates, peers_of
from jobledger_server.access.tls_files import TlsFiles
from jobledger_server.api.interceptors.access import Access
from jobledger_server.api.types import Metadata
from jobledger_server.core.clock import SystemClock
from support.certificates import Authority, Certificate

WORKER = "spiffe://acme.example/worker"
PEERS = peers_of({WORKER: {"scopes": ["jobs:read"]}, "CN=by-subject,O=Acme": {"scopes": ["jobs:read"]}})
AUTHORITY, CLIENTS = Authority.make(), Authority.make("Clients")
KNOWN, STRANGER = CLIENTS.client(WORKER), CLIENTS.client("spiffe://acme.example/other")
# A plain HTTP/1.1 request whose body would be a call.
HTTP1 = b"POST /jobledger.v1.JobService/GetJob HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"

both = pytest.mark.parametrize("door", ["grpc", "rest"])


def files_in(directory: Path, *, mutual: bool) -> TlsFiles:
    AUTHORITY.server().write(directory, "server")
    CLIENTS.write(directory, "ca")
    ca = directory / "ca.pem" if mutual else None
    return TlsFiles(certificate=directory / "server.pem", key=directory / "server.key", client_ca=ca)


@pytest.fixture
async def mutual(tmp_path: Path, servicer: Servicer, guards: Guards) -> AsyncIterator[TlsDoors]:
    """Doors that ask for certificates of CLIENTS."""
    certificates = ClientCertificates(peers=PEERS, clock=SystemClock())
    access = Access(authenticator=guards.access._authenticator, certificates=certificates)
    async with opened(files_in(tmp_path, mutual=True), servicer, [guards.errors, access]) as doors:
        yield doors


@pytest.fixture
async def plain(tmp_path: Path, servicer: Servicer, guards: Guards) -> AsyncIterator[TlsDoors]:
    """Doors with TLS that ask clients for a token alone."""
    async with opened(files_in(tmp_path, mutual=False), servicer, [guards.errors, guards.access]) as doors:
        yield doors


@both
async def test_a_token_over_tls_lets_in_and_a_certificate_alone_does_not(
    plain: TlsDoors, door: str, token: Metadata
) -> None:
    assert not (await plain.ask(door, AUTHORITY, headers=tuple(token))).startswith("E_")
    assert await plain.ask(door, AUTHORITY) == "E_AUTH_MISSING"
    assert await plain.ask(door, AUTHORITY, shown=KNOWN) == "E_AUTH_MISSING"
    assert await plain.ask(door, Authority.make(), headers=tuple(token)) == REFUSED


@both
@pytest.mark.parametrize(
    ("shown", "taken_for"),
    [
        (KNOWN, f"cert:{WORKER}"),
        (CLIENTS.client(subject="by-subject"), "cert:CN=by-subject,O=Acme"),
        (STRANGER, "E_AUTH_MISSING"),
        (CLIENTS.client("spiffe://acme.example/other", subject="by-subject"), "E_AUTH_MISSING"),
        (None, REFUSED),
        (CLIENTS.client(WORKER, expires_in=timedelta(seconds=-60)), REFUSED),
        (Authority.make("Clients").client(WORKER), REFUSED),
        (AUTHORITY.client(WORKER), REFUSED),
    ],
    ids=[
        "uri",
        "subject",
        "stranger",
        "uri-over-subject",
        "none",
        "expired",
        "same-name-authority",
        "server-authority",
    ],
)
async def test_clients_are_known_by_good_certificates_alone(
    mutual: TlsDoors, door: str, shown: Certificate | None, taken_for: str
) -> None:
    assert await mutual.ask(door, AUTHORITY, shown=shown) == taken_for


@both
async def test_a_token_decides_where_one_is_sent(mutual: TlsDoors, door: str, token: Metadata) -> None:
    wrong = (("authorization", "Bearer jl_aaaaaaaa_" + "x" * 43),)
    by_token = await mutual.ask(door, AUTHORITY, shown=STRANGER, headers=tuple(token))
    assert not by_token.startswith(("E_", "cert:"))
    assert await mutual.ask(door, AUTHORITY, shown=KNOWN, headers=tuple(token)) == by_token
    assert await mutual.ask(door, AUTHORITY, shown=KNOWN, headers=wrong) == "E_AUTH_INVALID"
    assert await mutual.ask(door, AUTHORITY, headers=tuple(token)) == REFUSED


@both
async def test_a_certificate_can_not_be_claimed_in_a_header(mutual: TlsDoors, door: str) -> None:
    """That is how the gateway tells of it within the process."""
    for value in (KNOWN.der, base64.b64encode(KNOWN.der).decode()) if door == "rest" else (KNOWN.der,):
        headers = (("x-jobledger-certificate-bin", value), ("x-jobledger-peer", "unix"))
        assert await mutual.ask(door, AUTHORITY, shown=STRANGER, headers=headers) == "E_AUTH_MISSING"


@both
async def test_a_renewal_is_for_new_connections_and_leaves_open_ones(
    mutual: TlsDoors, door: str, servicer: Servicer
) -> None:
    """Another authority for the server, and another for the clients, while a call waits for its answer.

    The connection of that call goes on with what its certificate may do, as the page on TLS says.
    """
    other, others = Authority.make(), Authority.make("Others")
    waiting = asyncio.create_task(_held(mutual, door))
    async with asyncio.timeout(30):
        await servicer.begun.wait()
    mutual.renew(other.server(), others)
    assert await mutual.ask(door, other, shown=others.client(WORKER)) == f"cert:{WORKER}"
    assert await mutual.ask(door, other, shown=KNOWN) == REFUSED
    assert await mutual.ask(door, AUTHORITY, shown=others.client(WORKER)) == REFUSED
    servicer.released.set()
    assert await waiting == ("wait", f"cert:{WORKER}")


async def _held(doors: TlsDoors, door: str) -> tuple[str, str]:
    """Of a call that waits its job, and of the next one over the same connection who made it."""
    if door == "grpc":
        async with doors.channel(AUTHORITY, KNOWN) as channel:
            stub = JobServiceStub(channel)
            waited = await stub.GetJob(pb.GetJobRequest(job_id="wait"))
            return waited.job_id, str((await stub.GetJob(pb.GetJobRequest(job_id="principal"))).created_by)
    async with doors.session(AUTHORITY, KNOWN) as session:
        async with session.get("/v1/jobs/wait") as told:
            waited_for = str((await told.json())["job_id"])
        async with session.get("/v1/jobs/principal") as told:
            return waited_for, str((await told.json())["created_by"])


@both
async def test_it_speaks_new_tls_and_its_own_protocol_alone(plain: TlsDoors, door: str) -> None:
    port, protocol = (plain.grpc_port, "h2") if door == "grpc" else (plain.http_port, "http/1.1")
    context = client_context(AUTHORITY, protocols=["h2", "http/1.1"])
    assert await asyncio.to_thread(_handshake, port, context) == ("TLSv1.3", protocol)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    assert await asyncio.to_thread(_handshake, port, context) == ("TLSv1.2", protocol)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError):
        await asyncio.to_thread(_handshake, port, context)


def _handshake(port: int, context: ssl.SSLContext) -> tuple[str | None, str | None]:
    with (
        socket.create_connection(("127.0.0.1", port), 30) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as secure,
    ):
        return secure.version(), secure.selected_alpn_protocol()


@both
async def test_what_is_not_tls_gets_nothing(plain: TlsDoors, door: str) -> None:
    port = plain.grpc_port if door == "grpc" else plain.http_port
    assert b"HTTP/1.1" not in await asyncio.to_thread(_said_to, HTTP1, port)


async def test_http1_gets_no_call_out_of_the_grpc_port(plain: TlsDoors, servicer: Servicer, guards: Guards) -> None:
    """A browser, or curl: in the clear and over TLS, the connection ends and nothing has happened."""
    context = client_context(AUTHORITY, protocols=["http/1.1"])
    assert b"HTTP/1.1 2" not in await asyncio.to_thread(_said_to, HTTP1, plain.grpc_port, context)
    server = grpc.aio.server(interceptors=[guards.errors, guards.access])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    assert b"HTTP/1.1 2" not in await asyncio.to_thread(_said_to, HTTP1, port)
    await server.stop(None)
    assert not servicer.begun.is_set()


def _said_to(request: bytes, port: int, context: ssl.SSLContext | None = None) -> bytes:
    """All that comes back until the other side closes the connection."""
    said = b""
    with socket.create_connection(("127.0.0.1", port), 30) as plain:
        try:
            with context.wrap_socket(plain, server_hostname="127.0.0.1") if context else plain as connection:
                connection.sendall(request)
                while data := connection.recv(65536):
                    said += data
        except (ConnectionError, ssl.SSLError):
            pass
    return said
