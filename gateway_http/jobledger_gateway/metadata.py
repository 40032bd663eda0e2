"""Headers of HTTP and metadata of gRPC: what may pass, in either direction."""

import math
import re
from collections.abc import Iterable, Mapping

from aiohttp import web

from jobledger_gateway.errors import GatewayError, Violation, invalid, problem

PEER = "x-jobledger-peer"
TRACING = ("traceparent", "tracestate", "x-request-id")
PASSED_ON = {"location": "Location", "content-disposition": "Content-Disposition", "etag": "ETag"}

MAX_DEADLINE = 330.0
MAX_CREDENTIALS = 4096
MAX_TRACING = 512

# What a value of gRPC metadata may hold.
PLAIN = re.compile(r"[\x20-\x7e]*")
GRPC_TIMEOUT = re.compile(r"([0-9]{1,8})([HMSmun])")
UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
SECONDS = re.compile(r"[0-9]{1,8}(\.[0-9]{1,9})?")

Metadata = tuple[tuple[str, str], ...]


def request_metadata(request: web.BaseRequest) -> Metadata:
    """What the call carries of the request: credentials, trace, and the client's address as we see it.

    Every Authorization header passes, so that the server sees where there are two.

    Raises:
        GatewayError: `AUTH_MALFORMED` for credentials that metadata can't carry.
    """
    pairs = []
    for value in request.headers.getall("Authorization", []):
        if len(value) > MAX_CREDENTIALS or not PLAIN.fullmatch(value):
            raise GatewayError(problem("AUTH_MALFORMED"), token_first=False)
        pairs.append(("authorization", value))
    for name in TRACING:
        value = request.headers.get(name, "")
        if value and len(value) <= MAX_TRACING and PLAIN.fullmatch(value):
            pairs.append((name, value))
    pairs.append((PEER, request.remote or "unix"))
    return tuple(pairs)


def deadline(request: web.BaseRequest) -> float | None:
    """Seconds that the client gives the call, at most 330; None where it says nothing.

    Raises:
        GatewayError: `VALIDATION` for a header that is no time above zero.
    """
    given = [
        _positive(name, read(request.headers[name]))
        for name, read in (("Grpc-Timeout", _grpc_timeout), ("X-Request-Timeout", _seconds))
        if name in request.headers
    ]
    return min(*given, MAX_DEADLINE) if given else None


def _grpc_timeout(text: str) -> float:
    match = GRPC_TIMEOUT.fullmatch(text)
    return int(match[1]) * UNITS[match[2]] if match else math.nan


def _seconds(text: str) -> float:
    return float(text) if SECONDS.fullmatch(text) else math.nan


def _positive(header: str, seconds: float) -> float:
    if seconds > 0:
        return seconds
    form = "such as 5S or 200m" if header == "Grpc-Timeout" else "in seconds, such as 5 or 1.5"
    raise invalid([Violation(header, f"must be a time above zero {form}")])


def response_headers(initial: Iterable[tuple[str, str | bytes]] | None) -> dict[str, str]:
    """Headers that a call's initial metadata sets on the answer: those of the allow-list."""
    return {
        PASSED_ON[key]: value
        for key, value in initial or ()
        if key in PASSED_ON and isinstance(value, str) and PLAIN.fullmatch(value)
    }


def lookup(initial: Iterable[tuple[str, str | bytes]] | None, key: str) -> str | None:
    """The value of a key of metadata, as text."""
    found: Mapping[str, str | bytes] = dict(initial or ())
    value = found.get(key)
    return value if isinstance(value, str) else None
