"""The update_mask of a PATCH: which fields its body names."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from jobledger_gateway.encoding import SINGLE_VALUE_TYPES
from jobledger_gateway.errors import MOST_TOLD, Violation, cut
from jobledger_gateway.fields import message_of
from jobledger_gateway.http_rule import ANY, Rule
from jobledger_gateway.well_known_in import snake_case

FIELD_MASK = "google.protobuf.FieldMask"


@dataclass(frozen=True, slots=True)
class UpdateMask:
    """The mask of a method that changes part of a message.

    Attributes:
        name: field of the request that holds the mask.
        body: field of the request that holds what is changed.
        changed: its type.
        named: paths of its fields that the path of the request sets: they say what is changed, and are not.
    """

    name: str
    body: str
    changed: Descriptor
    named: frozenset[str]

    def fill(self, message: Message, fields: Mapping[str, Any]) -> list[Violation]:
        """Derives the mask where the request gives none; tells what is wrong with one that it gives.

        Args:
            fields: what the body gave, by field of the request.
        """
        mask = getattr(message, self.name)
        if mask.paths:
            found = {path: path if path == ANY else _named(self.changed, path) for path in mask.paths}
            mask.paths[:] = [found[path] or path for path in mask.paths]
            unknown = (path for path, name in found.items() if name is None)
            return [
                Violation(self.name, f"'{cut(path)}' is not a field of {self.changed.full_name}")
                for path in islice(unknown, MOST_TOLD)
            ]
        given = fields.get(self.body)
        present = _paths(self.changed, given if isinstance(given, dict) else {})
        mask.paths.extend(sorted(path for path in present if path not in self.named))
        # An empty mask would mean all fields to some servers, and none to others.
        return [] if mask.paths else [Violation(self.body, f"names no field to change; give one, or {self.name}")]


def update_mask_of(rule: Rule) -> UpdateMask | None:
    """The mask of a rule: of a PATCH whose body is a field, and whose request has exactly one FieldMask."""
    request = rule.rpc.input_type
    if rule.method != "PATCH" or rule.body in {"", ANY}:
        return None
    masks = [field for field in request.fields if _is_single(field) and message_of(field).full_name == FIELD_MASK]
    body = request.fields_by_name[rule.body]
    if len(masks) != 1 or not _has_parts(body):
        return None
    variables = (variable.field for variable in rule.template.variables)
    named = frozenset(".".join(path[1:]) for path in variables if path[0] == body.name)
    return UpdateMask(name=masks[0].name, body=body.name, changed=message_of(body), named=named)


def _is_single(field: FieldDescriptor) -> bool:
    return field.message_type is not None and not field.is_repeated


def _has_parts(field: FieldDescriptor) -> bool:
    """Whether a field is one message that is an object of its fields in JSON."""
    return _is_single(field) and message_of(field).full_name not in SINGLE_VALUE_TYPES


def _paths(message: Descriptor, given: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """The innermost fields that an object names: lists, maps and values are not entered."""
    for field in message.fields:
        name = next((name for name in (field.name, field.json_name) if name in given), None)
        if name is None:
            continue
        inner, path = given[name], f"{above}{field.name}"
        if isinstance(inner, dict) and inner and _has_parts(field):
            yield from _paths(message_of(field), inner, f"{path}.")
        else:
            yield path


def _named(message: Descriptor, path: str) -> str | None:
    """A path in the names of the .proto; None where it names no field.

    What lies within a map, a list or a value is the server's to judge.
    """
    names: list[str] = []
    parts = path.split(".")
    current: Descriptor | None = message
    for depth, part in enumerate(parts):
        field = None if current is None else current.fields_by_name.get(part) or _by_snake_case(current, part)
        if field is None:
            return None
        names.append(field.name)
        if field.is_repeated or (field.message_type is not None and field.message_type.full_name in SINGLE_VALUE_TYPES):
            return ".".join([*names, *parts[depth + 1 :]])
        current = field.message_type
    return ".".join(names)


def _by_snake_case(message: Descriptor, name: str) -> FieldDescriptor | None:
    """A field whose own name has capitals, by the name that reading a mask has made of it."""
    return next((field for field in message.fields if snake_case(field.name) == name), None)
