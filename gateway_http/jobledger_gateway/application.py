"""The aiohttp application around a gateway."""

import asyncio

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler
from multidict import istr

from jobledger_gateway.connections import SECURITY_HEADERS, SERVER
from jobledger_gateway.gateway import Gateway
from jobledger_gateway.origins import Origins
from jobledger_gateway.writing import begin

# Names that need not be put into lower case for every answer.
SECURITY = tuple((istr(name), value) for name, value in SECURITY_HEADERS.items())


def application(gateway: Gateway, origins: Origins, stopping: asyncio.Event) -> web.Application:
    """The application that lets a gateway answer everything; `stopping` is set when it shuts down."""

    async def on_prepare(request: web.Request, response: web.StreamResponse) -> None:
        headers = response.headers
        if cors := origins.cors(request):
            headers.update(cors)
        for name, value in SECURITY:
            headers.setdefault(name, value)
        headers[hdrs.SERVER] = SERVER
        if hdrs.UPGRADE in request.headers or request.method == hdrs.METH_CONNECT:
            # What follows on such a connection aiohttp keeps for another protocol, which nobody here speaks.
            headers[hdrs.CONNECTION] = "close"
            response.force_close()
        begin(request)

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


async def _expect(_: web.Request) -> None:
    """Answers nothing yet: whether a body is asked for is said where it is read."""
