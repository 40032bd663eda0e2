"""Requests of HTTP as request messages: path, query and body by the rule of the route."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from jobledger_gateway.bodies import RawBody, body_of
from jobledger_gateway.dialect import Dialect
from jobledger_gateway.errors import Violation, bad_request, invalid
from jobledger_gateway.http_rule import ANY, Rule, RuleError, Variable, resolve
from jobledger_gateway.masks import update_mask_of
from jobledger_gateway.parameters import (
    Parameter,
    find_parameter,
    list_parameters,
    parent_of,
    set_parameters,
    set_single,
)
from jobledger_gateway.percent import decode_segment, parse_query
from jobledger_gateway.scalars import InvalidValueError
from jobledger_gateway.well_known_in import from_text

# Names of parameters that a route remembers.
REMEMBERED = 256


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
class Bound:
    """A variable of the path, with the field that it sets and what reads its text."""

    variable: Variable
    parameter: Parameter

    @property
    def name(self) -> str:
        return self.parameter.name


class Binder:
    """Makes the request message of one route. All that can be known beforehand is worked out when it is made."""

    def __init__(self, rule: Rule, *, hidden: Sequence[str] = (), dialect: Dialect = Dialect.PLAIN) -> None:
        """Compiles a rule. `hidden` are fields that headers set, and queries don't.

        Raises:
            RuleError: the rule can't be served.
        """
        self.rule = rule
        self._dialect = dialect
        self._request = rule.rpc.input_type
        self._class = GetMessageClass(self._request)
        self._body = body_of(rule, dialect)
        self._mask = update_mask_of(rule)
        self._hidden = frozenset(hidden)
        self._variables = [self._bound(variable) for variable in rule.template.variables]
        self._taken = {bound.name for bound in self._variables}
        self._claimed = {bound.parameter.claim: bound.name for bound in self._variables}
        self._body_names = self._names_of_body()
        self._find = lru_cache(maxsize=REMEMBERED)(self._parameter)

    def _bound(self, variable: Variable) -> Bound:
        field = resolve(self._request, variable.field)
        convert = from_text(field, self._dialect)
        if convert is None:
            raise RuleError(f"{self.rule}: text can't say '{'.'.join(variable.field)}'")
        return Bound(variable, Parameter(path=variable.field, field=field, convert=convert, splits=False))

    def _names_of_body(self) -> frozenset[str]:
        if self.rule.body in {"", ANY}:
            return frozenset()
        field = self._request.fields_by_name[self.rule.body]
        if field.containing_oneof is not None:
            self._claimed[f"/{field.containing_oneof.name}"] = field.name
        return frozenset({field.name, field.json_name})

    def _parameter(self, name: str) -> Parameter | None:
        found = find_parameter(self._request, name, self._dialect)
        return None if found is None or found.path[0] in self._hidden else found

    @cached_property
    def parameters(self) -> Mapping[str, Parameter]:
        """What a query may set, by name in the plain dialect; what is nested deeply is left out."""
        if self.rule.body == ANY:
            return {}
        listed = list_parameters(self._request, self._dialect)
        left = {self.rule.body, *self._hidden}
        return {it.name: it for it in listed if it.name not in self._taken and it.path[0] not in left}

    def bind(self, incoming: Incoming) -> Message:
        """The request message.

        Raises:
            GatewayError: `BAD_REQUEST`, `BAD_JSON`, `UNSUPPORTED_MEDIA_TYPE`, or `VALIDATION` with every violation.
        """
        texts = [(bound, _text(bound.variable, incoming.segments)) for bound in self._variables]
        query = self._grouped(parse_query(incoming.query)) if incoming.query else {}
        fields = self._body.parse(incoming.body, incoming.content_type)
        message = self._class()
        violations = self._body.fill(message, fields)
        if query:
            violations += set_parameters(message, query, self._claimed)
        named = {} if isinstance(self._body, RawBody) else fields
        for bound, text in texts:
            violations += self._set_variable(message, bound, text, named)
        if self._mask is not None and not violations:
            violations += self._mask.fill(message, fields)
        if violations:
            raise invalid(violations)
        return message

    def _grouped(self, pairs: Sequence[tuple[str, str]]) -> dict[str, tuple[Parameter | None, list[str]]]:
        if pairs and self.rule.body == ANY:
            raise bad_request("This path takes its request from the body alone: it takes no query")
        grouped: dict[str, tuple[Parameter | None, list[str]]] = {}
        for name, value in pairs:
            parameter = self._find(name)
            taken = parameter is not None and parameter.name in self._taken
            if taken or name.split(".")[0] in self._body_names:
                raise bad_request(f"The query names '{name}', which the path or the body sets")
            grouped.setdefault(name, (parameter, []))[1].append(value)
        return grouped

    def _set_variable(self, message: Message, bound: Bound, text: str, fields: Mapping[str, Any]) -> list[Violation]:
        try:
            value = bound.parameter.convert(text)
        except InvalidValueError as error:
            return [Violation(bound.name, str(error))]
        path, field = bound.variable.field, bound.parameter.field
        target = parent_of(message, path)
        if _named_in(fields, self._request, path) and _differs(target, field, value):
            raise bad_request(f"The body gives '{bound.name}' another value than the path")
        set_single(target, field, value)
        return []


def _text(variable: Variable, segments: Sequence[str]) -> str:
    raw = segments[variable.start : variable.end]
    if variable.single:
        return decode_segment(raw[0])
    # An encoded slash stays encoded where slashes part segments: else the value would be ambiguous.
    return "/".join(decode_segment(segment).replace("/", "%2F") for segment in raw)


def _differs(target: Message, field: FieldDescriptor, value: Any) -> bool:
    given = getattr(target, field.name)
    if isinstance(value, Message):
        return bool(given.SerializeToString() != value.SerializeToString())
    return bool(given != value)


def _named_in(fields: Mapping[str, Any], message: Descriptor, path: Sequence[str]) -> bool:
    """Whether a body gives a field a value; null gives none."""
    value: Any = fields
    for depth, name in enumerate(path, start=1):
        if not isinstance(value, Mapping):
            return False
        value = value.get(name, value.get(resolve(message, path[:depth]).json_name))
    return value is not None
