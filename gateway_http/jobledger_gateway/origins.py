"""Which hosts the gateway answers for, and which pages may call it."""

from collections.abc import Sequence

from aiohttp import HttpVersion11, web
from yarl import URL

from jobledger_gateway.errors import GatewayError, bad_request, problem
from jobledger_gateway.exchange import Target

ALLOWED_HEADERS = "Authorization, Content-Type, Grpc-Timeout, Last-Event-ID, X-Request-ID, X-Request-Timeout"
EXPOSED_HEADERS = "Content-Disposition, ETag, Location, Retry-After"
PREFLIGHT_SECONDS = "600"


class Origins:
    """Holds requests against names that are allowed: against DNS rebinding, and pages of other origins."""

    def __init__(self, *, hosts: Sequence[str] | None, origins: Sequence[str]) -> None:
        """`hosts` are names without port, None for any; `origins` are exact, such as `https://ops.example.org`."""
        self._hosts = None if hosts is None else {host.lower().strip("[]") for host in hosts}
        self._origins = set(origins)

    def admit(self, request: web.Request) -> Target:
        """Checks host and origin, and takes the target apart.

        Raises:
            GatewayError: `HOST_NOT_ALLOWED`, `FORBIDDEN`, or `BAD_REQUEST` for a target that is no path.
        """
        hosts = request.headers.getall("Host", [])
        if len(hosts) > 1 or (not hosts and request.version >= HttpVersion11):
            raise GatewayError(problem("BAD_REQUEST", "Send exactly one Host header"), token_first=False)
        authority, target = _split(request.raw_path)
        for name in (*hosts, *([authority] if authority is not None else [])):
            self._check_host(name)
        self._check_origin(request)
        return target

    def _check_host(self, authority: str) -> None:
        if self._hosts is not None and _host_of(authority) not in self._hosts:
            raise GatewayError(problem("HOST_NOT_ALLOWED"), token_first=False)

    def _check_origin(self, request: web.Request) -> None:
        for origin in request.headers.getall("Origin", []):
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
            "Access-Control-Expose-Headers": EXPOSED_HEADERS,
        }

    def preflight(self, request: web.BaseRequest, methods: Sequence[str]) -> dict[str, str]:
        """Headers that answer a browser's question whether it may send a request."""
        if request.headers.get("Origin", "") not in self._origins:
            return {}
        return {
            "Access-Control-Allow-Methods": ", ".join(methods),
            "Access-Control-Allow-Headers": ALLOWED_HEADERS,
            "Access-Control-Max-Age": PREFLIGHT_SECONDS,
        }


def _split(raw: str) -> tuple[str | None, Target]:
    """Authority (of an absolute target) and the rest of a request's target."""
    authority = None
    if raw.lower().startswith(("http://", "https://")):
        authority, slash, rest = raw.partition("://")[2].partition("/")
        raw = slash + rest
    if not raw.startswith("/"):
        raise bad_request("The request's target is no path")
    path, _, query = raw.partition("?")
    return authority, Target(path, query)


def _host_of(authority: str) -> str:
    """The host's name alone, lower case; "" for what is no authority."""
    if "@" in authority:
        return ""
    try:
        return (URL.build(scheme="http", authority=authority, encoded=True).host or "").lower()
    except ValueError:
        return ""


def _is_own(origin: str, request: web.Request) -> bool:
    """Whether a page that this server sent calls it."""
    return origin.lower() == f"{request.scheme}://{request.headers.get('Host', '')}".lower()
