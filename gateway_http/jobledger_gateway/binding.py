"""Requests of HTTP as request messages: path, query and body by the rule of the route."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, EncodeError, Message
from google.protobuf.message_factory import GetMessageClass

from jobledger_gateway.bodies import RawBody, body_of
from jobledger_gateway.dialect import Dialect
from jobledger_gateway.errors import MOST_TOLD, Violation, bad_request, invalid
from jobledger_gateway.http_rule import ANY, Rule, RuleError, Variable, resolve
from jobledger_gateway.json_in import depth_of
from jobledger_gateway.masks import update_mask_of
from jobledger_gateway.parameters import (
    Parameter,
    fields_of,
    find_parameter,
    is_choice,
    list_parameters,
    parent_of,
    rival_of,
    set_parameters,
    set_single,
)
from jobledger_gateway.percent import decode_segment, parse_query
from jobledger_gateway.scalars import InvalidValueError
from jobledger_gateway.well_known_in import from_text

# Names of parameters that a route remembers.
REMEMBERED = 256
# Brackets of a body, or characters of a query, up to which no message can be too deep.
SHALLOW = 30


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
        self._body_names, self._excluded = self._names_of_body()
        self._find = lru_cache(maxsize=REMEMBERED)(self._parameter)
        self._touches_path = lru_cache(maxsize=REMEMBERED)(self._is_of_path)

    def _bound(self, variable: Variable) -> Bound:
        path = variable.field
        fields = [resolve(self._request, path[: depth + 1]) for depth in range(len(path))]
        convert = from_text(fields[-1], self._dialect)
        if convert is None:
            raise RuleError(f"{self.rule}: text can't say '{'.'.join(path)}'")
        parameter = Parameter(path=path, field=fields[-1], convert=convert, splits=False, is_choice=is_choice(fields))
        return Bound(variable, parameter)

    def _names_of_body(self) -> tuple[frozenset[str], Mapping[str, str]]:
        """The names of the body's field, and that field by the names of those that it excludes."""
        if self.rule.body in {"", ANY}:
            return frozenset(), {}
        field = self._request.fields_by_name[self.rule.body]
        group = field.containing_oneof
        others = () if group is None else (other for other in group.fields if other.name != field.name)
        return frozenset({field.name, field.json_name}), {other.name: field.name for other in others}

    def _parameter(self, name: str) -> Parameter | None:
        found = find_parameter(self._request, name, self._dialect)
        return None if found is None or found.path[0] in self._hidden else found

    def _is_of_path(self, name: str) -> bool:
        """Whether a name is that of a variable, of a part of it, or of what it is part of."""
        fields, is_whole = fields_of(self._request, name, self._dialect)
        path = tuple(field.name for field in fields)
        bound = [it.variable.field for it in self._variables]
        return any(path[: len(it)] == it or (is_whole and it[: len(path)] == path) for it in bound)

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
        try:
            violations = self._fill(message, texts, query, fields) or _required(message)
            if not violations and _may_be_deep(incoming):
                # Only reading tells: what can't be read at the other end may be written here.
                self._class.FromString(message.SerializeToString())
        except (DecodeError, EncodeError):
            name = max(fields, key=lambda it: depth_of(fields[it])) if fields else max(query, key=len, default="path")
            violations = [Violation(name, "is nested too deeply: protobuf takes 100 levels of messages")]
        if violations:
            raise invalid(violations)
        return message

    def _fill(
        self,
        message: Message,
        texts: Sequence[tuple[Bound, str]],
        query: Mapping[str, tuple[Parameter | None, Sequence[str]]],
        fields: Mapping[str, Any],
    ) -> list[Violation]:
        violations = self._body.fill(message, fields)
        named = {} if isinstance(self._body, RawBody) else fields
        for bound, text in texts:
            violations += self._set_variable(message, bound, text, named)
        if query:
            violations += set_parameters(message, query, self._excluded)
        if self._mask is not None and not violations:
            violations += self._mask.fill(message, fields)
        return violations

    def _grouped(self, pairs: Sequence[tuple[str, str]]) -> dict[str, tuple[Parameter | None, list[str]]]:
        if pairs and self.rule.body == ANY:
            raise bad_request("This path takes its request from the body alone: it takes no query")
        grouped: dict[str, tuple[Parameter | None, list[str]]] = {}
        for name, value in pairs:
            if self._touches_path(name) or name.split(".")[0] in self._body_names:
                raise bad_request(f"The query names '{name}', which the path or the body sets")
            grouped.setdefault(name, (self._find(name), []))[1].append(value)
        return grouped

    def _set_variable(self, message: Message, bound: Bound, text: str, fields: Mapping[str, Any]) -> list[Violation]:
        try:
            value = bound.parameter.convert(text)
        except InvalidValueError as error:
            return [Violation(bound.name, str(error))]
        path, field = bound.variable.field, bound.parameter.field
        target = parent_of(message, path)
        if fields and _named_in(fields, self._request, path) and _differs(target, field, value):
            raise bad_request(f"The body gives '{bound.name}' another value than the path")
        rival = rival_of(message, path) if bound.parameter.is_choice else ""
        if rival:
            return [Violation(rival, f"excludes '{bound.name}', which the path sets")]
        set_single(target, field, value)
        return []


def _required(message: Message) -> list[Violation]:
    """What proto2 requires and the message lacks."""
    # The stubs of types lack this one.
    missing: list[str] = [] if message.IsInitialized() else message.FindInitializationErrors()  # type: ignore[attr-defined]
    return [Violation(name, "must be given") for name in missing[:MOST_TOLD]]


def _may_be_deep(incoming: Incoming) -> bool:
    """Whether a message of the request can have a hundred levels: no sign of it stands for more than three."""
    brackets = incoming.body.count(b"{") + incoming.body.count(b"[")
    return brackets > SHALLOW or len(incoming.query) > SHALLOW


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
