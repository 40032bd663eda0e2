"""One request on its way through the gateway."""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from aiohttp import web
from multidict import CIMultiDict

from jobledger_gateway.binding import Incoming
from jobledger_gateway.metadata import Metadata, Passing, deadline, request_metadata
from jobledger_gateway.reading import Admit, Room, read_body


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

    def answers_with(self, initial: Iterable[tuple[str, str | bytes]] | None) -> CIMultiDict[str]:
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
    request: web.Request,
    target: Target,
    *,
    verb: str,
    max_body_bytes: int,
    room: Room,
    admit: Admit,
    passing: Passing,
) -> Exchange:
    """Reads all there is of a request.

    Raises:
        GatewayError: see `read_body`, or a header that can't be read.
    """
    segments = target.segments
    if verb:
        segments[-1] = segments[-1].removesuffix(f":{verb}")
    return Exchange(
        request=request,
        incoming=Incoming(
            segments=segments,
            query=target.query,
            body=await read_body(request, max_body_bytes, room, admit),
            content_type=request.headers.get("Content-Type"),
        ),
        metadata=(*request_metadata(request), *passing.to_metadata(request)),
        deadline=deadline(request),
        passing=passing,
    )
