"""Holds each request against the rules in the .proto."""

from typing import Any

import protovalidate
from google.protobuf.message import Message

from jobledger_server.api.interceptors.base import Guard
from jobledger_server.api.types import Context
from jobledger_server.core.errors import FieldViolation, Reason, ServiceError


class Validation(Guard):
    """Refuses requests that break a rule, naming each field."""

    def __init__(self) -> None:
        super().__init__()
        self._validator = protovalidate.Validator()

    async def enter(self, method: str, request: Any, context: Context) -> None:
        if not isinstance(request, Message):
            return
        violations = self._validator.collect_violations(request)
        if violations:
            fields = [FieldViolation(_path(violation), violation.proto.message) for violation in violations]
            raise ServiceError(Reason.ERROR_REASON_VALIDATION, fields=fields)


def _path(violation: protovalidate.Violation) -> str:
    """Such as `spec.command[2]`; `request` for a rule over the whole of it."""
    field = violation.proto.field
    parts = [f"{element.field_name}{_subscript(element.subscript)}" for element in field.elements] if field else []
    return ".".join(parts) or "request"


def _subscript(subscript: Any) -> str:
    return "" if subscript is None else f"[{subscript.value}]"
