"""One request on its way through the gateway."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from aiohttp import web

from jobledger_gateway.binding import Incoming
from jobledger_gateway.errors import GatewayError, bad_request, problem
from jobledger_gateway.metadata import Metadata, Passing, deadline, request_metadata

# A client that sends its body more slowly than this only holds a connection.
BODY_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Target:
    """A request's target: the raw segments of its path, and its raw query."""

    path: str
    query: str

    @property
    def segments(self) -> list[str]:
        return self.path.split("/")[1:]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """A request that found its route.

    Attributes:
        metadata: what calls made for it carry.
        deadline: seconds that the client gives, or None.
        passing: what else passes between headers and metadata.
    """

    request: web.Request
    incoming: Incoming
    metadata: Metadata
    deadline: float | None
    passing: Passing

    def answers_with(self, initial: Iterable[tuple[str, str | bytes]] | None) -> dict[str, str]:
        """Headers that a call's initial metadata sets on the answer."""
        return self.passing.to_headers(initial)


class Endpoint(Protocol):
    """What answers the requests of a route."""

    async def answer(self, exchange: Exchange) -> web.StreamResponse:
        """Answers.

        Raises:
            GatewayError: the request is refused.
            grpc.aio.AioRpcError: a call failed.
        """


@dataclass(frozen=True, slots=True)
class Page:
    """An endpoint that is a plain function."""

    respond: Callable[[Exchange], Awaitable[web.StreamResponse]]

    async def answer(self, exchange: Exchange) -> web.StreamResponse:
        return await self.respond(exchange)


async def receive(
    request: web.Request, target: Target, *, verb: str, max_body_bytes: int, passing: Passing
) -> Exchange:
    """Reads all there is of a request.

    Raises:
        GatewayError: `TOO_LARGE`, `REQUEST_TIMEOUT`, or a header that can't be read.
    """
    segments = target.segments
    if verb:
        segments[-1] = segments[-1].removesuffix(f":{verb}")
    return Exchange(
        request=request,
        incoming=Incoming(
            segments=segments,
            query=target.query,
            body=await _read_body(request, max_body_bytes),
            content_type=request.headers.get("Content-Type"),
        ),
        metadata=(*request_metadata(request), *passing.to_metadata(request)),
        deadline=deadline(request),
        passing=passing,
    )


async def _read_body(request: web.Request, limit: int) -> bytes:
    """The body, inflated where it came compressed. The limit holds for what it inflates to."""
    if not request.body_exists:
        return b""
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > limit:
                    raise too_large(limit)
    except TimeoutError:
        raise GatewayError(
            problem("REQUEST_TIMEOUT", f"The body did not arrive within {BODY_SECONDS:g} s"), token_first=False
        ) from None
    except web.RequestPayloadError:
        raise bad_request("The body ends early, or is not in the encoding that its headers say") from None
    return bytes(body)


def too_large(limit: int) -> GatewayError:
    """A body over the limit: a limit of the transport, told before the token is looked at."""
    return GatewayError(problem("TOO_LARGE", f"The body is over {limit} bytes"), token_first=False)
