"""Bodies of requests as parts of request messages, by the `body` of the rule."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from google.api import httpbody_pb2
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from jobledger_gateway.decoding import decode
from jobledger_gateway.dialect import Dialect
from jobledger_gateway.errors import GatewayError, Violation, bad_request, problem
from jobledger_gateway.fields import is_map
from jobledger_gateway.http_rule import ANY, Rule
from jobledger_gateway.json_in import parse_json, parse_object
from jobledger_gateway.well_known_in import message_from_json

HTTP_BODY: str = httpbody_pb2.HttpBody.DESCRIPTOR.full_name
JSON_TYPE = re.compile(r'application/json\s*(;\s*charset\s*=\s*("utf-8"|utf-8)\s*)?', re.IGNORECASE)
PRINTABLE = re.compile(r"[\x20-\x7e]*")


class Body(Protocol):
    """How the body of a route's requests is read."""

    def parse(self, body: bytes, content_type: str | None) -> Mapping[str, Any]:
        """The fields that a body gives, as JSON values by name.

        Raises:
            GatewayError: `BAD_REQUEST`, `BAD_JSON`, `UNSUPPORTED_MEDIA_TYPE`.
        """

    def fill(self, message: Message, fields: Mapping[str, Any]) -> list[Violation]:
        """Sets what `parse` found, and tells what is wrong with it."""


class NoBody:
    """Of a rule that names none."""

    def parse(self, body: bytes, content_type: str | None) -> Mapping[str, Any]:  # noqa: ARG002
        if body:
            raise bad_request("This path takes no body")
        return {}

    def fill(self, message: Message, fields: Mapping[str, Any]) -> list[Violation]:  # noqa: ARG002
        return []


@dataclass(frozen=True, slots=True)
class JsonBody:
    """JSON: the whole request, or one field of it. An empty body gives nothing.

    Attributes:
        field: name of the field; "" for the whole request.
        is_object: whether any other JSON value is refused before its fields are looked at.
    """

    field: str
    is_object: bool
    dialect: Dialect

    def parse(self, body: bytes, content_type: str | None) -> Mapping[str, Any]:
        if not body:
            return {}
        if content_type is not None and not JSON_TYPE.fullmatch(content_type):
            raise GatewayError(problem("UNSUPPORTED_MEDIA_TYPE"))
        value = parse_object(body) if self.is_object else parse_json(body)
        return {self.field: value} if self.field else value

    def fill(self, message: Message, fields: Mapping[str, Any]) -> list[Violation]:
        return decode(message, fields, self.dialect)


@dataclass(frozen=True, slots=True)
class RawBody:
    """Bytes of any media type, for a google.api.HttpBody: the request itself, or one field of it."""

    field: str

    def parse(self, body: bytes, content_type: str | None) -> Mapping[str, Any]:
        if content_type is not None and not PRINTABLE.fullmatch(content_type):
            raise bad_request("The header Content-Type holds bytes that are not printable ASCII")
        return {"data": body, "content_type": content_type or ""} if body or content_type else {}

    def fill(self, message: Message, fields: Mapping[str, Any]) -> list[Violation]:
        target = getattr(message, self.field) if self.field else message
        for name, value in fields.items():
            setattr(target, name, value)
        return []


def body_of(rule: Rule, dialect: Dialect) -> Body:
    """How the bodies of a rule are read."""
    if not rule.body:
        return NoBody()
    request = rule.rpc.input_type
    if rule.body == ANY:
        return RawBody("") if request.full_name == HTTP_BODY else JsonBody("", True, dialect)
    field = request.fields_by_name[rule.body]
    if field.message_type is not None and field.message_type.full_name == HTTP_BODY and not field.is_repeated:
        return RawBody(rule.body)
    one_object = is_map(field) or (not field.is_repeated and _is_object(field.message_type, dialect))
    return JsonBody(rule.body, one_object, dialect)


def _is_object(message: Descriptor | None, dialect: Dialect) -> bool:
    return message is not None and message_from_json(message, dialect) is None
