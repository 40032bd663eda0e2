"""Opens the channel to an endpoint, or says why it would not be safe."""

import asyncio
import hashlib
import ssl
from pathlib import Path
from typing import Final

import grpc

from jobledger.endpoint import Endpoint, host_and_port, is_local
from jobledger.errors import SetupError

_OPTIONS: Final = (
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
)


async def open_channel(
    endpoint: Endpoint, *, tls: bool = False, ca_file: Path | None = None, insecure: bool = False
) -> grpc.aio.Channel:
    """A channel: with TLS where it is asked for or the server says so, in the clear only where nobody can listen.

    Raises:
        SetupError: the token would cross a network in the clear, or the server shows another certificate.
    """
    local = is_local(endpoint.target)
    # A proxy has no business between two processes of one machine.
    options = (*_OPTIONS, ("grpc.enable_http_proxy", 0 if local else 1))
    if endpoint.cert_sha256:
        pinned = await asyncio.to_thread(_pinned_certificate, endpoint.target, endpoint.cert_sha256)
        return grpc.aio.secure_channel(endpoint.target, grpc.ssl_channel_credentials(pinned), options)
    if tls or ca_file:
        roots = await asyncio.to_thread(ca_file.read_bytes) if ca_file else None
        return grpc.aio.secure_channel(endpoint.target, grpc.ssl_channel_credentials(roots), options)
    if not local and not insecure:
        raise SetupError(
            f"{endpoint.target} is not on this machine, and without TLS the token could be read on the way: "
            "connect with TLS, or say that you accept it with insecure",
            error_code="E_BAD_REQUEST",
        )
    return grpc.aio.insecure_channel(endpoint.target, options)


def _pinned_certificate(target: str, cert_sha256: str) -> bytes:
    """The server's certificate, PEM, once it is known to be the one expected."""
    try:
        pem = ssl.get_server_certificate(host_and_port(target), timeout=10)
    except OSError as error:
        raise SetupError(
            f"Cannot reach a server at {target}: {error}. Is it running?", error_code="E_ENGINE_UNREACHABLE"
        ) from error
    seen = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()
    if seen != cert_sha256.lower():
        raise SetupError(
            f"The server at {target} shows another certificate than its endpoints.json says: the token was not sent",
            error_code="E_AUTH_INVALID",
        )
    return pem.encode()
