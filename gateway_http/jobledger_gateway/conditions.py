"""Conditional requests (RFC 9110, 13): what the client has already is not sent again, nor what it does not want.

No answer says when it was last modified, so that conditions which go by that are overlooked, as they must be.
"""

from collections.abc import Mapping

from aiohttp import web

from jobledger_gateway.errors import GatewayError, problem

SAFE = frozenset({"GET", "HEAD"})


def etag_matches(header: str, etag: str | None, *, weak: bool) -> bool:
    """Whether a list of entity tags (or `*`) names this one.

    The weak comparison overlooks `W/` on either side; for the other, what has it is the same as nothing.
    """
    if etag is None:
        return False
    tags = [tag.strip() for tag in header.split(",")]
    if weak:
        return header.strip() == "*" or etag.removeprefix("W/") in {tag.removeprefix("W/") for tag in tags}
    return tags == [etag] and not etag.startswith("W/")


def not_modified(request: web.Request, headers: Mapping[str, str]) -> web.Response | None:
    """The 304 for a client that has what these headers of the answer name by their ETag; None for any other.

    Of other methods than GET and HEAD the call has changed already what it changes: their conditions are overlooked.

    Raises:
        GatewayError: PRECONDITION_FAILED where it wants something else.
    """
    if request.method not in SAFE:
        return None
    wanted, condition, etag = request.headers.get("If-Match"), request.headers.get("If-None-Match"), headers.get("ETag")
    if wanted is not None and etag is not None and not _is_wanted(wanted, etag):
        raise GatewayError(problem("PRECONDITION_FAILED", headers={"ETag": etag}))
    if condition is None or etag is None or not etag_matches(condition, etag, weak=True):
        return None
    return web.Response(status=304, headers={"ETag": etag})


def _is_wanted(header: str, etag: str) -> bool:
    # By the strong comparison: bytes are to be the same.
    return header.strip() == "*" or (not etag.startswith("W/") and etag in {tag.strip() for tag in header.split(",")})
