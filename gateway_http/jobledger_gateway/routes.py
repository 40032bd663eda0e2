"""Methods as routes: descriptors and a channel in, endpoints out."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import grpc
from google.protobuf.descriptor import ServiceDescriptor

from jobledger_gateway.answers import Answers
from jobledger_gateway.binding import Binder
from jobledger_gateway.bodies import HTTP_BODY
from jobledger_gateway.calls import Rpc, is_own
from jobledger_gateway.codec import PLAIN, Codec
from jobledger_gateway.content import ContentEndpoint
from jobledger_gateway.exchange import Endpoint
from jobledger_gateway.http_rule import ANY, Rule, RuleError, rules_of
from jobledger_gateway.response_rules import check_response, response_rule
from jobledger_gateway.streaming import StreamEndpoint, StreamSettings
from jobledger_gateway.unary import UnaryEndpoint, content_of
from jobledger_gateway.unserved import Unserved

# Methods that a request can have here: the parser of HTTP refuses others before anybody else sees them.
RECEIVABLE = frozenset(
    {
        *("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "ACL", "BIND", "CHECKOUT", "COPY", "LINK", "LOCK", "MERGE"),
        *("MKACTIVITY", "MKCALENDAR", "MKCOL", "MOVE", "NOTIFY", "PROPFIND", "PROPPATCH", "PURGE", "REBIND", "REPORT"),
        *("SEARCH", "SOURCE", "SUBSCRIBE", "UNBIND", "UNLINK", "UNLOCK", "UNSUBSCRIBE"),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A rule, how its requests are bound, and what answers them."""

    rule: Rule
    binder: Binder
    endpoint: Endpoint

    def __str__(self) -> str:
        return str(self.rule)


def routes_of(
    services: Sequence[ServiceDescriptor],
    channel: grpc.aio.Channel,
    settings: StreamSettings,
    stopping: asyncio.Event,
    codec: Codec = PLAIN,
) -> Iterator[Route]:
    """The routes of services. Once `stopping` is set, streams end.

    Those of methods that take a stream of requests keep their paths, and answer that they are not served.

    Raises:
        RuleError: an annotation can't be served, or is on a method of Jobledger's own that takes a stream of requests.
    """
    answers = Answers()
    for service in services:
        for method in service.methods:
            rules = rules_of(method)
            if not rules:
                continue
            if method.client_streaming:
                yield from _unserved(rules, codec)
                continue
            check_response(method, rules)
            rpc = Rpc(channel, method)
            for rule in rules:
                yield _route(rule, rpc, answers, settings, stopping, codec)


def _unserved(rules: Sequence[Rule], codec: Codec) -> Iterator[Route]:
    """Routes of a method that takes a stream of requests. They are held to the same rules as others."""
    for rule in rules:
        if is_own(rule.rpc):
            raise RuleError(f"{rule}: a stream of requests can't be sent over HTTP")
        _check_method(rule)
        yield Route(rule=rule, binder=Binder(rule, dialect=codec.dialect), endpoint=Unserved(rule.rpc))


def _check_method(rule: Rule) -> None:
    if rule.method != ANY and rule.method not in RECEIVABLE:
        known = ", ".join(sorted(RECEIVABLE))
        raise RuleError(f"{rule}: no request can have the method {rule.method}: it must be '*' or one of {known}")


def _route(
    rule: Rule, rpc: Rpc, answers: Answers, settings: StreamSettings, stopping: asyncio.Event, codec: Codec
) -> Route:
    _check_method(rule)
    answer = response_rule(rpc.method)
    hidden = [name for name in (answer.range.offset_field, answer.range.length_field) if name]
    binder = Binder(rule, hidden=hidden, dialect=codec.dialect)
    endpoint: Endpoint
    if not rpc.method.server_streaming:
        endpoint = UnaryEndpoint(binder, rpc, answers=answers, codec=codec, status=answer.success_status or 200)
    elif rule.response_body and rpc.method.output_type.full_name == HTTP_BODY:
        raise RuleError(f"{rule}: a stream of google.api.HttpBody can't have a response_body")
    elif (take := content_of(rule)) is not None:
        endpoint = ContentEndpoint(binder, rpc, answer.range, take)
    else:
        endpoint = StreamEndpoint(binder, rpc, answer.stream, settings=settings, stopping=stopping, codec=codec)
    return Route(rule=rule, binder=binder, endpoint=endpoint)
