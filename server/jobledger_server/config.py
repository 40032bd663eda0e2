"""Settings: flags over `JOBLEDGER_*` over a TOML file over defaults."""

import json
import os
import re
import tempfile
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import platformdirs

from jobledger_server.access.certificates import Peer, peers_of
from jobledger_server.access.oidc_settings import OidcSettings, OidcSettingsError, oidc_of
from jobledger_server.access.private_files import PrivateFileError, read_guarded
from jobledger_server.core.job_types import NO_JOB_TYPES, JobTypes
from jobledger_server.core.retention import DEFAULT_RETENTION, Retention, retention_of
from jobledger_server.core.secret_references import AllowedSecrets
from jobledger_server.executors.local.isolation import LEVELS, NONE
from jobledger_server.job_type_settings import JobTypeError, check_job_types, job_types_of

PREFIX = "JOBLEDGER_"
LOOPBACK = ("127.0.0.1", "::1", "localhost")
# As the API takes it.
QUEUE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


class SettingsError(Exception):
    """A setting that can't be; the message names it, where it comes from and what it may be."""


class Limit(NamedTuple):
    """How many jobs of a queue, or with a label, may run at a time."""

    name: str
    most: int

    def __str__(self) -> str:
        return f"{self.name}={self.most}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What can be set.

    Attributes:
        data_dir: where everything is kept; only its owner may enter.
        host: address to listen on; anything but loopback takes TLS, or `insecure_bind`.
        grpc_port, http_port: 0 picks a free one.
        insecure_bind: whether tokens may cross a network in the clear.
        unix_socket: whether to listen on `grpc.sock` and `http.sock` in `<data_dir>/run` too.
        tls_certificate: PEM file of the certificate with its chain; both ports speak TLS then.
        tls_key: PEM file of its key, which only its owner may read.
        tls_client_ca: PEM file of authorities; both ports ask clients for a certificate of theirs then.
        peers: what clients may do that show a certificate and no token.
        oidc: an OpenID Connect issuer whose tokens are taken too, and what they let their holders do.
        max_running: jobs that run at a time.
        queue_limits: of them, how many may be of one queue; a queue without a limit here has none of its own.
        label_limits: of them, how many may have one label: `key` for each value of it, `key=value` for that one.
        isolation: what keeps jobs from the files of the server and of other jobs: none, landlock or bwrap.
        roots: where working directories and input files of jobs may lie.
        secrets: what `env` of jobs may refer to: names of variables of the server's environment, paths of files and
            directories.
        job_types: kinds of job that are declared, for those who may not run any command.
        signer: command that signs receipts, in place of a key of the server's own.
        signer_key: PEM file of the command's public key.
        retention: how long events, logs, directories of jobs and jobs are kept.
        warn_free_bytes: with less room on the disk the engine's health says so.
        min_free_bytes: with less room on the disk no new jobs and no follow-ups are accepted.
        stop_jobs: whether the end of the server ends the jobs.
        public_metrics: whether /metrics needs no token.
        token_streams: streams that one token may have open at a time.
        token_calls: calls that one token may have under way at a time, streams and waits among them.
        token_rate, token_burst: requests that one token may make a second, and at once; a rate of 0 is no limit.
        audit_reads: whether the audit log has calls that change nothing, too.
        allowed_hosts, allowed_origins: names beyond loopback that the Host and Origin headers may have.
    """

    data_dir: Path
    host: str = "127.0.0.1"
    grpc_port: int = 50051
    http_port: int = 8080
    insecure_bind: bool = False
    unix_socket: bool = True
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    peers: tuple[Peer, ...] = ()
    oidc: OidcSettings | None = None
    max_running: int = os.cpu_count() or 1
    queue_limits: tuple[Limit, ...] = ()
    label_limits: tuple[Limit, ...] = ()
    isolation: str = NONE
    roots: tuple[Path, ...] = ()
    secrets: tuple[str, ...] = ()
    job_types: JobTypes = NO_JOB_TYPES
    signer: str = ""
    signer_key: Path | None = None
    retention: Retention = DEFAULT_RETENTION
    warn_free_bytes: int = 1024 * 1024 * 1024
    min_free_bytes: int = 100 * 1024 * 1024
    stop_jobs: bool = False
    public_metrics: bool = False
    token_streams: int = 100
    token_calls: int = 512
    token_rate: int = 1000
    token_burst: int = 2000
    audit_reads: bool = False
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Setting:
    """A value and where it comes from, such as `flag`, `JOBLEDGER_HOST`, a file's path, `default`."""

    name: str
    value: Any
    source: str


def default_data_dir() -> Path:
    """The platform's directory for state."""
    return Path(platformdirs.user_state_dir("jobledger", appauthor=False))


def resolve(flags: Mapping[str, Any], environment: Mapping[str, str], file: Path | None) -> list[Setting]:
    """Every setting with its source. A flag that is None, or an empty tuple, was not given.

    Raises:
        SettingsError: a value is not of its kind, a name in the file is unknown, or every user can write to the file.
    """
    from_file = _read(file) if file else {}
    found = []
    for field in fields(Settings):
        name, variable = field.name, PREFIX + field.name.upper()
        if flags.get(name) not in (None, ()):
            value, source = flags[name], "flag"
        elif variable in environment:
            value, source = environment[variable], variable
        elif name in from_file:
            value, source = from_file[name], str(file)
        else:
            found.append(Setting(name, _default(name, field.default), "default"))
            continue
        found.append(Setting(name, _parsed(name, value, source), source))
    return found


def settings_of(found: list[Setting]) -> Settings:
    """The settings as one object.

    Raises:
        SettingsError: they don't go together.
    """
    for setting in found:
        _check(setting)
    _check_transport({setting.name: setting for setting in found})
    settings = Settings(**{setting.name: setting.value for setting in found})
    secrets = AllowedSecrets.of(settings.secrets)
    try:
        check_job_types(settings.job_types, roots=settings.roots, hidden=settings.data_dir, secrets=secrets)
    except JobTypeError as error:
        raise SettingsError(f"job_types: {error}") from None
    return settings


def _check(setting: Setting) -> None:
    given = f"{setting.name}: {setting.value} (from {setting.source})"
    if setting.name == "host" and not setting.value:
        raise SettingsError(f"{given} must be an address, such as 127.0.0.1")
    if setting.name in ("grpc_port", "http_port") and not 0 <= setting.value <= 65535:
        raise SettingsError(f"{given} must be a port, 0 to 65535")
    if setting.name in ("max_running", "token_streams", "token_calls", "token_burst") and setting.value < 1:
        raise SettingsError(f"{given} must be at least 1")
    if setting.name in ("warn_free_bytes", "min_free_bytes", "token_rate") and setting.value < 0:
        raise SettingsError(f"{given} must be at least 0")
    if setting.name == "isolation" and setting.value not in LEVELS:
        raise SettingsError(f"{given} must be one of {', '.join(LEVELS)}")
    if setting.name == "secrets":
        _check_secrets(setting)
    if setting.name in ("queue_limits", "label_limits"):
        for limit in setting.value:
            _check_limit(limit, setting)


def _check_transport(by_name: Mapping[str, Setting]) -> None:
    """That what is said of host and TLS goes together."""
    host, certificate, key = by_name["host"], by_name["tls_certificate"], by_name["tls_key"]
    if (certificate.value is None) != (key.value is None):
        given, missing = (key, certificate) if certificate.value is None else (certificate, key)
        raise SettingsError(f"{given.name}: {given.value} (from {given.source}) needs {missing.name} beside it")
    for name, needed in (("tls_client_ca", certificate), ("peers", by_name["tls_client_ca"])):
        if by_name[name].value and not needed.value:
            raise SettingsError(f"{name} (from {by_name[name].source}) is of no use without {needed.name}: set both")
    if host.value not in LOOPBACK and certificate.value is None and not by_name["insecure_bind"].value:
        raise SettingsError(
            f"host: {host.value} (from {host.source}) is not loopback, and without TLS tokens would cross the network"
            " in the clear: set tls_certificate and tls_key, or accept it with --insecure-bind"
        )


def _check_secrets(setting: Setting) -> None:
    try:
        AllowedSecrets.of(setting.value)
    except ValueError as error:
        raise SettingsError(f"{setting.name}: {error} (from {setting.source})") from None


def _check_limit(limit: Limit, setting: Setting) -> None:
    given = f"{setting.name}: {limit} (from {setting.source})"
    if limit.most < 1:
        raise SettingsError(f"{given} must be at least 1")
    if sum(other.name == limit.name for other in setting.value) > 1:
        raise SettingsError(f"{given} is one of several limits for {limit.name}: keep one")
    if setting.name == "queue_limits" and not QUEUE_NAME.fullmatch(limit.name):
        raise SettingsError(f"{given} must name a queue: letters, digits, '_', '.' and '-', a letter or digit first")
    if setting.name == "label_limits" and not limit.name.partition("=")[0]:
        raise SettingsError(f"{given} must name a label, as in tenant=3, or a label and its value, as in gpu=a100=1")


def _read(file: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(read_guarded(file).decode())
    except PrivateFileError as error:
        raise SettingsError(str(error)) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{file} can't be read: {error}") from None
    unknown = values.keys() - {field.name for field in fields(Settings)}
    if unknown:
        raise SettingsError(f"{file}: there is no setting {', '.join(sorted(unknown))}")
    return values


def _default(name: str, default: Any) -> Any:
    if name == "data_dir":
        return default_data_dir()
    if name == "roots":
        return (Path.home(), Path(tempfile.gettempdir()))
    return default


def _parsed(name: str, value: Any, source: str) -> Any:
    kind = next(field.type for field in fields(Settings) if field.name == name)
    parse, described = PARSERS[kind]
    try:
        return parse(value)
    except (JobTypeError, OidcSettingsError) as error:
        raise SettingsError(f"{name}: {error} (from {source})") from None
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError):
        given = ",".join(value) if isinstance(value, tuple) else value
        raise SettingsError(f"{name}: {given!r} (from {source}) is not {described}") from None


def _integer(value: Any) -> int:
    if isinstance(value, bool | float):
        raise TypeError(value)
    return int(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def _boolean(value: Any) -> bool:
    return {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}[str(value).lower()]


def _strings(value: Any) -> tuple[str, ...]:
    return tuple(part for part in value.split(",") if part) if isinstance(value, str) else tuple(map(_text, value))


def _limits(value: Any) -> tuple[Limit, ...]:
    if isinstance(value, Mapping):
        return tuple(Limit(name, _integer(most)) for name, most in value.items())
    pairs = (text.rpartition("=") for text in _strings(value))
    return tuple(Limit(name, int(most)) for name, _, most in pairs)


def _peers(value: Any) -> tuple[Peer, ...]:
    return peers_of(json.loads(value) if isinstance(value, str) else value)


def _oidc(value: Any) -> OidcSettings:
    return oidc_of(json.loads(value) if isinstance(value, str) else value)


def _retention(value: Any) -> Retention:
    """From a table, whose values may be tables themselves, or from a text."""
    if not isinstance(value, Mapping):
        pairs = [text.partition("=") for text in _strings(value)]
        return retention_of((name, age) for name, _, age in pairs)
    rules = []
    for name, rule in value.items():
        inner = rule.items() if isinstance(rule, Mapping) else [("", rule)]
        rules += [(f"{name}.{part}" if part else name, _text(age)) for part, age in inner]
    return retention_of(rules)


def _path(value: Any) -> Path:
    return Path(value).expanduser().absolute()


# By the annotation of the field in `Settings`.
PARSERS: dict[Any, tuple[Callable[[Any], Any], str]] = {
    Path: (_path, "a path"),
    Path | None: (_path, "a path"),
    str: (_text, "a text"),
    int: (_integer, "a whole number"),
    bool: (_boolean, "true or false"),
    tuple[str, ...]: (_strings, "a list of texts, with commas between"),
    tuple[Limit, ...]: (_limits, "a list of limits such as gpu=2, with commas between"),
    tuple[Peer, ...]: (_peers, 'by URI or subject, as {"spiffe://a": {"scopes": ["jobs:read"], "workspaces": ["w"]}}'),
    OidcSettings | None: (_oidc, "a table with issuer, audience and scope_map"),
    JobTypes: (job_types_of, "a table of declarations"),
    Retention: (_retention, "a list of ages such as events=7d,logs.info=24h,jobs=never, with commas between"),
    tuple[Path, ...]: (lambda value: tuple(map(_path, _strings(value))), "a list of paths, with commas between"),
}
