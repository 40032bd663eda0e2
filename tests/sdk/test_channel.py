"""The token crosses nothing that others can read, and goes to the right server alone."""

import hashlib
import ipaddress
import json
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import jobledger
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from jobledger import Client
from jobledger.v1.engine_service_pb2 import EngineStatus
from sdk.fake_server import TOKEN, FakeServer


def _certificate() -> tuple[bytes, bytes]:
    """A key and a certificate for 127.0.0.1, PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "jobledger")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(issuer_name=name, subject_name=name, public_key=key.public_key(), serial_number=1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private, certificate.public_bytes(serialization.Encoding.PEM)


@pytest.fixture
async def tls_server(tmp_path: Path) -> AsyncIterator[FakeServer]:
    """A server with TLS, and what it leaves in its data directory `tmp_path`."""
    private, certificate = _certificate()
    fake = FakeServer()
    fake.on("GetStatus", EngineStatus(name="jobledger"))
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((fake,))
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(private, certificate)]))
    await server.start()
    fake.target = f"127.0.0.1:{port}"
    (tmp_path / "ca.pem").write_bytes(certificate)
    (tmp_path / "token").write_text(TOKEN)
    _write_endpoints(tmp_path, fake.target, hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate.decode())).hexdigest())
    yield fake
    await server.stop(None)


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


async def test_a_server_is_trusted_by_its_authority(tls_server: FakeServer, tmp_path: Path) -> None:
    async with Client.connect(tls_server.target, token=TOKEN, ca_file=tmp_path / "ca.pem") as client:
        assert (await client.status()).name == "jobledger"
