"""Messages as the REST API writes them: snake_case names, short enums, numbers as numbers, unset as null."""

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache, lru_cache, partial
from typing import Any, Final, NamedTuple

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from jobledger.v1.annotations_pb2 import json as json_rule
from jobledger.values import descriptor_short_name


def plain(message: Message) -> Any:
    """The message as a JSON value; keys in the order of the .proto."""
    known = _WELL_KNOWN.get(message.DESCRIPTOR.full_name)
    if known is not None:
        return known(message)
    fields: dict[str, Any] = {}
    for field in _fields(message.DESCRIPTOR):
        field.add(fields, message)
    return fields


class _Field(NamedTuple):
    """What is to be known of a field: found once for each, since a log has many entries."""

    name: str
    may_be_unset: bool
    flatten: bool
    omit_unset: bool
    value_of: Callable[[Any], Any]

    def add(self, fields: dict[str, Any], message: Message) -> None:
        if self.may_be_unset and not message.HasField(self.name):
            if not (self.flatten or self.omit_unset):
                fields[self.name] = None
            return
        value = self.value_of(getattr(message, self.name))
        if self.flatten:
            fields.update(value)
        else:
            fields[self.name] = value


@cache
def _fields(descriptor: Descriptor) -> Sequence[_Field]:
    return [_field(field) for field in descriptor.fields]


def _field(field: Any) -> _Field:
    rule = field.GetOptions().Extensions[json_rule]
    return _Field(field.name, field.has_presence, rule.flatten, rule.omit_unset, _value_of(field))


def _value_of(field: Any) -> Callable[[Any], Any]:
    """What makes JSON of the field's values."""
    if not field.is_repeated:
        return _single(field)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        item = _single(field.message_type.fields_by_name["value"])
        return lambda value: {str(key): item(value[key]) for key in sorted(value)}
    item = _single(field)
    return lambda value: [item(it) for it in value]


def _single(field: Any) -> Callable[[Any], Any]:
    if field.enum_type is not None:
        return cache(partial(descriptor_short_name, field.enum_type))
    return plain if field.message_type is not None else lambda value: value


def _timestamp(message: Any) -> str:
    return f"{_second(message.seconds)}.{message.nanos // 1000:06d}Z"


@lru_cache
def _second(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}"


def _duration(message: Any) -> str:
    text: str = message.ToJsonString()
    return text if "." not in text else f"{text[:-1].rstrip('0')}s"


def _struct(message: Any) -> dict[str, Any]:
    return {key: _json_value(message.fields[key]) for key in sorted(message.fields)}


def _json_value(message: Any) -> Any:
    match message.WhichOneof("kind"):
        case "struct_value":
            return _struct(message.struct_value)
        case "list_value":
            return [_json_value(item) for item in message.list_value.values]
        case "number_value":
            return _number(message.number_value)
        case None | "null_value":
            return None
        case kind:
            return getattr(message, kind)


def _number(value: float) -> float | int | str:
    """A Struct knows doubles alone; a whole number reads better as one, and JSON has no infinities."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return int(value) if value.is_integer() and abs(value) <= 1 << 53 else value


_WELL_KNOWN: Final[Mapping[str, Callable[[Any], Any]]] = {
    "google.protobuf.Timestamp": _timestamp,
    "google.protobuf.Duration": _duration,
    "google.protobuf.Struct": _struct,
}
