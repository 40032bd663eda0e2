"""Readers of answers that are no streams: one that takes nothing is cut off, a slow one that takes something is not."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from gateway.client import eventually
from gateway.engine import TOKEN, Engine, connected
from jobledger.v1 import job_pb2, job_service_pb2
from jobledger_gateway import connections
from jobledger_gateway.app import Address, build_app, serve
from jobledger_gateway.connections import BoundedHandler
from jobledger_gateway.writing import bytes_taken
from support.certificates import Authority

Dial = Callable[[Address], socket.socket]

# Each answer has about 100 KB: all of them, or the large one, are more than the buffers of the kernel take.
PIPELINED = b"GET /v1/openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 90
LOGS = b"GET /v1/jobs/j/logs HTTP/1.1\r\nHost: localhost\r\nAuthorization: " + TOKEN.encode() + b"\r\n"
LARGE = 9_000_000
TINY = 4096


class Held:
    """The connections that a gateway holds, as it counts them itself."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._managers: list[web.Server] = []
        self.transports: list[asyncio.BaseTransport] = []
        begin, made = BoundedHandler.__init__, BoundedHandler.connection_made

        def noted(handler: BoundedHandler, manager: web.Server, **options: Any) -> None:
            self._managers.append(manager)
            begin(handler, manager, **options)

        def counted(handler: BoundedHandler, transport: asyncio.BaseTransport) -> None:
            made(handler, transport)
            self.transports.append(transport)

        monkeypatch.setattr(BoundedHandler, "__init__", noted)
        monkeypatch.setattr(BoundedHandler, "connection_made", counted)

    @property
    def number(self) -> int:
        return len(self._managers[0].connections)

    async def over(self) -> None:
        """Waits until a connection has begun, and none is held any more."""
        await eventually(lambda: bool(self.transports) and self.number == 0)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Held:
    return Held(monkeypatch)


@asynccontextmanager
async def gateway(engine: Engine, directory: Path, authority: Authority | None = None) -> AsyncIterator[Address]:
    """One whose logs are one large answer."""
    page = job_service_pb2.GetLogsResponse(logs=[job_pb2.LogEntry(message="x" * LARGE)], total=1)
    engine.on("GetLogs", page)
    tls = None if authority is None else server_context(authority, directory)
    async with (
        connected(engine, "in process") as channel,
        serve(
            build_app(channel),
            host="127.0.0.1",
            port=0,
            unix_path=directory / "gateway.sock",
            tls=tls,
            drain_seconds=0.5,
        ) as address,
    ):
        yield address


def server_context(authority: Authority, directory: Path) -> ssl.SSLContext:
    authority.server().write(directory, "server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "server.pem", directory / "server.key")
    return context


def by_tcp(address: Address) -> socket.socket:
    """A connection whose own buffers are small; it is for blocking calls."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, TINY)
    connection.settimeout(20)
    connection.connect((address.host, address.port))
    return connection


def by_unix(address: Address) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(20)
    connection.connect(str(address.unix_path))
    return connection


def by_tls(address: Address) -> socket.socket:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context.wrap_socket(by_tcp(address))


async def asked(dial: Dial, address: Address, data: bytes) -> socket.socket:
    """A connection on which something was asked, and nothing is read."""

    def ask() -> socket.socket:
        connection = dial(address)
        connection.sendall(data)
        return connection

    return await asyncio.to_thread(ask)


def rest_of(connection: socket.socket) -> int:
    """How many bytes are still to be had, up to a pause or the end."""
    size = 0
    try:
        while chunk := connection.recv(1 << 20):
            size += len(chunk)
    except ConnectionError:
        pass
    return size


@pytest.mark.parametrize("dial", [by_tcp, by_unix, by_tls])
@pytest.mark.parametrize("data", [PIPELINED, LOGS + b"\r\n"], ids=["strangers", "large"])
async def test_a_reader_that_takes_nothing_of_its_answers_is_cut_off(
    engine: Engine, held: Held, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, dial: Dial, data: bytes
) -> None:
    monkeypatch.setattr(connections, "WRITE_SECONDS", 0.2)
    # Behind TLS one answer passes our buffer at once, and waits further down.
    monkeypatch.setattr("jobledger_gateway.serving.KEEPALIVE_SECONDS", 0.5)
    async with gateway(engine, tmp_path, Authority.make() if dial is by_tls else None) as address:
        with closing(await asked(dial, address, data)) as connection:
            await held.over()
            assert 0 < await asyncio.to_thread(rest_of, connection) < LARGE


@pytest.mark.parametrize("closed", ["by both", "twice by us"])
async def test_a_reader_behind_tls_that_is_over_and_takes_nothing_is_cut_off(
    engine: Engine, held: Held, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, closed: str
) -> None:
    """What TLS wrote still waits below, where its own transport may reach it no more."""
    monkeypatch.setattr(connections, "WRITE_SECONDS", 0.2)
    async with gateway(engine, tmp_path, Authority.make()) as address:
        with closing(await asked(by_tls, address, LOGS + b"Connection: close\r\n\r\n")) as connection:
            await asyncio.to_thread(connection.recv, 1)
            connection.setblocking(False)
            with suppress(ssl.SSLError):
                connection.unwrap()  # type: ignore[attr-defined]
            if closed == "twice by us":
                held.transports[0].close()
            await held.over()


@pytest.mark.parametrize(
    ("last", "ends"),
    [(b"\r\n", False), (b"\r\n", True), (b"Connection: close\r\n\r\n", False)],
    ids=["idle", "ended by the client", "closed"],
)
async def test_what_is_left_in_a_buffer_holds_no_connection_that_is_over(
    engine: Engine, held: Held, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, last: bytes, *, ends: bool
) -> None:
    """Also where it is too little for the buffer to have been full: here nothing is."""
    monkeypatch.setattr(connections, "WRITE_SECONDS", 0.2)
    monkeypatch.setattr("jobledger_gateway.serving.KEEPALIVE_SECONDS", 0.2)
    made = BoundedHandler.connection_made

    def widened(handler: BoundedHandler, transport: asyncio.Transport) -> None:
        transport.set_write_buffer_limits(high=2 * LARGE)
        made(handler, transport)

    monkeypatch.setattr(BoundedHandler, "connection_made", widened)
    async with gateway(engine, tmp_path) as address:
        with closing(await asked(by_tcp, address, LOGS + last)) as connection:
            await asyncio.to_thread(connection.recv, 1)
            if ends:
                connection.shutdown(socket.SHUT_WR)
            await held.over()
            assert 0 < await asyncio.to_thread(rest_of, connection) < LARGE


@pytest.mark.parametrize("last", [b"\r\n", b"Connection: close\r\n\r\n"], ids=["kept", "closed"])
@pytest.mark.parametrize("dial", [by_tcp, by_unix])
async def test_a_slow_reader_is_left_alone_while_it_takes_anything(
    engine: Engine, held: Held, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, dial: Dial, last: bytes
) -> None:
    """It reads a little before each look at it, and our buffer never comes near to being empty."""
    monkeypatch.setattr(connections, "WRITE_SECONDS", 0.01)
    taken, looks = list[int](), asyncio.Event()

    def look_and_read(transport: asyncio.WriteTransport, its_socket: Any, written: int) -> int:
        seen = bytes_taken(transport, its_socket, written)
        taken.append(sum(read_at_once(connection) for _ in range(48)))
        if len(taken) == 30:
            monkeypatch.setattr(connections, "WRITE_SECONDS", 60.0)
            looks.set()
        return seen

    async with gateway(engine, tmp_path) as address:
        connection = dial(address)
        with closing(connection):
            monkeypatch.setattr(connections, "bytes_taken", look_and_read)
            connection.sendall(LOGS + last)
            connection.setblocking(False)
            async with asyncio.timeout(20):
                await looks.wait()
            assert (held.number, sum(taken) < LARGE) == (1, True)
            monkeypatch.setattr(connections, "bytes_taken", bytes_taken)
            connection.settimeout(20)
            rest = asyncio.to_thread(read_up_to, connection, LARGE - sum(taken))
            assert sum(taken) + await rest > LARGE


def read_at_once(connection: socket.socket) -> int:
    """Reads a few bytes of those that are there."""
    try:
        return len(connection.recv(TINY))
    except BlockingIOError:
        return 0


def read_up_to(connection: socket.socket, size: int) -> int:
    """Reads until so many bytes have come, and how many they were."""
    came = 0
    while came <= size:
        came += len(connection.recv(1 << 20)) or size
    return came
