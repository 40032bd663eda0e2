"""Holds each request against the rules in the .proto."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from functools import cache, partial
from typing import Any

import protovalidate
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from jobledger_server.api.interceptors.base import Wrapping
from jobledger_server.api.interceptors.quick_rules import QuickRules
from jobledger_server.api.types import Context, Stream, Unary
from jobledger_server.core.errors import FieldViolation, Reason, ServiceError
from jobledger_server.core.policy import SERVICES, scopes_by_method

# Requests to read that were found good are known by their bytes: so many of them, each of at most so many bytes. Others
# are not kept: they may hold what nobody wants to stay in memory.
MOST_KNOWN, MOST_BYTES_KNOWN = 4096, 512
# Of requests with more items the first fault alone is looked for: each may have one, and half a million take 15 s.
MOST_ITEMS = 4096


class Validation(Wrapping):
    """Refuses requests that break a rule, naming each field.

    Most requests are good, and `QuickRules` tells it. Of those that it can't tell, which only read, much is asked again
    and again, and a rule over a whole message takes ten times as long as its bytes do. No rule of ours looks at the
    clock: what was good once stays so.
    """

    def __init__(self) -> None:
        super().__init__()
        self._validator, self._quick = _compiled()
        self._reading = {method for method, scope in scopes_by_method().items() if scope == "jobs:read"}
        self._good: set[tuple[str, bytes]] = set()

    def unary(self, method: str, call: Unary) -> Unary:
        surely_kept, judge = self._quick.surely_kept, self._judge_of(method)

        def held(request: Any, context: Context) -> Awaitable[Any]:
            if isinstance(request, Message) and not surely_kept(request):
                judge(request)
            return call(request, context)

        return held

    def stream(self, method: str, call: Stream) -> Stream:
        surely_kept, judge = self._quick.surely_kept, self._judge_of(method)

        async def held(request: Any, context: Context) -> AsyncIterator[Any]:
            if isinstance(request, Message) and not surely_kept(request):
                judge(request)
            async with aclosing(call(request, context)) as responses:  # type: ignore[type-var]
                async for response in responses:
                    yield response

        return held

    def _judge_of(self, method: str) -> Callable[[Message], None]:
        return partial(self._judge_again, method) if method in self._reading else self._judge

    def _judge_again(self, method: str, request: Message) -> None:
        key = (method, request.SerializeToString())
        if key in self._good:
            return
        self._judge(request)
        if len(key[1]) <= MOST_BYTES_KNOWN:
            if len(self._good) >= MOST_KNOWN:
                self._good.clear()
            self._good.add(key)

    def _judge(self, request: Message) -> None:
        violations = self._validator.collect_violations(request, fail_fast=_items(request) > MOST_ITEMS)
        if violations:
            fields = [FieldViolation(_path(violation), violation.proto.message) for violation in violations]
            raise ServiceError(Reason.ERROR_REASON_VALIDATION, fields=fields)


@cache
def _compiled() -> tuple[protovalidate.Validator, QuickRules]:
    """The rules of all requests, ready: those of CreateJob alone take 30 ms to compile, which no call waits for."""
    validator = protovalidate.Validator()
    types = {method.input_type for service in SERVICES for method in service.methods}
    for kind in types:
        validator.collect_violations(GetMessageClass(kind)())
    return validator, QuickRules(validator, types)


def _items(message: Message) -> int:
    """How many items the lists and maps of a message have, and of the messages in it that stand alone."""
    found = 0
    for field, value in message.ListFields():
        if field.is_repeated:
            found += len(value)
        elif field.message_type is not None:
            found += _items(value)
    return found


def _path(violation: protovalidate.Violation) -> str:
    """Such as `spec.command[2]`; `request` for a rule over the whole of it."""
    field = violation.proto.field
    parts = [f"{element.field_name}{_subscript(element.subscript)}" for element in field.elements] if field else []
    return ".".join(parts) or "request"


def _subscript(subscript: Any) -> str:
    return "" if subscript is None else f"[{subscript.value}]"
