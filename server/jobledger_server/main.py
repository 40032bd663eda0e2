"""`jobledger up` and `jobledger config show`: arguments in, exit code out."""

import asyncio
import json
import logging
import os
import shlex
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from jobledger_server.access.oidc_settings import OidcSettings
from jobledger_server.access.private_files import PrivateFileError
from jobledger_server.access.tls_files import TlsFileError, TlsMaterial
from jobledger_server.config import Settings, SettingsError, resolve, settings_of
from jobledger_server.core.job_types import JobTypes
from jobledger_server.core.ports import NewerAttemptError, StoreUnavailableError
from jobledger_server.core.ports.archive import ArchiveError
from jobledger_server.core.retention import Retention
from jobledger_server.executors.local import core_dumps, open_files
from jobledger_server.executors.local.isolation import LEVELS, IsolationError
from jobledger_server.job_type_settings import shown
from jobledger_server.lifecycle import (
    StartError,
    StartStoppedError,
    announced,
    given_up,
    locked,
    on_hangup,
    settle_memory,
    stop_signals,
)
from jobledger_server.service.archiving import RolledBackError
from jobledger_server.service.signing import KeyRingError
from jobledger_server.stores.errors import SchemaError
from jobledger_server.wiring.embedded import Embedded, embedded

# grpc would otherwise wait for every open stream at a fork, and the server never forks.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

log = logging.getLogger(__name__)
ENDPOINTS = "endpoints.json"
DRAIN_SECONDS = 5.0
START_ERRORS = (
    *(StartError, IsolationError, PrivateFileError, KeyRingError, NewerAttemptError, SchemaError),
    *(StoreUnavailableError, ArchiveError, RolledBackError, TlsFileError),
)
# Settings that are too much for a line.
TABLES = ("peers", "oidc", "job_types")
REFERENCES = "A variable of the server's, or a file or directory, that jobs may refer to; may be repeated."
QUEUE_LIMIT = "Jobs of a queue that run at a time; may be repeated."
LABEL_LIMIT = "Jobs with a label that run at a time, for each of its values or for one; may be repeated."
SETTINGS = (
    click.option("--data-dir", type=click.Path(path_type=Path), help="Where everything is kept."),
    click.option("--host", help="Address to listen on; beyond loopback it takes TLS."),
    click.option("--grpc-port", type=click.IntRange(0, 65535), help="0 picks a free one. Default 50051."),
    click.option("--http-port", type=click.IntRange(0, 65535), help="0 picks a free one. Default 8080."),
    click.option("--insecure-bind", is_flag=True, default=None, help="Listen beyond loopback without TLS."),
    click.option("--tls-certificate", type=click.Path(path_type=Path), help="PEM: both ports speak TLS with it."),
    click.option("--tls-key", type=click.Path(path_type=Path), help="PEM of its key, mode 600."),
    click.option("--tls-client-ca", type=click.Path(path_type=Path), help="PEM: clients need a certificate of theirs."),
    click.option("--max-running", type=click.IntRange(1), help="Jobs that run at a time. Default: cores."),
    click.option("--queue-limit", "queue_limits", multiple=True, metavar="QUEUE=N", help=QUEUE_LIMIT),
    click.option("--label-limit", "label_limits", multiple=True, metavar="KEY[=VALUE]=N", help=LABEL_LIMIT),
    click.option("--secret", "secrets", multiple=True, metavar="NAME|/PATH", help=REFERENCES),
    click.option(
        "--isolation", type=click.Choice(LEVELS), help="What keeps jobs from the server's files. Default none."
    ),
    click.option("--stop-jobs", is_flag=True, default=None, help="Stop the jobs when the server stops."),
    click.option("--config", "file", type=click.Path(path_type=Path), help="A TOML file with settings."),
)


def setting_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options that set something, on whatever takes settings."""
    for option in reversed(SETTINGS):
        command = option(command)
    return command


@click.command()
@setting_options
def up(file: Path | None, **flags: Any) -> None:
    """Run the whole system on this machine: gRPC, REST, SQLite, local processes."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    open_files.raise_limit()
    core_dumps.forbid()
    core_dumps.shut_out()
    try:
        settings = settings_of(resolve(flags, os.environ, file))
        with locked(settings.data_dir):
            # One that a killed server left would lead clients astray until this one is ready.
            (settings.data_dir / ENDPOINTS).unlink(missing_ok=True)
            asyncio.run(serve(settings))
    except SettingsError as error:
        raise click.UsageError(str(error)) from None
    except START_ERRORS as error:
        raise click.ClickException(str(error)) from None


@click.group()
def config() -> None:
    """The settings of `jobledger up`."""


@config.command()
@setting_options
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def show(file: Path | None, *, as_json: bool, **flags: Any) -> None:
    """Say what each setting of `jobledger up` with these options is, and where it comes from."""
    try:
        found = resolve(flags, os.environ, file)
    except SettingsError as error:
        raise click.UsageError(str(error)) from None
    values = {setting.name: {"value": _printable(setting.value), "source": setting.source} for setting in found}
    if as_json:
        click.echo(json.dumps(values))
        return
    for name, setting in values.items():
        click.echo(f"{_toml(name, setting['value']):57} # {setting['source']}")


def _toml(name: str, value: Any) -> str:
    """The setting as a line for the file; as a comment where nothing is set, or where it takes a table."""
    if value is None or (name in TABLES and not value):
        return f"# {name} is not set"
    if name in TABLES:
        return f"# {name}: {value if isinstance(value, str) else ', '.join(value)}"
    # What JSON writes of texts, numbers, booleans and lists of texts is TOML, too.
    return f"{name} = {json.dumps(value, ensure_ascii=False)}"


def _printable(value: Any) -> Any:
    if isinstance(value, JobTypes):
        return shown(value)
    if isinstance(value, tuple):
        return [str(item) for item in value]
    return str(value) if isinstance(value, Path | Retention | OidcSettings) else value


async def serve(settings: Settings) -> None:
    """Serves until it is told to stop; then drains. Told so before it serves, it gives its start up."""
    async with AsyncExitStack() as stack:
        stop = stack.enter_context(stop_signals())
        stack.enter_context(suppress(StartStoppedError))
        with given_up(stop):
            server = await stack.enter_async_context(embedded(settings))
        settle_memory()
        endpoints = endpoints_of(server)
        with announced(settings.data_dir / ENDPOINTS, endpoints) as announce:
            if server.tls is not None:
                stack.enter_context(on_hangup(server.tls.look))
                server.tls.tls.on_change = lambda material: announce({**endpoints, **certificate_of(material)})
            click.echo(greeting(server))
            await stop.wait()
        await drain(server, stop_jobs=settings.stop_jobs)


async def drain(server: Embedded, *, stop_jobs: bool) -> None:
    """Takes no new calls, tells the watchers, and lets the calls under way finish."""
    server.limits.close()
    await _or_go_on(server.events.announce_shutdown(stopping_jobs=stop_jobs))
    if stop_jobs:
        await _or_go_on(server.cancelling.stop_all())
    await server.server.stop(grace=DRAIN_SECONDS)


async def _or_go_on(step: Awaitable[None]) -> None:
    """Nothing that fails keeps a server from stopping as it should."""
    try:
        await step
    except Exception:
        log.exception("the server stops, and can't do all that belongs to that")


def endpoints_of(server: Embedded) -> Mapping[str, Any]:
    """What `endpoints.json` says."""
    return {
        "pid": os.getpid(),
        "started_at": datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "grpc": server.grpc_address,
        "http": server.http_url,
        "unix": server.unix_path,
        "http_unix": server.http_unix_path,
        "token_file": str(server.token_file),
        **certificate_of(None if server.tls is None else server.tls.tls.material),
    }


def certificate_of(material: TlsMaterial | None) -> Mapping[str, Any]:
    """What `endpoints.json` says of the certificate that clients are to find."""
    return {"cert_sha256": None if material is None else material.cert_sha256}


def greeting(server: Embedded) -> str:
    """What a person needs to go on; the token itself is never shown."""
    return "\n".join(
        (
            f"Jobledger listens: gRPC {server.grpc_address}, REST {server.http_url}, docs {server.http_url}/docs",
            f"The token is in {server.token_file}. Ctrl-C stops the server; jobs go on.",
            *_to_paste(server),
        )
    )


def _to_paste(server: Embedded) -> Sequence[str]:
    """Lines that work as they are. Under TLS they go by the sockets: whom clients trust, and what they show, is theirs
    to say.
    """
    bearer = f'-H "authorization: Bearer $(cat {shlex.quote(str(server.token_file))})"'
    url, grpc, http, target = server.http_url, "-plaintext", "", server.grpc_address
    if server.tls is not None:
        if server.unix_path is None or server.http_unix_path is None:
            return ("Clients need the PEM file of whom to trust: jobledger --ca-file, curl --cacert, grpcurl -cacert.",)
        url, grpc, target = "http://localhost", "-plaintext -unix", shlex.quote(server.unix_path)
        http = f"--unix-socket {shlex.quote(server.http_unix_path)} "
    return (
        f"  curl -s {http}{bearer} {url}/v1/jobs",
        f"  grpcurl {grpc} {bearer} {target} jobledger.v1.JobService/ListJobs",
    )
