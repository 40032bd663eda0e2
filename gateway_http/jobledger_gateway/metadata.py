"""Headers of HTTP and metadata of gRPC: what may pass, in either direction."""

import base64
import binascii
import math
import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence

from aiohttp import web
from multidict import CIMultiDict

from jobledger_gateway.errors import GatewayError, Violation, bad_request, invalid, problem

PEER, CERTIFICATE = "x-jobledger-peer", "x-jobledger-certificate-bin"
TRACING = ("traceparent", "tracestate", "x-request-id")
PASSED_ON = {
    "location": "Location",
    "content-disposition": "Content-Disposition",
    "etag": "ETag",
    "jobledger-log-dropped-bytes": "Jobledger-Log-Dropped-Bytes",
    "jobledger-log-redacted": "Jobledger-Log-Redacted",
}

MAX_DEADLINE = 330.0
# As a token of an identity provider may have: what is more is the server's to say.
MAX_CREDENTIALS = 8192
MAX_TRACING = 512

# What a value of gRPC metadata may hold.
PRINTABLE_ASCII = re.compile(r"[\x20-\x7e]*")
UNFIT = f"has more than {MAX_CREDENTIALS} bytes, or is not printable ASCII"
# An entity tag, and what one may hold between its quotes (RFC 9110, 8.8.3).
ETAG, OPAQUE_TAG = re.compile(r'(W/)?"[\x21\x23-\x7e]*"'), re.compile(r"[\x21\x23-\x7e]+")
GRPC_TIMEOUT = re.compile(r"([0-9]{1,8})([HMSmun])")
UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
SECONDS = re.compile(r"[0-9]{1,8}(\.[0-9]{1,9})?")

# Names that are HTTP's, gRPC's or ours: no option lets them pass.
NAME = re.compile(r"[0-9a-z_.-]+")
HTTP = frozenset({"host", "connection", "content-length", "content-type", "te", "trailer", "transfer-encoding"})
ALWAYS, USER_AGENT = frozenset({"authorization", *TRACING}), "user-agent"
KEPT = HTTP | {PEER, CERTIFICATE}

Metadata = tuple[tuple[str, str | bytes], ...]


class Passing:
    """What passes between headers and metadata beside what always does. Names that end in `-bin` carry base64."""

    def __init__(self, *, request: Sequence[str] = (), response: Sequence[str] = ()) -> None:
        """Takes names in any case.

        Raises:
            ValueError: a name is none, or one of HTTP's or gRPC's own.
        """
        named = dict.fromkeys(map(_checked, request))
        if USER_AGENT in named:
            raise ValueError(f"the header '{USER_AGENT}' can't pass: gRPC sends the gateway's own in its place")
        self._request = tuple(name for name in named if name not in ALWAYS)
        self._response = {name: PASSED_ON.get(name, name.title()) for name in map(_checked, response)}

    def to_metadata(self, request: web.BaseRequest) -> Iterator[tuple[str, str | bytes]]:
        """What a call carries of a request's headers.

        Raises:
            GatewayError: `BAD_REQUEST` for a value that metadata can't carry.
        """
        for name in self._request:
            for value in request.headers.getall(name, []):
                if len(value) > MAX_CREDENTIALS or not PRINTABLE_ASCII.fullmatch(value):
                    raise bad_request(f"The header {name.title()} {UNFIT}")
                yield name, _decoded(name, value) if name.endswith("-bin") else value

    def to_headers(self, initial: Iterable[tuple[str, str | bytes]] | None) -> CIMultiDict[str]:
        """Headers that a call's initial metadata sets on the answer; of a key that an option names, all values."""
        always = response_headers(initial)
        found = CIMultiDict(always)
        if self._response:
            found.extend(self.named_headers(initial, without=always))
        return found

    def named_headers(
        self, initial: Iterable[tuple[str, str | bytes]] | None, *, without: Container[str]
    ) -> CIMultiDict[str]:
        """The headers of the keys that an option names, all values of each, but for those that the answer has."""
        found = CIMultiDict[str]()
        for key, value in initial or () if self._response else ():
            name = self._response.get(key, "")
            text = base64.b64encode(value).decode() if isinstance(value, bytes) else value
            if name and name not in without and PRINTABLE_ASCII.fullmatch(text):
                found.add(name, text)
        return found


def _checked(name: str) -> str:
    lower = name.lower()
    if not NAME.fullmatch(lower) or lower in KEPT or lower.startswith("grpc-"):
        raise ValueError(f"the header '{name}' can't pass between HTTP and gRPC")
    return lower


def _decoded(name: str, value: str) -> bytes:
    text = value.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise bad_request(f"The header {name.title()} is not base64") from None


def request_metadata(request: web.BaseRequest) -> Metadata:
    """What the call carries of the request: credentials, trace, address and certificate of the client as we see them.

    Every Authorization header passes, so that the server sees where there are two.

    Raises:
        GatewayError: `AUTH_MALFORMED` for credentials that metadata can't carry.
    """
    pairs: list[tuple[str, str | bytes]] = []
    for value in request.headers.getall("Authorization", []):
        if len(value) > MAX_CREDENTIALS or not PRINTABLE_ASCII.fullmatch(value):
            raise GatewayError(problem("AUTH_MALFORMED", f"The header Authorization {UNFIT}"), token_first=False)
        pairs.append(("authorization", value))
    for name in TRACING:
        value = request.headers.get(name, "")
        if value and len(value) <= MAX_TRACING and PRINTABLE_ASCII.fullmatch(value):
            pairs.append((name, value))
    pairs.append((PEER, request.remote or "unix"))
    if (shown := _certificate(request)) is not None:
        pairs.append((CERTIFICATE, shown))
    return tuple(pairs)


def _certificate(request: web.BaseRequest) -> bytes | None:
    """The certificate (DER) that the client showed, where it was asked for one."""
    connection = request.get_extra_info("ssl_object")
    return None if connection is None else connection.getpeercert(binary_form=True)


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
    """Headers that a call's initial metadata sets on the answer: those of the allow-list.

    An entity tag gets its quotes where it has none; what can't be one is left out.
    """
    found = {
        PASSED_ON[key]: value
        for key, value in initial or ()
        if key in PASSED_ON and isinstance(value, str) and PRINTABLE_ASCII.fullmatch(value)
    }
    tag = found.get("ETag")
    if tag is not None and not ETAG.fullmatch(tag):
        del found["ETag"]
        if OPAQUE_TAG.fullmatch(tag):
            found["ETag"] = f'"{tag}"'
    return found


def lookup(initial: Iterable[tuple[str, str | bytes]] | None, key: str) -> str | None:
    """The value of a key of metadata, as text."""
    found: Mapping[str, str | bytes] = dict(initial or ())
    value = found.get(key)
    return value if isinstance(value, str) else None
