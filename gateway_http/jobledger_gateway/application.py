"""The aiohttp application around a gateway."""

import asyncio

from aiohttp import web
from aiohttp.typedefs import Handler

from jobledger_gateway.connections import SECURITY_HEADERS, SERVER
from jobledger_gateway.gateway import Gateway
from jobledger_gateway.origins import Origins


def application(gateway: Gateway, origins: Origins, stopping: asyncio.Event) -> web.Application:
    """The application that lets a gateway answer everything; `stopping` is set when it shuts down."""

    async def on_prepare(request: web.Request, response: web.StreamResponse) -> None:
        response.headers.update(origins.cors(request))
        for name, value in SECURITY_HEADERS.items():
            response.headers.setdefault(name, value)
        response.headers["Server"] = SERVER

    async def on_shutdown(_: web.Application) -> None:
        stopping.set()

    @web.middleware
    async def every_request(request: web.Request, handler: Handler) -> web.StreamResponse:  # noqa: ARG001
        # Before aiohttp's own router has a say: it knows no target such as `*`, and answers in text.
        return await gateway.handle(request)

    app = web.Application(middlewares=[every_request])
    app.on_response_prepare.append(on_prepare)
    app.on_shutdown.append(on_shutdown)
    app.router.add_route("*", "/{path:.*}", gateway.handle, expect_handler=_expect)
    return app


async def _expect(request: web.Request) -> None:
    """Lets a client that waits for it send its body; any other expectation is left unmet, as RFC 9110 allows."""
    if request.version >= (1, 1) and request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0
