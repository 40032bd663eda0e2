"""Conditional requests (RFC 9110, 13): what the client has already is not sent again."""

from collections.abc import Mapping

from aiohttp import web


def etag_matches(header: str, etag: str | None, *, weak: bool) -> bool:
    """Whether a list of entity tags (or `*`) names this one. Only the weak comparison overlooks `W/`."""
    if etag is None:
        return False
    tags = [tag.strip() for tag in header.split(",")]
    if weak:
        return header.strip() == "*" or etag in {tag.removeprefix("W/") for tag in tags}
    return tags == [etag]


def not_modified(request: web.Request, headers: Mapping[str, str]) -> web.Response | None:
    """The 304 for a client that names the ETag among these headers of the answer; None for any other."""
    condition, etag = request.headers.get("If-None-Match"), headers.get("ETag")
    if condition is None or etag is None or not etag_matches(condition, etag, weak=True):
        return None
    return web.Response(status=304, headers={"ETag": etag})
