"""The server's certificate, its key, and whose certificates it takes: files that are checked before they count."""

import hashlib
import os
import ssl
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from jobledger_server.access.private_files import read_guarded, read_private

# The kinds of which gRPC's library presents certificates.
KEYS = (rsa.RSAPrivateKey, ec.EllipticCurvePrivateKey)
CURVES = ("secp256r1", "secp384r1")
SPKI = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


class TlsFileError(Exception):
    """A file of TLS that can't be used; the message names it and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """Where they are, PEM: the certificate with its chain, the key, the authorities of clients (None: any client)."""

    certificate: Path
    key: Path
    client_ca: Path | None = None

    def stamps(self) -> tuple[object, ...]:
        """Changes whenever a file does."""
        return tuple(_stamp(path) for path in (self.certificate, self.key, self.client_ca) if path is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsMaterial:
    """What the files hold, once it is known to go together.

    Attributes:
        chain, key, client_ca: PEM.
        context: the same, for servers on asyncio that speak HTTP/1.1.
        cert_sha256: hash of the server's own certificate, lower-case hex.
        names: hosts that the certificate is for.
        expires_at: when the certificate does.
    """

    chain: bytes
    key: bytes
    client_ca: bytes | None
    context: ssl.SSLContext
    cert_sha256: str
    names: tuple[str, ...]
    expires_at: datetime


def load(files: TlsFiles) -> TlsMaterial:
    """Reads and checks the files.

    Raises:
        TlsFileError: one can't be read, is not what it must be, or certificate and key don't go together.
        PrivateFileError: the key's file is a link, someone else's, or open to others; every user can write to the
            authorities.
    """
    chain = _read(files.certificate)
    leaf = _certificates(files.certificate, chain)[0]
    names = _names(files.certificate, leaf)
    key = read_private(files.key)
    if key is None:
        raise TlsFileError(f"{files.key} is missing: put the private key of {files.certificate} there")
    _check_key(files, leaf, key)
    client_ca = None if files.client_ca is None else _read(files.client_ca, by=read_guarded)
    if files.client_ca is not None and client_ca is not None:
        _certificates(files.client_ca, client_ca)
    return TlsMaterial(
        chain=chain,
        key=key,
        client_ca=client_ca,
        context=_context(files, chain, key, client_ca),
        cert_sha256=hashlib.sha256(leaf.public_bytes(serialization.Encoding.DER)).hexdigest(),
        names=names,
        expires_at=leaf.not_valid_after_utc,
    )


def _read(path: Path, *, by: Callable[[Path], bytes] = Path.read_bytes) -> bytes:
    try:
        return by(path)
    except OSError as error:
        raise TlsFileError(f"{path} can't be read ({error.strerror}): put a PEM file there") from None


def _certificates(path: Path, pem: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise TlsFileError(f"{path} holds no certificate as PEM (-----BEGIN CERTIFICATE-----)") from None


def _check_key(files: TlsFiles, leaf: x509.Certificate, pem: bytes) -> None:
    try:
        key = serialization.load_pem_private_key(pem, None)
    except TypeError:
        raise TlsFileError(f"{files.key} is encrypted: store it without a passphrase, mode 600") from None
    except (ValueError, UnsupportedAlgorithm):
        raise TlsFileError(f"{files.key} holds no private key as PEM (-----BEGIN PRIVATE KEY-----)") from None
    if not isinstance(key, KEYS) or (isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name not in CURVES):
        raise TlsFileError(f"{files.key} must be an RSA key, or an EC key on P-256 or P-384: make another one")
    if key.public_key().public_bytes(*SPKI) != _public_key(leaf):
        raise TlsFileError(f"{files.key} is not the key of the first certificate in {files.certificate}")


def _public_key(leaf: x509.Certificate) -> bytes | None:
    try:
        return leaf.public_key().public_bytes(*SPKI)
    except (ValueError, UnsupportedAlgorithm):
        return None


def _context(files: TlsFiles, chain: bytes, key: bytes, client_ca: bytes | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        # From the bytes that were checked: by now the files may hold others.
        with _unnamed(chain) as chain_path, _unnamed(key) as key_path:
            context.load_cert_chain(chain_path, key_path)
        if client_ca is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(cadata=client_ca.decode("ascii", "replace"))
    except ssl.SSLError as error:
        raise TlsFileError(f"{files.certificate} with {files.key} can't be served: {error.reason}") from None
    return context


@contextmanager
def _unnamed(data: bytes) -> Iterator[str]:
    """A path to a file with these bytes that has no name, and on Linux is in memory alone."""
    with _nameless() as file:
        file.write(data)
        file.flush()
        file.seek(0)
        yield f"/dev/fd/{file.fileno()}"


def _nameless() -> BinaryIO:
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("tls"), "w+b")
    return tempfile.TemporaryFile()  # type: ignore[unreachable, unused-ignore]


def _names(path: Path, leaf: x509.Certificate) -> tuple[str, ...]:
    """Host names and addresses, without those that have wildcards."""
    try:
        found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    except ValueError:
        raise TlsFileError(
            f"the first certificate in {path} has extensions that can't be read: issue it anew"
        ) from None
    hosts = [*found.get_values_for_type(x509.DNSName), *map(str, found.get_values_for_type(x509.IPAddress))]
    return tuple(host for host in hosts if "*" not in host)


def _stamp(path: Path) -> tuple[object, ...]:
    try:
        status = path.stat()
    except OSError as error:
        return (error.errno,)
    # The time of the last change of the inode: whoever mends the mode alone is heard, too.
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
