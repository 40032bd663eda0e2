"""A server that is known by the hash of its certificate: looked at before anything is sent, and trusted alone then."""

import hashlib
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobledger.endpoint import host_and_port
from jobledger.errors import SetupError

TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pinned:
    """The one certificate to trust, PEM, and a host that it is for."""

    pem: bytes
    name: str


def pinned(target: str, cert_sha256: str, *, client: tuple[Path, Path] | None = None) -> Pinned:
    """What a server shows, once it is known to be what was expected. Nothing is sent but the handshakes.

    Whoever takes the server's place afterwards has another key, and a channel that trusts this certificate alone
    will not speak to it.

    Args:
        client: files of the certificate and the key to show.

    Raises:
        SetupError: nobody answers, or with another certificate, or one that is no good.
    """
    shown, _ = _handshake(target, _context(client))
    if hashlib.sha256(shown).hexdigest() != cert_sha256.lower():
        raise SetupError(
            f"The server at {target} shows another certificate than its endpoints.json says: the token was not sent",
            error_code="E_AUTH_INVALID",
        )
    strict = _context(client)
    strict.load_verify_locations(cadata=shown)
    strict.verify_mode = ssl.CERT_REQUIRED
    strict.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    _, told = _handshake(target, strict)
    return Pinned(pem=ssl.DER_cert_to_PEM_cert(shown).encode(), name=_host(told, host_and_port(target)[0]))


def _context(client: tuple[Path, Path] | None) -> ssl.SSLContext:
    """One that takes any certificate: it is its hash that counts."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if client is not None:
        try:
            context.load_cert_chain(*client)
        except OSError as error:
            raise SetupError(
                f"{client[0]} with {client[1]} can't be used: {error}", error_code="E_BAD_REQUEST"
            ) from error
    return context


def _handshake(target: str, context: ssl.SSLContext) -> tuple[bytes, Mapping[str, Any]]:
    """The server's certificate: DER, and what it says if the context verifies."""
    try:
        with (
            socket.create_connection(host_and_port(target), TIMEOUT_SECONDS) as plain,
            context.wrap_socket(plain) as seen,
        ):
            return seen.getpeercert(binary_form=True) or b"", seen.getpeercert() or {}
    except ssl.SSLCertVerificationError as error:
        raise SetupError(
            f"The certificate of the server at {target} is no good ({error.verify_message}): the token was not sent",
            error_code="E_AUTH_INVALID",
        ) from error
    except ssl.SSLError as error:
        raise SetupError(
            f"What listens at {target} does not speak TLS as the server does ({error.reason}): the token was not sent",
            error_code="E_AUTH_INVALID",
        ) from error
    except OSError as error:
        raise SetupError(
            f"Cannot reach a server at {target}: {error}. Is it running?", error_code="E_ENGINE_UNREACHABLE"
        ) from error


def _host(certificate: Mapping[str, Any], wanted: str) -> str:
    """A host that a certificate is for, the wanted one before others."""
    names = [value for kind, value in certificate.get("subjectAltName", ()) if kind in ("DNS", "IP Address")]
    if wanted in names or not names:
        return wanted
    return str(names[0]).replace("*", "any", 1)
