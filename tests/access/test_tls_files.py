"""The files of TLS: what is refused, with words that help, and that a bad change takes nothing away."""

import logging
import os
import ssl
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jobledger_server.access.private_files import PrivateFileError
from jobledger_server.access.server_tls import ServerTls
from jobledger_server.access.tls_files import TlsFileError, TlsFiles, load
from jobledger_server.service.tls_watch import TlsWatch
from support.certificates import Authority, Certificate
from support.eventually import eventually
from support.root import NOBODY, only_root

AUTHORITY = Authority.make()


@pytest.fixture
def files(tmp_path: Path) -> TlsFiles:
    AUTHORITY.server().write(tmp_path, "server")
    AUTHORITY.write(tmp_path, "ca")
    return TlsFiles(certificate=tmp_path / "server.pem", key=tmp_path / "server.key", client_ca=tmp_path / "ca.pem")


def replace_server(files: TlsFiles) -> Certificate:
    return AUTHORITY.server().write(files.key.parent, "server")


@pytest.mark.parametrize("key", [None, rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP384R1())])
def test_what_goes_together_is_loaded(tmp_path: Path, key: rsa.RSAPrivateKey | None) -> None:
    server = AUTHORITY.server("127.0.0.1", "jobs.example.org", "*.example.org", key=key).write(tmp_path, "server")
    material = load(TlsFiles(certificate=tmp_path / "server.pem", key=tmp_path / "server.key"))
    assert material.cert_sha256 == server.sha256
    assert material.names == ("jobs.example.org", "127.0.0.1")
    assert material.context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert material.context.verify_mode is ssl.CERT_NONE


def encrypted() -> bytes:
    algorithm = serialization.BestAvailableEncryption(b"tulip")
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, algorithm)


def of_another_kind() -> bytes:
    key = ed25519.Ed25519PrivateKey.generate()
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@pytest.mark.parametrize(
    ("file", "content", "told"),
    [
        ("server.pem", lambda: b"", "holds no certificate"),
        ("server.pem", lambda: b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "no certificate"),
        ("server.pem", lambda: AUTHORITY.server().key_pem, "holds no certificate"),
        ("server.key", lambda: b"\xff", "holds no private key"),
        ("server.key", lambda: AUTHORITY.server().key_pem, "is not the key of the first certificate"),
        ("server.key", encrypted, "without a passphrase"),
        ("server.key", of_another_kind, "RSA key, or an EC key on P-256"),
        ("ca.pem", lambda: b"\xff", "holds no certificate"),
    ],
)
def test_what_does_not_go_together_is_named(
    files: TlsFiles, file: str, content: Callable[[], bytes], told: str
) -> None:
    path = files.key.parent / file
    path.write_bytes(content())
    with pytest.raises(TlsFileError, match=told) as caught:
        load(files)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("file", ["server.pem", "server.key", "ca.pem"])
def test_a_file_that_is_missing_is_named(files: TlsFiles, file: str) -> None:
    (files.key.parent / file).unlink()
    with pytest.raises(TlsFileError, match=file):
        load(files)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
def test_a_key_that_others_can_read_is_refused(files: TlsFiles, mode: int) -> None:
    files.key.chmod(mode)
    with pytest.raises(PrivateFileError, match=r"server\.key is open to other users"):
        load(files)


def test_a_key_that_is_a_link_is_refused(files: TlsFiles) -> None:
    files.key.rename(files.key.with_name("elsewhere"))
    files.key.symlink_to("elsewhere")
    with pytest.raises(PrivateFileError, match="symbolic link"):
        load(files)


@only_root
def test_a_key_of_someone_else_is_refused(files: TlsFiles) -> None:
    os.chown(files.key, NOBODY, -1)
    with pytest.raises(PrivateFileError, match=f"belongs to user {NOBODY}"):
        load(files)


def test_loading_leaves_no_copy_of_the_key(files: TlsFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path.name for path in files.key.parent.iterdir()}
    monkeypatch.setenv("TMPDIR", str(files.key.parent))
    descriptors = len([*Path("/dev/fd").iterdir()])
    load(files)
    assert {path.name for path in files.key.parent.iterdir()} == before
    assert len([*Path("/dev/fd").iterdir()]) == descriptors


def test_a_bad_change_takes_nothing_away(files: TlsFiles, caplog: pytest.LogCaptureFixture) -> None:
    tls = ServerTls(files)
    before = tls.material
    assert not tls.changed()
    files.key.write_bytes(AUTHORITY.server().key_pem)
    assert tls.changed()
    assert tls.read() is None
    assert tls.material is before
    assert "is not the key of the first certificate" in caplog.text
    assert "PRIVATE" not in caplog.text
    assert not tls.changed(), "it is told of once"


def test_a_mode_that_is_mended_counts_as_a_change(files: TlsFiles) -> None:
    tls = ServerTls(files)
    files.key.chmod(0o640)
    assert tls.read() is None
    files.key.chmod(0o600)
    assert tls.changed()


def test_the_same_again_is_no_news(files: TlsFiles) -> None:
    tls = ServerTls(files)
    heard: list[object] = []
    tls.on_change = heard.append
    tls.take(load(files))
    assert not heard


def test_a_certificate_that_ends_soon_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    AUTHORITY.client(expires_in=timedelta(days=6)).write(tmp_path, "server")
    ServerTls(TlsFiles(certificate=tmp_path / "server.pem", key=tmp_path / "server.key"))
    AUTHORITY.client(expires_in=timedelta(days=8)).write(tmp_path, "server")
    ServerTls(TlsFiles(certificate=tmp_path / "server.pem", key=tmp_path / "server.key"))
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


async def test_changed_files_count_within_an_interval_and_at_once_when_told(files: TlsFiles) -> None:
    tls = ServerTls(files)

    async def serves() -> str:
        return tls.material.cert_sha256

    async with TlsWatch(tls, interval=0.01):
        second = replace_server(files)
        await eventually(serves, until=second.sha256.__eq__)
        files.certificate.write_bytes(b"none")
        await eventually(lambda: _wrapped(tls.changed), until=lambda changed: not changed)
        assert await serves() == second.sha256
        third = replace_server(files)
        await eventually(serves, until=third.sha256.__eq__)
    async with TlsWatch(tls, interval=600) as watch:
        fourth = replace_server(files)
        watch.look()
        await eventually(serves, until=fourth.sha256.__eq__)


async def test_clients_that_can_not_be_told_do_not_end_the_watch(files: TlsFiles) -> None:
    tls = ServerTls(files)

    def full(_: object) -> None:
        tls.on_change = lambda _: None
        raise OSError("no space left on the device")

    tls.on_change = full
    async with TlsWatch(tls, interval=0.01):
        for _ in range(2):
            new = replace_server(files)
            await eventually(lambda: _wrapped(lambda: tls.material.cert_sha256), until=new.sha256.__eq__)


async def _wrapped(look: Callable[[], object]) -> object:
    return look()


def test_authorities_that_every_user_can_change_are_refused(files: TlsFiles, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever can add one has all of `peers`."""
    authorities = files.key.parent / "ca.pem"
    authorities.chmod(0o664)
    load(files)
    assert f"chmod g-w {authorities}" in caplog.text
    authorities.chmod(0o666)
    with pytest.raises(PrivateFileError, match=f"chmod go-w {authorities}"):
        load(files)
