"""`/docs`: a page that shows the OpenAPI document and lets people try it. It needs no network but this gateway."""

from collections.abc import Mapping
from importlib import resources
from typing import Any

import orjson
from aiohttp import web

from jobledger_gateway.exchange import Exchange, Page

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
FILES = {
    "/docs": ("docs.html", "text/html"),
    "/docs/docs.css": ("docs.css", "text/css"),
    "/docs/docs.js": ("docs.js", "text/javascript"),
}


class Docs:
    """The document and the page's files, read once."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = orjson.dumps(document)

    def pages(self) -> dict[str, Page]:
        """The endpoints by path."""
        served = {path: _file(name, media_type) for path, (name, media_type) in FILES.items()}
        return {"/v1/openapi.json": _bytes(self._document, "application/json"), **served}


def _file(name: str, media_type: str) -> Page:
    data = resources.files("jobledger_gateway").joinpath("pages", name).read_bytes()
    return _bytes(data, media_type)


def _bytes(data: bytes, media_type: str) -> Page:
    async def respond(_: Exchange) -> web.StreamResponse:
        headers = {"Content-Security-Policy": CSP}
        return web.Response(body=data, content_type=media_type, charset="utf-8", headers=headers)

    return Page(respond)
