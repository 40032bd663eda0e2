"""Requests of HTTP as request messages: path, query and body by the rule of the route."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from jobledger_gateway.decoding import decode
from jobledger_gateway.encoding import json_rule
from jobledger_gateway.errors import GatewayError, Violation, bad_request, invalid, problem
from jobledger_gateway.fields import message_of
from jobledger_gateway.http_rule import Rule, RuleError, Variable, resolve
from jobledger_gateway.json_in import parse_object
from jobledger_gateway.percent import decode_segment, parse_query
from jobledger_gateway.scalars import Convert, InvalidValueError, from_text

JSON_TYPE = re.compile(r'application/json\s*(;\s*charset\s*=\s*("utf-8"|utf-8)\s*)?', re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Incoming:
    """What a request brings, undecoded.

    Attributes:
        segments: raw segments of the path, without the verb.
        query: raw query string.
        content_type: as sent, or None.
    """

    segments: Sequence[str]
    query: str
    body: bytes
    content_type: str | None


@dataclass(frozen=True, slots=True)
class Parameter:
    """A field that a query sets. `splits`: commas part its values."""

    path: tuple[str, ...]
    field: FieldDescriptor
    convert: Convert
    splits: bool


class Binder:
    """Makes the request message of one route. All that can be known beforehand is worked out when it is made."""

    def __init__(self, rule: Rule, *, hidden: Sequence[str] = ()) -> None:
        """Compiles a rule. `hidden` are fields that headers set, and queries don't.

        Raises:
            RuleError: the rule can't be served.
        """
        self.rule = rule
        self._class = GetMessageClass(rule.rpc.input_type)
        self._variables = [(variable, *self._variable(variable)) for variable in rule.template.variables]
        self._taken = {".".join(variable.field) for variable in rule.template.variables}
        self._taken |= {".".join(_camel(rule.rpc.input_type, name.split("."))) for name in self._taken}
        self.parameters: Mapping[str, Parameter] = {} if rule.body == "*" else self._parameters(hidden)

    def _variable(self, variable: Variable) -> tuple[FieldDescriptor, Convert]:
        field = resolve(self.rule.rpc.input_type, variable.field)
        convert = from_text(field)
        if convert is None:
            raise RuleError(f"{self.rule}: text can't say '{'.'.join(variable.field)}'")
        return field, convert

    def _parameters(self, hidden: Sequence[str]) -> dict[str, Parameter]:
        message = self.rule.rpc.input_type
        found: dict[str, Parameter] = {}
        for parameter in _leaves(message, ()):
            name = ".".join(parameter.path)
            if name in self._taken or parameter.path[0] in {self.rule.body, *hidden}:
                continue
            found[name] = found[".".join(_camel(message, parameter.path))] = parameter
        return found

    def bind(self, incoming: Incoming) -> Message:
        """The request message.

        Raises:
            GatewayError: `BAD_REQUEST`, `BAD_JSON`, `UNSUPPORTED_MEDIA_TYPE`, or `VALIDATION` with every violation.
        """
        texts = [(entry, self._text(entry[0], incoming.segments)) for entry in self._variables]
        query = self._grouped(parse_query(incoming.query))
        body = self._body(incoming)
        message = self._class()
        violations = decode(message, body)
        violations += self._set_query(message, query)
        for (variable, field, convert), text in texts:
            self._set_variable(message, variable, field, partial(convert, text), body, violations)
        if violations:
            raise invalid(violations)
        return message

    def _text(self, variable: Variable, segments: Sequence[str]) -> str:
        raw = segments[variable.start : variable.end]
        if variable.single:
            return decode_segment(raw[0])
        # An encoded slash stays encoded where slashes part segments: else the value would be ambiguous.
        return "/".join(decode_segment(segment).replace("/", "%2F") for segment in raw)

    def _grouped(self, pairs: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
        if pairs and self.rule.body == "*":
            raise bad_request("This path takes its request from the body alone: it takes no query")
        grouped: dict[str, list[str]] = {}
        for name, value in pairs:
            if name in self._taken or name.split(".")[0] == self.rule.body:
                raise bad_request(f"The query names '{name}', which the path or the body sets")
            grouped.setdefault(name, []).append(value)
        return grouped

    def _body(self, incoming: Incoming) -> dict[str, Any]:
        if not incoming.body:
            return {}
        if not self.rule.body:
            raise bad_request("This path takes no body")
        if incoming.content_type is not None and not JSON_TYPE.fullmatch(incoming.content_type):
            raise GatewayError(problem("UNSUPPORTED_MEDIA_TYPE"))
        body = parse_object(incoming.body)
        return body if self.rule.body == "*" else {self.rule.body: body}

    def _set_query(self, message: Message, query: Mapping[str, Sequence[str]]) -> list[Violation]:
        violations: list[Violation] = []
        given: dict[str, str] = {}
        for name, values in query.items():
            parameter = self.parameters.get(name)
            refusal = _refusal(parameter, name, values, given)
            if parameter is None or refusal:
                violations.append(Violation(name, refusal))
                continue
            try:
                _set(message, parameter, values)
            except InvalidValueError as error:
                violations.append(Violation(name, str(error)))
        return violations

    def _set_variable(
        self,
        message: Message,
        variable: Variable,
        field: FieldDescriptor,
        read: Callable[[], Any],
        body: dict[str, Any],
        violations: list[Violation],
    ) -> None:
        name = ".".join(variable.field)
        try:
            value = read()
        except InvalidValueError as error:
            violations.append(Violation(name, str(error)))
            return
        target = _parent(message, variable.field)
        if _named_in(body, self.rule.rpc.input_type, variable.field) and getattr(target, field.name) != value:
            raise bad_request(f"The body gives '{name}' another value than the path")
        setattr(target, field.name, value)


def _refusal(parameter: Parameter | None, name: str, values: Sequence[str], given: dict[str, str]) -> str:
    """Why a parameter can't be taken, or ""."""
    if parameter is None:
        return "there is no such parameter"
    if len(values) > 1 and not parameter.field.is_repeated:
        return "may be given only once"
    group = parameter.field.containing_oneof
    prefix = ".".join(parameter.path[:-1])
    key = ".".join(parameter.path) if group is None else f"{prefix}/{group.name}"
    other = given.setdefault(key, name)
    return "" if other == name else f"excludes '{other}'"


def _set(message: Message, parameter: Parameter, values: Sequence[str]) -> None:
    target, field = _parent(message, parameter.path), parameter.field
    if field.is_repeated:
        pieces = [piece for value in values for piece in (value.split(",") if parameter.splits else [value])]
        if parameter.splits and not all(pieces):
            raise InvalidValueError("holds an empty element")
        getattr(target, field.name).extend(parameter.convert(piece) for piece in pieces)
    elif field.message_type is not None:
        getattr(target, field.name).CopyFrom(parameter.convert(values[0]))
    else:
        setattr(target, field.name, parameter.convert(values[0]))


def _parent(message: Message, path: Sequence[str]) -> Message:
    for name in path[:-1]:
        message = getattr(message, name)
    return message


def _leaves(message: Descriptor, above: tuple[FieldDescriptor, ...]) -> Iterator[Parameter]:
    """The fields that text can set, nested ones too; a type within itself is not followed."""
    for field in message.fields:
        path = (*(parent.name for parent in above), field.name)
        convert = from_text(field)
        if convert is not None:
            splits = field.is_repeated and (field.enum_type is not None or json_rule(field).comma_separated)
            yield Parameter(path=path, field=field, convert=convert, splits=splits)
        elif not field.is_repeated and _is_followed(message_of(field), above):
            yield from _leaves(message_of(field), (*above, field))


def _is_followed(message: Descriptor, above: Sequence[FieldDescriptor]) -> bool:
    within_itself = message in {parent.containing_type for parent in above}
    return not within_itself and not message.full_name.startswith("google.protobuf.")


def _camel(message: Descriptor, path: Sequence[str]) -> list[str]:
    """A path of fields in the camel case of canonical ProtoJSON."""
    return [resolve(message, path[: depth + 1]).json_name for depth in range(len(path))]


def _named_in(body: dict[str, Any], message: Descriptor, path: Sequence[str]) -> bool:
    """Whether a body gives a field a value; null gives none."""
    value: Any = body
    for name, camel in zip(path, _camel(message, path), strict=True):
        if not isinstance(value, dict):
            return False
        value = value.get(name, value.get(camel))
    return value is not None
