"""The token crosses nothing that others can read, and goes to the right server alone."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import TypeAlias

import grpc
import jobledger
import pytest
from jobledger import Client
from jobledger.v1.engine_service_pb2 import EngineStatus
from sdk.fake_server import TOKEN, FakeServer
from support.certificates import Authority, Certificate

Server: TypeAlias = tuple[FakeServer, grpc.aio.Server]


AUTHORITY, CLIENTS = Authority.make(), Authority.make("Clients")
# Not for the address at which it is reached.
SERVER = AUTHORITY.server("jobs.example.org", "*.jobs.example.org")


async def _listening(server: Certificate, port: int = 0, *, clients: Authority | None = None) -> Server:
    fake = FakeServer()
    fake.on("GetStatus", EngineStatus(name="jobledger"))
    listening = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    listening.add_generic_rpc_handlers((fake,))
    credentials = grpc.ssl_server_credentials(
        [(server.key_pem, server.pem)],
        None if clients is None else clients.pem,
        require_client_auth=clients is not None,
    )
    fake.target = f"127.0.0.1:{listening.add_secure_port(f'127.0.0.1:{port}', credentials)}"
    await listening.start()
    return fake, listening


@pytest.fixture
async def tls_server(tmp_path: Path) -> AsyncIterator[FakeServer]:
    """A server with TLS, and what it leaves in its data directory `tmp_path`."""
    fake, listening = await _listening(SERVER)
    write_token(tmp_path)
    _write_endpoints(tmp_path, fake.target, SERVER.sha256)
    yield fake
    await listening.stop(None)


def write_token(data_dir: Path) -> None:
    (data_dir / "token").write_text(TOKEN)
    (data_dir / "token").chmod(0o600)


def _write_endpoints(data_dir: Path, target: str, cert_sha256: str) -> None:
    content = {"grpc": target, "token_file": str(data_dir / "token"), "cert_sha256": cert_sha256}
    (data_dir / "endpoints.json").write_text(json.dumps(content))


async def test_another_machine_without_tls_is_refused() -> None:
    with pytest.raises(jobledger.SetupError, match="without TLS the token could be read"):
        async with Client.connect("10.0.0.1:50051", token=TOKEN):
            pass


async def test_who_accepts_the_risk_may_say_so() -> None:
    async with Client.connect("10.0.0.1:50051", token=TOKEN, insecure=True) as client:
        assert isinstance(client, Client)


async def test_a_server_is_trusted_by_the_hash_that_it_left(tls_server: FakeServer, tmp_path: Path) -> None:
    async with Client.connect(data_dir=tmp_path) as client:
        assert (await client.status()).name == "jobledger"


async def test_another_certificate_gets_no_token(tls_server: FakeServer, tmp_path: Path) -> None:
    """Someone else may have taken the port while the server was down."""
    _write_endpoints(tmp_path, tls_server.target, "0" * 64)
    with pytest.raises(jobledger.SetupError, match="another certificate"):
        async with Client.connect(data_dir=tmp_path):
            pass
    assert not tls_server.metadata


async def test_who_takes_the_port_between_look_and_call_gets_no_token(tmp_path: Path) -> None:
    """The channel trusts that one certificate, whose key is not the impostor's; its authority has no say."""
    fake, listening = await _listening(SERVER)
    write_token(tmp_path)
    _write_endpoints(tmp_path, fake.target, SERVER.sha256)
    async with Client.connect(data_dir=tmp_path, retry_for=0.0) as client:
        await listening.stop(None)
        impostor, taken = await _listening(AUTHORITY.server("jobs.example.org"), int(fake.target.rpartition(":")[2]))
        with pytest.raises(jobledger.UnavailableError):
            await client.status()
        assert not impostor.metadata
        await taken.stop(None)


async def test_an_impostor_without_tls_gets_no_token(tmp_path: Path) -> None:
    """What it gets is the beginning of a handshake."""
    heard = bytearray()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.extend(await reader.read(4096))
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(listen, "127.0.0.1", 0) as impostor:
        write_token(tmp_path)
        port = impostor.sockets[0].getsockname()[1]
        _write_endpoints(tmp_path, f"127.0.0.1:{port}", SERVER.sha256)
        with pytest.raises(jobledger.SetupError, match="does not speak TLS"):
            async with Client.connect(data_dir=tmp_path):
                pass
    assert heard
    assert TOKEN.encode() not in heard


async def test_a_port_that_is_taken_is_no_way_to_the_token_of_a_local_server(tmp_path: Path) -> None:
    """Without TLS too: a killed server leaves its file, and anyone may take its port, but nobody its socket."""
    impostor, listening = await _listening(SERVER)
    write_token(tmp_path)
    left = {"grpc": impostor.target, "unix": str(tmp_path / "grpc.sock"), "token_file": str(tmp_path / "token")}
    (tmp_path / "endpoints.json").write_text(json.dumps(left))
    async with Client.connect(data_dir=tmp_path, retry_for=0.0) as client:
        with pytest.raises(jobledger.UnavailableError):
            await client.status()
    assert not impostor.metadata
    await listening.stop(None)


async def test_a_certificate_that_has_expired_is_told_of(tmp_path: Path) -> None:
    expired = AUTHORITY.client(expires_in=timedelta(seconds=-60))
    fake, listening = await _listening(expired)
    write_token(tmp_path)
    _write_endpoints(tmp_path, fake.target, expired.sha256)
    with pytest.raises(jobledger.SetupError, match="certificate has expired"):
        async with Client.connect(data_dir=tmp_path):
            pass
    await listening.stop(None)


async def test_a_server_is_trusted_by_its_authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake, listening = await _listening(AUTHORITY.server("127.0.0.1"))
    AUTHORITY.write(tmp_path, "ca")
    async with Client.connect(fake.target, token=TOKEN, ca_file=tmp_path / "ca.pem") as client:
        assert (await client.status()).name == "jobledger"
    monkeypatch.setenv("JOBLEDGER_CA_FILE", str(tmp_path / "ca.pem"))
    async with Client.connect(fake.target, token=TOKEN) as client:
        assert (await client.status()).name == "jobledger"
    monkeypatch.setenv("JOBLEDGER_CA_FILE", str(tmp_path / "none.pem"))
    with pytest.raises(jobledger.SetupError, match=r"none\.pem can't be read"):
        async with Client.connect(fake.target, token=TOKEN):
            pass
    await listening.stop(None)


async def test_a_certificate_may_stand_in_for_a_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake, listening = await _listening(AUTHORITY.server("127.0.0.1"), clients=CLIENTS)
    AUTHORITY.write(tmp_path, "ca")
    CLIENTS.client("spiffe://acme.example/worker").write(tmp_path, "me")
    ca_file = tmp_path / "ca.pem"
    async with Client.connect(
        fake.target, ca_file=ca_file, cert_file=tmp_path / "me.pem", key_file=tmp_path / "me.key"
    ) as client:
        assert (await client.status()).name == "jobledger"
    assert "authorization" not in fake.metadata[-1]
    monkeypatch.setenv("JOBLEDGER_CERT_FILE", str(tmp_path / "me.pem"))
    with pytest.raises(jobledger.SetupError, match="takes two files"):
        jobledger.resolve_endpoint(fake.target)
    monkeypatch.setenv("JOBLEDGER_KEY_FILE", str(tmp_path / "me.key"))
    async with Client.connect(fake.target, ca_file=ca_file) as client:
        assert (await client.status()).name == "jobledger"
    await listening.stop(None)


async def test_a_local_server_that_asks_for_certificates_is_known_by_its_hash_too(tmp_path: Path) -> None:
    fake, listening = await _listening(SERVER, clients=CLIENTS)
    CLIENTS.client("spiffe://acme.example/worker").write(tmp_path, "me")
    write_token(tmp_path)
    _write_endpoints(tmp_path, fake.target, SERVER.sha256)
    files = (tmp_path / "me.pem", tmp_path / "me.key")
    async with Client.connect(data_dir=tmp_path, cert_file=files[0], key_file=files[1]) as client:
        assert (await client.status()).name == "jobledger"
    await listening.stop(None)
