"""`jobledger gateway`: the REST face of a server elsewhere."""

import asyncio
import ipaddress
import signal
from pathlib import Path

import click
import grpc

from jobledger_gateway.app import GatewayOptions, build_app, serve

# Pages of the largest jobs pass gRPC's own default of 4 MiB; the server bounds them.
LARGEST_MESSAGE = 64 * 1024 * 1024
LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")


@click.command()
@click.option("--target", required=True, metavar="HOST:PORT", help="The server's gRPC address.")
@click.option(
    "--target-ca",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Speak TLS to the server; PEM of whom to trust.",
)
@click.option("--http-host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--http-port", default=8080, show_default=True, type=click.IntRange(0, 65535), help="0: a free one.")
@click.option("--allow-host", "hosts", multiple=True, help="A name that clients may call it by, beside local ones.")
@click.option("--allow-origin", "origins", multiple=True, help="Origin of pages that may call it.")
@click.option("--insecure-bind", is_flag=True, help="Listen beyond this machine without TLS.")
def gateway(
    target: str,
    target_ca: Path | None,
    http_host: str,
    http_port: int,
    hosts: tuple[str, ...],
    origins: tuple[str, ...],
    insecure_bind: bool,
) -> None:
    """Serve the REST API over a server elsewhere."""
    if not insecure_bind and not _is_loopback(http_host):
        raise click.UsageError(f"{http_host} is not this machine alone: put TLS in front and pass --insecure-bind")
    options = GatewayOptions(allowed_hosts=(*LOCAL_NAMES, http_host, *hosts), allowed_origins=origins)
    asyncio.run(_run(target, target_ca, options, http_host, http_port))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def _run(target: str, ca: Path | None, options: GatewayOptions, host: str, port: int) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with _channel(target, ca) as channel, serve(build_app(channel, options=options), host=host, port=port) as at:
        click.echo(f"http://{at.host}:{at.port} -> {target}", err=True)
        await stop.wait()


def _channel(target: str, ca: Path | None) -> grpc.aio.Channel:
    options = [("grpc.max_receive_message_length", LARGEST_MESSAGE)]
    if ca is None:
        return grpc.aio.insecure_channel(target, options)
    return grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(ca.read_bytes()), options)
