"""Opens the channel to an endpoint, or says why it would not be safe."""

import asyncio
from pathlib import Path
from typing import Final

import grpc

from jobledger.endpoint import Endpoint, is_local
from jobledger.errors import SetupError

_OPTIONS: Final = (
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
)


async def open_channel(endpoint: Endpoint, *, tls: bool = False, insecure: bool = False) -> grpc.aio.Channel:
    """A channel: with TLS where it is asked for or the server says so, in the clear only where nobody can listen.

    Raises:
        SetupError: the token would cross a network in the clear, the server shows another certificate, or a file
            can't be read.
    """
    local = is_local(endpoint.target)
    # A proxy has no business between two processes of one machine.
    options = (*_OPTIONS, ("grpc.enable_http_proxy", 0 if local else 1))
    if endpoint.target.startswith("unix:"):
        return grpc.aio.insecure_channel(endpoint.target, options)
    if tls or endpoint.ca_file:
        credentials = await asyncio.to_thread(_credentials, endpoint)
        return grpc.aio.secure_channel(endpoint.target, credentials, options)
    if endpoint.cert_sha256:
        from jobledger.calls.pins import pinned

        known = await asyncio.to_thread(pinned, endpoint.target, endpoint.cert_sha256, client=endpoint.client)
        credentials = await asyncio.to_thread(_credentials, endpoint, known.pem)
        named = ("grpc.ssl_target_name_override", known.name)
        return grpc.aio.secure_channel(endpoint.target, credentials, (*options, named))
    if endpoint.client:
        credentials = await asyncio.to_thread(_credentials, endpoint)
        return grpc.aio.secure_channel(endpoint.target, credentials, options)
    if not local and not insecure:
        raise SetupError(
            f"{endpoint.target} is not on this machine, and without TLS the token could be read on the way: "
            "connect with TLS, or say that you accept it with insecure",
            error_code="E_BAD_REQUEST",
        )
    return grpc.aio.insecure_channel(endpoint.target, options)


def _credentials(endpoint: Endpoint, roots: bytes | None = None) -> grpc.ChannelCredentials:
    if roots is None and endpoint.ca_file is not None:
        roots = _read(endpoint.ca_file)
    if endpoint.client is None:
        return grpc.ssl_channel_credentials(roots)
    certificate, key = endpoint.client
    return grpc.ssl_channel_credentials(roots, _read(key), _read(certificate))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SetupError(f"{path} can't be read: {error.strerror}", error_code="E_BAD_REQUEST") from error
