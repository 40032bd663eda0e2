"""Rules of google.api.http: which requests a method answers, as its annotation says."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from google.api import annotations_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor

from jobledger_gateway.encoding import SINGLE_VALUE_TYPES
from jobledger_gateway.errors import GatewayError
from jobledger_gateway.fields import hiding_field, message_of
from jobledger_gateway.percent import decode_segment

ANY = "*"
ANY_DEPTH = "**"
MOST_SEGMENTS = 32

IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
LITERAL = re.compile(r"[A-Za-z0-9\-._~!$&'()+,;=@%]+")
VERB = re.compile(r"[A-Za-z0-9\-._~]+")
METHOD = re.compile(r"[A-Z]+")
VARIABLE = re.compile(r"\{([^{}=]+)(?:=([^{}]+))?\}")


# Methods of HTTP itself, which no rule can have.
RESERVED = frozenset({"OPTIONS", "CONNECT", "TRACE"})


class RuleError(Exception):
    """An annotation that can't be served. Says which method and which rule."""


@dataclass(frozen=True, slots=True)
class Variable:
    """A part of the path that sets a field.

    Attributes:
        field: path of the field, such as `("job", "id")`.
        start, end: the segments it covers; `end` None means all that follow.
        single: whether it is one whole segment, so that an encoded slash in it is decoded.
    """

    field: tuple[str, ...]
    start: int
    end: int | None
    single: bool


@dataclass(frozen=True, slots=True)
class Template:
    """A path template: its segments (literals, `*`, `**`), variables and verb ("" for none)."""

    text: str
    segments: tuple[str, ...]
    variables: tuple[Variable, ...]
    verb: str


@dataclass(frozen=True, slots=True)
class Rule:
    """One HTTP binding of a method.

    Attributes:
        method: HTTP method, or `*` for any.
        body: "" for none, `*` for the whole request, else the name of a field.
        response_body: "" for the whole answer, else the name of the field that is answered with.
        index: 0 for the annotation itself, from 1 for its additional bindings.
    """

    rpc: MethodDescriptor
    method: str
    template: Template
    body: str
    response_body: str
    index: int

    def __str__(self) -> str:
        return f"{self.rpc.full_name}: {self.method} {self.template.text}"


def rules_of(rpc: MethodDescriptor) -> list[Rule]:
    """The HTTP bindings of a method, none where it has no annotation.

    Raises:
        RuleError: a binding can't be served.
    """
    options = rpc.GetOptions()
    if not options.HasExtension(annotations_pb2.http):
        return []
    _check_names(rpc)
    annotation = options.Extensions[annotations_pb2.http]
    rules = [_rule(rpc, annotation, 0)]
    for index, extra in enumerate(annotation.additional_bindings, start=1):
        if extra.additional_bindings:
            raise RuleError(f"{rpc.full_name}: additional_bindings must not be nested")
        rules.append(_rule(rpc, extra, index))
    return rules


def _check_names(rpc: MethodDescriptor) -> None:
    for message in (rpc.input_type, rpc.output_type):
        hiding = hiding_field(message)
        if hiding is not None:
            raise RuleError(f"{rpc.full_name}: {hiding.full_name} hides what a message itself does: name it otherwise")


def _rule(rpc: MethodDescriptor, annotation: Any, index: int) -> Rule:
    kind = annotation.WhichOneof("pattern")
    if kind is None:
        raise RuleError(f"{rpc.full_name}: the rule names no HTTP method")
    method, path = (
        (annotation.custom.kind, annotation.custom.path)
        if kind == "custom"
        else (kind.upper(), getattr(annotation, kind))
    )
    try:
        _check_method(method, annotation.body)
        template = parse_template(path)
        _check_fields(rpc.input_type, template, annotation.body)
        if annotation.response_body:
            resolve(rpc.output_type, (annotation.response_body,))
    except RuleError as error:
        raise RuleError(f"{rpc.full_name}: {method} {path}: {error}") from None
    return Rule(
        rpc=rpc,
        method=method,
        template=template,
        body=annotation.body,
        response_body=annotation.response_body,
        index=index,
    )


def _check_method(method: str, body: str) -> None:
    if method != ANY and not METHOD.fullmatch(method):
        raise RuleError("custom.kind must be an HTTP method in capitals, or '*'")
    if method in RESERVED:
        raise RuleError(f"{method} is answered by the gateway itself")
    if method in {"GET", "HEAD"} and body:
        raise RuleError(f"{method} takes no body")


def parse_template(text: str) -> Template:
    """Reads a path template such as `/v1/{name=jobs/*}:cancel`.

    Raises:
        RuleError: it is not one, or not one that can be matched.
    """
    if not text.startswith("/"):
        raise RuleError("the path must begin with '/'")
    path, verb = _split_verb(text[1:])
    segments: list[str] = []
    variables: list[Variable] = []
    for part in _parts(path):
        variable = VARIABLE.fullmatch(part)
        if variable is None:
            segments.append(_segment(part))
            continue
        inner = [_segment(piece) for piece in (variable[2] or ANY).split("/")]
        variables.append(_variable(variable[1], inner, start=len(segments)))
        segments += inner
    if ANY_DEPTH in segments[:-1]:
        raise RuleError("'**' must be the last segment")
    if len(segments) > MOST_SEGMENTS:
        raise RuleError(f"the path has more than {MOST_SEGMENTS} segments")
    names = [variable.field for variable in variables]
    if len(set(names)) != len(names):
        raise RuleError("two variables set one field")
    return Template(text=text, segments=tuple(segments), variables=tuple(variables), verb=verb)


def _split_verb(path: str) -> tuple[str, str]:
    head, colon, verb = path.rpartition(":")
    if not colon or "/" in verb or "}" in verb:
        return path, ""
    if not VERB.fullmatch(verb):
        raise RuleError(f"'{verb}' is not a verb")
    return head, verb


def _parts(path: str) -> Iterator[str]:
    """Splits at slashes that are not within braces."""
    depth = start = 0
    for at, char in enumerate(path):
        depth += (char == "{") - (char == "}")
        if char == "/" and depth == 0:
            yield path[start:at]
            start = at + 1
    yield path[start:]


def _segment(text: str) -> str:
    if text not in {ANY, ANY_DEPTH} and not LITERAL.fullmatch(text):
        raise RuleError(f"'{text}' is not a segment")
    try:
        decode_segment(text)
    except GatewayError as error:
        raise RuleError(f"no request can have the segment '{text}': {error.problem.message}") from None
    return text


def _variable(name: str, segments: Sequence[str], *, start: int) -> Variable:
    path = tuple(name.split("."))
    if not all(IDENTIFIER.fullmatch(part) for part in path):
        raise RuleError(f"'{name}' is not a field path")
    open_end = segments[-1] == ANY_DEPTH
    return Variable(
        field=path,
        start=start,
        end=None if open_end else start + len(segments),
        single=len(segments) == 1 and not open_end,
    )


def _check_fields(message: Descriptor, template: Template, body: str) -> None:
    for variable in template.variables:
        field = resolve(message, variable.field)
        if field.is_repeated or not _may_be_text(field):
            raise RuleError(f"the path can't set '{'.'.join(variable.field)}', which is not a single scalar")
    if body and body != "*":
        resolve(message, (body,))
        if any(variable.field == (body,) for variable in template.variables):
            raise RuleError(f"path and body both set '{body}'")
    paths = [variable.field for variable in template.variables]
    _check_oneofs(message, paths if body in {"", ANY} else [*paths, (body,)])


def _check_oneofs(message: Descriptor, paths: Sequence[tuple[str, ...]]) -> None:
    chosen: dict[tuple[tuple[str, ...], str], str] = {}
    for path in paths:
        for depth, name in enumerate(path):
            group = resolve(message, path[: depth + 1]).containing_oneof
            if group is None:
                continue
            other = chosen.setdefault((path[:depth], group.name), name)
            if other != name:
                raise RuleError(f"'{other}' and '{name}' are of one oneof, of which only one can be set")


def _may_be_text(field: FieldDescriptor) -> bool:
    return field.message_type is None or field.message_type.full_name.startswith("google.protobuf.")


def resolve(message: Descriptor, path: Sequence[str]) -> FieldDescriptor:
    """The field at a path of names.

    Raises:
        RuleError: there is none.
    """
    field: FieldDescriptor | None = None
    for name in path:
        if field is not None and (field.is_repeated or field.message_type is None):
            raise RuleError(f"'{field.name}' is not a single message")
        if field is not None and message_of(field).full_name in SINGLE_VALUE_TYPES:
            raise RuleError(f"'{field.name}' is one value, a {message_of(field).name}: it has no parts to name")
        current = message if field is None else message_of(field)
        field = current.fields_by_name.get(name)
        if field is None:
            raise RuleError(f"{current.full_name} has no field '{name}'")
    if field is None:
        raise RuleError("a field path must not be empty")
    return field
