"""Holds each request against the rules in the .proto."""

from functools import cache
from typing import Any

import protovalidate
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from jobledger_server.api.interceptors.base import Guard
from jobledger_server.api.interceptors.quick_rules import QuickRules
from jobledger_server.api.types import Context
from jobledger_server.core.errors import FieldViolation, Reason, ServiceError
from jobledger_server.core.policy import SERVICES, scopes_by_method

# Requests to read that were found good are known by their bytes: so many of them, each of at most so many bytes. Others
# are not kept: they may hold what nobody wants to stay in memory.
MOST_KNOWN, MOST_BYTES_KNOWN = 4096, 512


class Validation(Guard):
    """Refuses requests that break a rule, naming each field.

    Much is asked again and again, and a rule over a whole message takes ten times as long as its bytes do. No rule of
    ours looks at the clock: what was good once stays so. Of the rest, too, most is good, and `QuickRules` tells it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._validator, self._quick = _compiled()
        self._reading = {method for method, scope in scopes_by_method().items() if scope == "jobs:read"}
        self._good: set[tuple[str, bytes]] = set()

    async def enter(self, method: str, request: Any, context: Context) -> None:
        if not isinstance(request, Message):
            return
        key = (method, request.SerializeToString()) if method in self._reading else None
        if key in self._good or (key is None and self._quick.surely_kept(request)):
            return
        violations = self._validator.collect_violations(request)
        if violations:
            fields = [FieldViolation(_path(violation), violation.proto.message) for violation in violations]
            raise ServiceError(Reason.ERROR_REASON_VALIDATION, fields=fields)
        if key is not None and len(key[1]) <= MOST_BYTES_KNOWN:
            if len(self._good) >= MOST_KNOWN:
                self._good.clear()
            self._good.add(key)


@cache
def _compiled() -> tuple[protovalidate.Validator, QuickRules]:
    """The rules of all requests, ready: those of CreateJob alone take 30 ms to compile, which no call waits for."""
    validator = protovalidate.Validator()
    types = {method.input_type for service in SERVICES for method in service.methods}
    for kind in types:
        validator.collect_violations(GetMessageClass(kind)())
    return validator, QuickRules(validator, types)


def _path(violation: protovalidate.Violation) -> str:
    """Such as `spec.command[2]`; `request` for a rule over the whole of it."""
    field = violation.proto.field
    parts = [f"{element.field_name}{_subscript(element.subscript)}" for element in field.elements] if field else []
    return ".".join(parts) or "request"


def _subscript(subscript: Any) -> str:
    return "" if subscript is None else f"[{subscript.value}]"
