"""What happens to every request: limits, route, answer; and errors in the right order and shape."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

import grpc
from aiohttp import web

from jobledger_gateway.codec import PLAIN, Codec
from jobledger_gateway.errors import GatewayError, Problem, internal, problem, problem_of
from jobledger_gateway.exchange import Endpoint, Page, Target, receive
from jobledger_gateway.http_rule import RuleError, Template
from jobledger_gateway.metadata import Passing
from jobledger_gateway.metrics import Counted, Counters
from jobledger_gateway.origins import Origins
from jobledger_gateway.percent import check_path, check_target
from jobledger_gateway.reading import Room, too_large
from jobledger_gateway.router import Router
from jobledger_gateway.writing import abort, is_under_way

# Reasons for which a caller is told of the token before anything else.
TOKEN_REASONS = frozenset({"AUTH_RATE_LIMITED"})

# Asks the server whether the token is good; raises AioRpcError where it is not.
Probe = Callable[[web.Request], Awaitable[None]]
# An error's body, for the request that it answers.
Render = Callable[[web.Request, Problem], bytes]


@dataclass(frozen=True, slots=True)
class Served:
    """An endpoint at its path, and what people call it."""

    template: Template
    endpoint: Endpoint
    name: str

    def __str__(self) -> str:
        return self.name


class Gateway:
    """Answers all requests of an application."""

    def __init__(
        self,
        *,
        origins: Origins,
        max_body_bytes: int,
        counters: Counters,
        probe: Probe | None = None,
        codec: Codec = PLAIN,
        passing: Passing | None = None,
        render: Render | None = None,
    ) -> None:
        """`render` makes the bodies of errors where they are not all of one shape."""
        self._origins = origins
        self._max_body_bytes = max_body_bytes
        self._probe = probe
        self._counters = counters
        self._codec = codec
        self._passing = passing or Passing()
        self._render = render or (lambda _, told: told.encode())
        self._room = Room()
        self._router: Router[Served] = Router()

    def add(self, method: str, template: Template, endpoint: Endpoint, *, name: str) -> None:
        """Adds an endpoint; `name` tells people which.

        Raises:
            RuleError: another one answers the very same requests.
        """
        try:
            self._router.add(method, template, Served(template, endpoint, name))
        except RuleError as error:
            raise RuleError(f"{name}: {error}") from None

    def answers(self, method: str, path: str) -> bool:
        """Whether an endpoint answers these requests."""
        try:
            self._router.find(method, path.split("/")[1:])
        except GatewayError:
            return False
        return True

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answers a request, with an error where it is refused or something fails."""
        counted = self._counters.begin()
        try:
            response = await self._handle(request, counted)
            counted.status = response.status
            return response
        finally:
            self._counters.end(request.method, counted)

    async def _handle(self, request: web.Request, counted: Counted) -> web.StreamResponse:
        try:
            return await self._answer(request, counted)
        except ConnectionError:
            # The client is gone, or was cut off: there is nobody to answer.
            abort(request)
            return web.Response(status=499)
        except Exception as failure:  # noqa: BLE001 - told to the client, or logged
            if not is_under_way(request):
                return await self._refused(request, failure)
            if not isinstance(failure, GatewayError | grpc.aio.AioRpcError):
                internal(failure)
            # An error now would pass for a part of the answer.
            abort(request)
            return web.Response(status=500)

    async def _refused(self, request: web.Request, failure: Exception) -> web.StreamResponse:
        """The answer to a request that failed before anything was answered."""
        if isinstance(failure, GatewayError):
            return self._error_response(request, await self._told(request, failure))
        if isinstance(failure, grpc.aio.AioRpcError):
            answer = self._error_response(request, problem_of(failure, self._codec))
            answer.headers.extend(self._passing.named_headers(failure.initial_metadata(), without=answer.headers))
            return answer
        return self._error_response(request, internal(failure))

    async def _answer(self, request: web.Request, counted: Counted) -> web.StreamResponse:
        target = self._origins.admit(request)
        if (request.content_length or 0) > self._max_body_bytes:
            raise too_large(self._max_body_bytes)
        check_target(request.raw_path)
        check_path(target.path)
        if request.method == "OPTIONS":
            return self._options(request, target)
        served = self._router.find(request.method, target.segments)
        counted.route = served.template.text
        exchange = await receive(
            request,
            target,
            verb=served.template.verb,
            max_body_bytes=self._max_body_bytes,
            room=self._room,
            admit=partial(self._admit, request, served),
            passing=self._passing,
        )
        return await served.endpoint.answer(exchange)

    def _options(self, request: web.Request, target: Target) -> web.StreamResponse:
        allowed = self._router.allowed(target.segments)
        if not allowed:
            raise GatewayError(problem("NOT_FOUND"))
        return web.Response(
            status=204, headers={"Allow": ", ".join(allowed), **self._origins.preflight(request, allowed)}
        )

    async def _admit(self, request: web.Request, served: Served) -> None:
        """Before a body is held that a stranger may have sent. The call has the token checked in any case.

        Raises:
            GatewayError: the token is not good.
        """
        refusal = None if isinstance(served.endpoint, Page) else await self._refusal(request)
        if refusal is not None:
            raise GatewayError(refusal, token_first=False)

    async def _told(self, request: web.Request, error: GatewayError) -> Problem:
        """What the client is told: of the request's error, or of its token where that is not good."""
        refusal = await self._refusal(request) if error.token_first else None
        return refusal or error.problem

    async def _refusal(self, request: web.Request) -> Problem | None:
        """What is wrong with a request's token, if anything is; None where that can't be told."""
        if self._probe is None:
            return None
        try:
            await self._probe(request)
        except GatewayError as refused:
            return refused.problem
        except grpc.aio.AioRpcError as failure:
            if failure.code() is grpc.StatusCode.UNAUTHENTICATED:
                return problem_of(failure)
            if failure.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
                refusal = problem_of(failure)
                return refusal if refusal.reason in TOKEN_REASONS else None
        return None

    def _error_response(self, request: web.Request, told: Problem) -> web.Response:
        body = self._render(request, told)
        return web.Response(status=told.status, body=body, content_type="application/json", headers=dict(told.headers))
