"""Messages as the REST API writes them: snake_case names, short enums, numbers as numbers, unset as null."""

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

from google.protobuf.message import Message

from jobledger.v1.annotations_pb2 import json as json_rule
from jobledger.values import descriptor_short_name


def plain(message: Message) -> Any:
    """The message as a JSON value; keys in the order of the .proto."""
    known = _WELL_KNOWN.get(message.DESCRIPTOR.full_name)
    if known is not None:
        return known(message)
    fields: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        _add_field(fields, message, field)
    return fields


def _add_field(fields: dict[str, Any], message: Message, field: Any) -> None:
    rule = field.GetOptions().Extensions[json_rule]
    if field.has_presence and not message.HasField(field.name):
        if not (rule.flatten or rule.omit_unset):
            fields[field.name] = None
        return
    value = _field_value(field, getattr(message, field.name))
    if rule.flatten:
        fields.update(value)
    else:
        fields[field.name] = value


def _field_value(field: Any, value: Any) -> Any:
    if not field.is_repeated:
        return _single(field, value)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        item = field.message_type.fields_by_name["value"]
        return {str(key): _single(item, value[key]) for key in sorted(value)}
    return [_single(field, item) for item in value]


def _single(field: Any, value: Any) -> Any:
    if field.enum_type is not None:
        return descriptor_short_name(field.enum_type, value)
    return plain(value) if isinstance(value, Message) else value


def _timestamp(message: Any) -> str:
    return f"{message.ToDatetime():%Y-%m-%dT%H:%M:%S.%f}Z"


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
