"""Methods as HTTP endpoints: descriptors and a channel in, routes out."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import grpc
from aiohttp import web
from google.api import httpbody_pb2
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from jobledger.v1 import annotations_pb2

from jobledger_gateway.answers import Answers
from jobledger_gateway.binding import Binder
from jobledger_gateway.calls import Rpc
from jobledger_gateway.conditions import not_modified
from jobledger_gateway.content import ContentEndpoint, content_response
from jobledger_gateway.exchange import Endpoint, Exchange
from jobledger_gateway.http_rule import Rule, rules_of
from jobledger_gateway.metadata import response_headers
from jobledger_gateway.streaming import StreamEndpoint, StreamSettings

SAFE = frozenset({"GET", "HEAD"})
HTTP_BODY: str = httpbody_pb2.HttpBody.DESCRIPTOR.full_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A rule, how its requests are bound, and what answers them."""

    rule: Rule
    binder: Binder
    endpoint: Endpoint

    def __str__(self) -> str:
        return str(self.rule)


class UnaryEndpoint:
    """Answers with the one message of a unary call, as JSON. An `etag` in the call's metadata becomes the answer's."""

    def __init__(self, binder: Binder, rpc: Rpc, answers: Answers) -> None:
        self._binder = binder
        self._rpc = rpc
        self._answers = answers
        self._status = response_rule(rpc.method).success_status or 200
        self._is_content = rpc.method.output_type.full_name == HTTP_BODY

    async def answer(self, exchange: Exchange) -> web.StreamResponse:
        message = self._binder.bind(exchange.incoming)
        reply = await self._rpc(message, metadata=exchange.metadata, deadline=exchange.deadline)
        headers = response_headers(reply.initial_metadata)
        if self._is_content:
            return content_response(exchange.request, reply.message, headers, status=self._status)
        unchanged = not_modified(exchange.request, headers) if exchange.request.method in SAFE else None
        if unchanged is not None:
            return unchanged
        body = self._answers.json(self._rpc.method.full_name, headers.get("ETag"), reply.message)
        return json_response(body, status=self._status, headers=headers)


def json_response(body: bytes, *, status: int, headers: Mapping[str, str]) -> web.Response:
    """A message in the plain dialect."""
    return web.Response(status=status, body=body, content_type="application/json", headers=dict(headers))


def response_rule(method: MethodDescriptor) -> annotations_pb2.HttpResponseRule:
    """How a method answers over HTTP, as its option says."""
    return method.GetOptions().Extensions[annotations_pb2.http_response]


def routes_of(
    services: Sequence[ServiceDescriptor], channel: grpc.aio.Channel, settings: StreamSettings, stopping: asyncio.Event
) -> Iterator[Route]:
    """The routes of services. Once `stopping` is set, streams end.

    Raises:
        RuleError: an annotation can't be served.
    """
    answers = Answers()
    for service in services:
        for method in service.methods:
            rpc = Rpc(channel, method)
            for rule in rules_of(method):
                yield _route(rule, rpc, answers, settings, stopping)


def _route(rule: Rule, rpc: Rpc, answers: Answers, settings: StreamSettings, stopping: asyncio.Event) -> Route:
    ranges = response_rule(rpc.method).range
    hidden = [name for name in (ranges.offset_field, ranges.length_field) if name]
    binder = Binder(rule, hidden=hidden)
    return Route(rule=rule, binder=binder, endpoint=_endpoint(binder, rpc, answers, settings, stopping))


def _endpoint(
    binder: Binder, rpc: Rpc, answers: Answers, settings: StreamSettings, stopping: asyncio.Event
) -> Endpoint:
    if not rpc.method.server_streaming:
        return UnaryEndpoint(binder, rpc, answers)
    if rpc.method.output_type.full_name == HTTP_BODY:
        return ContentEndpoint(binder, rpc, response_rule(rpc.method).range)
    return StreamEndpoint(binder, rpc, response_rule(rpc.method).stream, settings=settings, stopping=stopping)
