"""Unary calls as HTTP endpoints."""

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any

import orjson
from aiohttp import web

from jobledger_gateway.answers import Answers
from jobledger_gateway.binding import Binder
from jobledger_gateway.bodies import HTTP_BODY, is_content
from jobledger_gateway.calls import Rpc, is_own
from jobledger_gateway.codec import Codec
from jobledger_gateway.conditions import SAFE, not_modified
from jobledger_gateway.content import content_response
from jobledger_gateway.dialect import Dialect
from jobledger_gateway.encoding import encode_json, value_encoder
from jobledger_gateway.exchange import Exchange
from jobledger_gateway.http_rule import Rule

# Makes JSON of an answer and its entity tag.
Encode = Callable[[Any, str | None], bytes]


class UnaryEndpoint:
    """Answers with the one message of a unary call, as JSON. An `etag` in the call's metadata becomes the answer's."""

    def __init__(self, binder: Binder, rpc: Rpc, *, answers: Answers, codec: Codec, status: int) -> None:
        self._binder = binder
        self._rpc = rpc
        self._status = status
        self._content = content_of(binder.rule)
        self._encode = _encoder(binder.rule, answers, codec)

    async def answer(self, exchange: Exchange) -> web.StreamResponse:
        message = self._binder.bind(exchange.incoming)
        reply = await self._rpc(message, metadata=exchange.metadata, deadline=exchange.deadline)
        headers = exchange.answers_with(reply.initial_metadata)
        if self._content is not None:
            return content_response(exchange.request, self._content(reply.message), headers, status=self._status)
        unchanged = not_modified(exchange.request, headers)
        if unchanged is not None:
            return unchanged
        return json_response(self._encode(reply.message, headers.get("ETag")), status=self._status, headers=headers)


def json_response(body: bytes, *, status: int, headers: Mapping[str, str]) -> web.Response:
    """An answer of JSON."""
    return web.Response(status=status, body=body, content_type="application/json", headers=headers)


def content_of(rule: Rule) -> Callable[[Any], Any] | None:
    """What takes the google.api.HttpBody out of an answer; None where the answer is JSON."""
    if not rule.response_body:
        return (lambda message: message) if rule.rpc.output_type.full_name == HTTP_BODY else None
    field = rule.rpc.output_type.fields_by_name[rule.response_body]
    return attrgetter(field.name) if is_content(field) else None


def _encoder(rule: Rule, answers: Answers, codec: Codec) -> Encode:
    if rule.response_body:
        part = value_encoder(rule.rpc.output_type.fields_by_name[rule.response_body], codec.dialect)
        return lambda message, _: orjson.dumps(part(message))
    if codec.dialect is Dialect.PLAIN:
        method, is_read = rule.rpc.full_name, rule.method in SAFE
        # Elsewhere a tag may be a number of a version, the same for whatever a path or a caller means.
        names_bytes = is_read and is_own(rule.rpc)
        return lambda message, etag: answers.json(method, etag if names_bytes else None, message, is_read=is_read)
    return lambda message, _: encode_json(message, codec.dialect)
