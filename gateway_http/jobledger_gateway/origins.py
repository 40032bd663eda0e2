"""Which hosts the gateway answers for, and which pages may call it."""

import ipaddress
import re
from collections.abc import Sequence
from functools import lru_cache

from aiohttp import HttpVersion11, hdrs, web
from yarl import URL

from jobledger_gateway.errors import GatewayError, bad_request, problem
from jobledger_gateway.exchange import Target

ALLOWED_HEADERS = "Authorization, Content-Type, Grpc-Timeout, Last-Event-ID, X-Request-ID, X-Request-Timeout"
EXPOSED_HEADERS = "Content-Disposition, ETag, Location, Retry-After"
PREFLIGHT_SECONDS = "600"
# What browsers ask before a page of the internet may reach into a private network.
PRIVATE_NETWORK = "Access-Control-Request-Private-Network"
PRIVATE_NETWORK_ALLOWED = "Access-Control-Allow-Private-Network"

# Names of hosts that are taken apart once: clients choose them, and most send the same.
REMEMBERED = 256

# Programs differ over the rest: spaces, digits that are not ASCII's, zeros before a port.
AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:(0|[1-9][0-9]{0,4})?)?")

# A host's name in lower case, and its port where there is one.
Authority = tuple[str, int | None]


class Origins:
    """Holds requests against names that are allowed: against DNS rebinding, and pages of other origins."""

    def __init__(
        self,
        *,
        hosts: Sequence[str] | None,
        origins: Sequence[str],
        sent: Sequence[str] = (),
        shown: Sequence[str] = (),
    ) -> None:
        """Takes what is allowed.

        Args:
            hosts: names, or names with a port, such as `ops.example.org` or `localhost:9000`; None for any. A name
                alone is allowed with every port, one of this machine itself with the one that it is served at.
            origins: exact, such as `https://ops.example.org`.
            sent: headers that pages may send beside the usual ones.
            shown: headers of answers that they may read beside the usual ones.
        """
        self._hosts = None if hosts is None else set(map(_listed, hosts))
        self._origins = set(origins)
        self._allowed = ", ".join((ALLOWED_HEADERS, *map(str.title, sent)))
        self._exposed = ", ".join((EXPOSED_HEADERS, *map(str.title, shown)))

    def admit(self, request: web.Request) -> Target:
        """Checks host and origin, and takes the target apart.

        Raises:
            GatewayError: `HOST_NOT_ALLOWED`, `FORBIDDEN`, or `BAD_REQUEST` for a target that is no path.
        """
        hosts = request.headers.getall(hdrs.HOST, [])
        if len(hosts) > 1 or (not hosts and request.version >= HttpVersion11):
            raise GatewayError(problem("BAD_REQUEST", "Send exactly one Host header"), token_first=False)
        authority, target = _split(request.raw_path)
        for name in hosts if authority is None else (*hosts, authority):
            self._check_host(name, request)
        self._check_origin(request)
        return target

    def _check_host(self, given: str, request: web.Request) -> None:
        if self._hosts is None:
            return
        name, port = _named(given)
        if port is not None and (name, port) in self._hosts:
            return
        if (name, None) not in self._hosts or (
            port is not None and _is_loopback(name) and port != _own_port(request, port)
        ):
            raise GatewayError(problem("HOST_NOT_ALLOWED"), token_first=False)

    def _check_origin(self, request: web.Request) -> None:
        for origin in request.headers.getall(hdrs.ORIGIN, ()):
            if origin not in self._origins and not _is_own(origin, request):
                raise GatewayError(
                    problem("FORBIDDEN", "Pages of that origin may not call this server"), token_first=False
                )

    def cors(self, request: web.BaseRequest) -> dict[str, str]:
        """Headers that let a page of an allowed origin read the answer."""
        if not self._origins:
            return {}
        origin = request.headers.get("Origin", "")
        if origin not in self._origins:
            return {"Vary": "Origin"}
        return {
            "Vary": "Origin",
            "Access-Control-Allow-Origin": origin,
            "Access-Control-Expose-Headers": self._exposed,
        }

    def preflight(self, request: web.BaseRequest, methods: Sequence[str]) -> dict[str, str]:
        """Headers that answer a browser's question whether it may send a request."""
        if request.headers.get("Origin", "") not in self._origins:
            return {}
        asked = request.headers.get(PRIVATE_NETWORK) == "true"
        return {
            "Access-Control-Allow-Methods": ", ".join(methods),
            "Access-Control-Allow-Headers": self._allowed,
            "Access-Control-Max-Age": PREFLIGHT_SECONDS,
            **({PRIVATE_NETWORK_ALLOWED: "true"} if asked else {}),
        }


def _split(raw: str) -> tuple[str | None, Target]:
    """Authority (of an absolute target) and the rest of a request's target."""
    authority = None
    if not raw.startswith("/") and raw.lower().startswith(("http://", "https://")):
        authority, slash, rest = raw.partition("://")[2].partition("/")
        raw = slash + rest
    if not raw.startswith("/"):
        raise bad_request("The request's target is no path")
    path, _, query = raw.partition("?")
    return authority, Target(path, query)


@lru_cache(REMEMBERED)
def _named(given: str) -> Authority:
    """What a client names; "" for what programs would differ over."""
    return _authority_of(given) if AUTHORITY.fullmatch(given) else ("", None)


def _authority_of(given: str) -> Authority:
    """What a Host header or an absolute target names; "" for what is no authority."""
    if "@" in given:
        return "", None
    try:
        url = URL.build(scheme="http", authority=given, encoded=True)
        return (url.host or "").lower(), url.explicit_port
    except ValueError:
        return "", None


def _listed(host: str) -> Authority:
    """A host as it is configured: an IPv6 address may stand without brackets."""
    bare = host.count(":") > 1 and not host.startswith("[")
    return _authority_of(f"[{host}]" if bare else host)


@lru_cache(REMEMBERED)
def _is_loopback(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


def _own_port(request: web.Request, port: int | None) -> int | None:
    """The port that a connection came in at; the one that is asked for where it came by a unix socket."""
    name = request.transport.get_extra_info("sockname") if request.transport is not None else None
    return int(name[1]) if isinstance(name, tuple) else port


def _is_own(origin: str, request: web.Request) -> bool:
    """Whether a page that this server sent calls it."""
    return origin.lower() == f"{request.scheme}://{request.headers.get('Host', '')}".lower()
