"""`jobledger gateway`: the REST face of a server elsewhere: of Jobledger's own, or of any gRPC service."""

import asyncio
import ipaddress
import signal
import ssl
from dataclasses import replace
from pathlib import Path

import click
import grpc
from aiohttp import web

from jobledger_gateway.app import GatewayOptions, build_app
from jobledger_gateway.transcoder import (
    CHANNEL_OPTIONS,
    DescriptorError,
    Dialect,
    RuleError,
    TranscoderOptions,
    load_comments,
    load_services,
    serve,
    transcode,
)

LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.option("--target", required=True, metavar="HOST:PORT", help="The server's gRPC address.")
@click.option("--target-tls", is_flag=True, help="Speak TLS to the server; trust whom this system trusts.")
@click.option("--target-ca", type=FILE, help="Speak TLS to the server; PEM of whom to trust.")
@click.option("--insecure-target", is_flag=True, help="Speak to a server on another machine without TLS.")
@click.option(
    "--descriptor-set",
    type=FILE,
    help="Serve the services of this FileDescriptorSet by their google.api.http annotations, not Jobledger's.",
)
@click.option(
    "--dialect",
    type=click.Choice([dialect.value for dialect in Dialect]),
    help="How messages of --descriptor-set look in JSON.  [default: plain]",
)
@click.option("--pass-header", "request_headers", multiple=True, help="A header that goes along as metadata.")
@click.option("--pass-metadata", "response_headers", multiple=True, help="Initial metadata that becomes a header.")
@click.option("--http-host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--http-port", default=8080, show_default=True, type=click.IntRange(0, 65535), help="0: a free one.")
@click.option("--allow-host", "hosts", multiple=True, help="A name that clients may call it by, beside local ones.")
@click.option("--allow-origin", "origins", multiple=True, help="Origin of pages that may call it.")
@click.option("--insecure-bind", is_flag=True, help="Listen beyond this machine without TLS.")
def gateway(
    *,
    target: str,
    target_tls: bool,
    target_ca: Path | None,
    insecure_target: bool,
    descriptor_set: Path | None,
    dialect: str | None,
    request_headers: tuple[str, ...],
    response_headers: tuple[str, ...],
    http_host: str,
    http_port: int,
    hosts: tuple[str, ...],
    origins: tuple[str, ...],
    insecure_bind: bool,
) -> None:
    """Serve the REST API over a server elsewhere, or any gRPC service as JSON over HTTP."""
    secure = target_tls or target_ca is not None
    if not insecure_bind and not _is_loopback(http_host):
        raise click.UsageError(f"{http_host} is not this machine alone: put TLS in front and pass --insecure-bind")
    _check_target(target, plaintext_anywhere=secure or insecure_target)
    if descriptor_set is None and (dialect or request_headers or response_headers):
        raise click.UsageError("--dialect, --pass-header and --pass-metadata are for services of a --descriptor-set")
    options = TranscoderOptions(
        dialect=Dialect(dialect or Dialect.PLAIN),
        allowed_hosts=(*LOCAL_NAMES, http_host, *hosts),
        allowed_origins=origins,
        request_headers=request_headers,
        response_headers=response_headers,
    )
    channel = _Channel(target, secure, target_ca)
    try:
        asyncio.run(_run(channel, descriptor_set, options, http_host, http_port))
    except (DescriptorError, RuleError, ValueError) as error:
        raise click.ClickException(str(error)) from None
    except OSError as error:
        raise click.ClickException(f"{http_host}:{http_port}: {error.strerror or error}") from None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _check_target(target: str, *, plaintext_anywhere: bool) -> None:
    if target.startswith("unix:"):
        return
    host, colon, port = target.rpartition(":")
    if not colon or not host or not port.isdecimal():
        raise click.UsageError(f"--target {target}: give it as HOST:PORT, or as unix:PATH")
    if not plaintext_anywhere and not _is_loopback(host):
        raise click.UsageError(
            f"{host} is another machine, and tokens would travel in the clear: "
            "pass --target-tls or --target-ca, or --insecure-target"
        )


async def _run(
    channel: "_Channel", descriptor_set: Path | None, options: TranscoderOptions, host: str, port: int
) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with channel.open() as opened, serve(_app(opened, descriptor_set, options), host=host, port=port) as at:
        click.echo(f"http://{at.host}:{at.port} -> {channel.target}", err=True)
        await stop.wait()


def _app(channel: grpc.aio.Channel, descriptor_set: Path | None, options: TranscoderOptions) -> web.Application:
    if descriptor_set is not None:
        services = load_services(descriptor_set)
        return transcode(services, channel, options=replace(options, texts=load_comments(descriptor_set)))
    own = GatewayOptions(allowed_hosts=options.allowed_hosts, allowed_origins=options.allowed_origins)
    return build_app(channel, options=own)


def _certificates(ca: Path) -> bytes:
    """Whom to trust, as PEM. With anything else gRPC would start, and reach nobody."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=ca)
    except ssl.SSLError:
        raise click.UsageError(f"--target-ca {ca} holds no certificate in PEM") from None
    return ca.read_bytes()


class _Channel:
    """How the server is reached."""

    def __init__(self, target: str, secure: bool, ca: Path | None) -> None:
        self.target = target
        self._secure = secure
        self._roots = None if ca is None else _certificates(ca)

    def open(self) -> grpc.aio.Channel:
        if not self._secure:
            return grpc.aio.insecure_channel(self.target, CHANNEL_OPTIONS)
        return grpc.aio.secure_channel(self.target, grpc.ssl_channel_credentials(self._roots), CHANNEL_OPTIONS)
