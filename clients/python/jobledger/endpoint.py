"""Where the server is, and with which token: from arguments, the environment, or what a local server left."""

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import platformdirs

from jobledger.errors import SetupError
from jobledger.local_files import local_endpoints, local_token, read_token

NO_SERVER = "Start one with `jobledger up`, or set JOBLEDGER_TARGET to the host:port of one"


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A server, and how to be let in.

    Attributes:
        target: gRPC target, such as `127.0.0.1:50051` or `unix:/run/jobledger.sock`.
        token: what is sent as the bearer token.
        token_source: where the token was found, for people.
        cert_sha256: with TLS, hash of the certificate that the server must show, lower-case hex.
        http: base of the REST API, where it is known.
        ca_file: PEM file of whom to trust for the server's certificate.
        client: PEM files of the certificate and the key to show to the server.
    """

    target: str
    token: str = field(repr=False)
    token_source: str
    cert_sha256: str | None = None
    http: str | None = None
    ca_file: Path | None = None
    client: tuple[Path, Path] | None = None


def default_data_dir() -> Path:
    """Where a local server keeps its data unless it is told otherwise."""
    return platformdirs.user_state_path("jobledger", appauthor=False)


def resolve_endpoint(
    target: str | None = None,
    *,
    token: str | None = None,
    data_dir: str | Path | None = None,
    ca_file: Path | None = None,
    cert_file: Path | None = None,
    key_file: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Endpoint:
    """Finds the server: arguments rule, then JOBLEDGER_TARGET, JOBLEDGER_TOKEN, JOBLEDGER_TOKEN_FILE and
    JOBLEDGER_DATA_DIR, then the `endpoints.json` of a server that runs on this machine. JOBLEDGER_CA_FILE,
    JOBLEDGER_CERT_FILE and JOBLEDGER_KEY_FILE are for any other server.

    A token that is named by argument or variable goes before the one that a local server left, also with `data_dir`;
    that one is never taken for another target. With a certificate there may be no token.

    Raises:
        SetupError: no server, or no token for it, was found, or others may have put there what was.
    """
    environ = os.environ if environ is None else environ
    if target is None and data_dir is None:
        target = environ.get("JOBLEDGER_TARGET")
    directory = Path(data_dir or environ.get("JOBLEDGER_DATA_DIR") or default_data_dir())
    local = _endpoints(directory, target)
    shown = _client_files(cert_file, key_file)
    if target is None:
        if local is None:
            raise SetupError(f"No server runs on {directory}. {NO_SERVER}", error_code="E_ENGINE_UNREACHABLE")
        target = _local_target(local, directory, by_certificate=shown is not None)
    own = local is not None and target in {local.get("grpc"), _unix_target(local)}
    if not own:
        ca_file = ca_file or _path(environ.get("JOBLEDGER_CA_FILE"))
        shown = shown or _client_files(*(_path(environ.get(f"JOBLEDGER_{it}_FILE")) for it in ("CERT", "KEY")))
    try:
        found = _find_token(token, environ, directory, local if own else None)
    except SetupError:
        if shown is None:
            raise
        found = "", str(shown[0])
    if not found[0].isascii() or not found[0].isprintable():
        raise SetupError(
            f"The token from {found[1]} has characters that no token has: check that it was copied whole",
            error_code="E_AUTH_MALFORMED",
        )
    return Endpoint(
        target=target,
        token=found[0],
        token_source=found[1],
        cert_sha256=local.get("cert_sha256") if local is not None and own else None,
        http=local.get("http") if local is not None and own else None,
        ca_file=ca_file,
        client=shown,
    )


def is_local(target: str) -> bool:
    """Whether what is sent to a target stays on this machine: loopback, or a unix-domain socket."""
    if target.startswith("unix:"):
        return True
    host = host_and_port(target)[0]
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def host_and_port(target: str) -> tuple[str, int]:
    """The two parts of a TCP target; port 443 where it names none, as gRPC has it."""
    for scheme in ("dns:///", "dns:", "ipv4:", "ipv6:"):
        target = target.removeprefix(scheme)
    bracketed = target.startswith("[")
    host, separator, port = target.rpartition(":") if not target.endswith("]") else (target, "", "")
    if not separator or (":" in host and not bracketed):
        host, port = target, ""
    return host.strip("[]"), int(port) if port.isdigit() else 443


def _endpoints(directory: Path, target: str | None) -> Mapping[str, str | None] | None:
    """What a local server says of itself; None where that can't be taken, and a target that was named does without.

    One on this machine does so only where the directory is closed to the caller: whoever else could write to it may
    listen at that port, too.
    """
    try:
        return local_endpoints(directory)
    except SetupError as error:
        if target is None or (is_local(target) and not isinstance(error.__cause__, PermissionError)):
            raise
        return None


def _local_target(local: Mapping[str, str | None], directory: Path, *, by_certificate: bool) -> str:
    """The unix socket before the port: nobody else can have made it, while anyone may take a port that is free.

    Certificates are shown at the port alone.
    """
    found = (_unix_target(local), local.get("grpc"))
    target = next(filter(None, reversed(found) if by_certificate else found), None)
    if target is None:
        raise SetupError(f"The server on {directory} offers no gRPC. {NO_SERVER}", error_code="E_ENGINE_UNREACHABLE")
    return target


def _unix_target(local: Mapping[str, str | None]) -> str | None:
    path = local.get("unix")
    return f"unix:{path.removeprefix('unix:')}" if path else None


def _client_files(cert_file: Path | None, key_file: Path | None) -> tuple[Path, Path] | None:
    if cert_file is not None and key_file is not None:
        return cert_file, key_file
    if cert_file is None and key_file is None:
        return None
    raise SetupError("A client certificate takes two files: the certificate and its key", error_code="E_BAD_REQUEST")


def _path(value: str | None) -> Path | None:
    return Path(value) if value else None


def _find_token(
    token: str | None, environ: Mapping[str, str], directory: Path, local: Mapping[str, str | None] | None
) -> tuple[str, str]:
    """The token and where it was found. One that was named goes before the local server's, which lets in as admin."""
    if token:
        return token.strip(), "argument"
    local_file = local.get("token_file") if local else None
    if given := environ.get("JOBLEDGER_TOKEN"):
        return given.strip(), "JOBLEDGER_TOKEN"
    if path := environ.get("JOBLEDGER_TOKEN_FILE"):
        return read_token(path), path
    if local_file:
        return local_token(Path(local_file), directory), local_file
    raise SetupError(
        "No token: set JOBLEDGER_TOKEN, or JOBLEDGER_TOKEN_FILE to a file that holds it alone",
        error_code="E_AUTH_MISSING",
    )
