"""Bodies of requests as parts of request messages, by the `body` of the rule."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from google.api import httpbody_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
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
        _check_type(content_type)
        value = parse_object(body) if self.is_object else parse_json(body)
        return {self.field: value} if self.field else value

    def fill(self, message: Message, fields: Mapping[str, Any]) -> list[Violation]:
        return decode(message, fields, self.dialect)


@dataclass(frozen=True, slots=True)
class ValueBody:
    """JSON of a request that is one value, such as a google.protobuf.Value. An empty body leaves it unset."""

    dialect: Dialect

    def parse(self, body: bytes, content_type: str | None) -> Mapping[str, Any]:
        if not body:
            return {}
        _check_type(content_type)
        return {"": parse_json(body)}

    def fill(self, message: Message, fields: Mapping[str, Any]) -> list[Violation]:
        return decode(message, fields[""], self.dialect) if fields else []


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


def _check_type(content_type: str | None) -> None:
    if content_type is not None and not JSON_TYPE.fullmatch(content_type):
        raise GatewayError(problem("UNSUPPORTED_MEDIA_TYPE"))


def body_of(rule: Rule, dialect: Dialect) -> Body:
    """How the bodies of a rule are read."""
    if not rule.body:
        return NoBody()
    request = rule.rpc.input_type
    if rule.body == ANY and request.full_name == HTTP_BODY:
        return RawBody("")
    if rule.body == ANY:
        return JsonBody("", True, dialect) if _is_object(request, dialect) else ValueBody(dialect)
    field = request.fields_by_name[rule.body]
    if is_content(field):
        return RawBody(rule.body)
    return JsonBody(rule.body, takes_one_object(rule, dialect), dialect)


def takes_one_object(rule: Rule, dialect: Dialect) -> bool:
    """Whether any other JSON than an object, null included, is none for the field that a rule has as its body."""
    field = rule.rpc.input_type.fields_by_name[rule.body]
    return is_map(field) or (not field.is_repeated and _is_object(field.message_type, dialect))


def is_content(field: FieldDescriptor) -> bool:
    """Whether a field is one google.api.HttpBody."""
    return field.message_type is not None and field.message_type.full_name == HTTP_BODY and not field.is_repeated


def _is_object(message: Descriptor | None, dialect: Dialect) -> bool:
    return message is not None and message_from_json(message, dialect) is None
