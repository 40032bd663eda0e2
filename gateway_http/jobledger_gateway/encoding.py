"""Messages as values of the plain JSON dialect.

For each message type a function is generated once that builds its dict with one literal. That is several times quicker
than walking the descriptor for every message, and the order of keys is that of the .proto.
"""

import base64
import math
import struct
from collections.abc import Callable, Mapping
from functools import cache, lru_cache
from keyword import iskeyword
from typing import Any

import orjson
from google.protobuf import timestamp_pb2, wrappers_pb2
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message
from jobledger.v1 import annotations_pb2

from jobledger_gateway.enums import short_names
from jobledger_gateway.fields import descriptor_of, enum_of, is_map, map_parts, message_of

Encode = Callable[[Any], Any]

EXACT = 1 << 53
# The largest 32-bit float. Its shortest decimal lies above it, and some readers refuse that.
FLOAT_MAX = 3.4028234663852886e38


def encode_json(message: Message) -> bytes:
    """The message as JSON. The same message gives the same bytes."""
    return orjson.dumps(encoder(descriptor_of(message))(message))


def encoder(message: Descriptor) -> Encode:
    """The function that makes a JSON value of a message of this type."""
    return WELL_KNOWN.get(message.full_name) or _generated(message)


def json_rule(field: FieldDescriptor) -> annotations_pb2.JsonRule:
    """How a field looks in JSON, as its option says."""
    return field.GetOptions().Extensions[annotations_pb2.json]


@cache
def _generated(message: Descriptor) -> Encode:
    scope: dict[str, Any] = {}
    # A recursive type finds its own function here when it runs, not while it is compiled.
    lines = [_item(field, scope) for field in message.fields]
    source = "def encode(m):\n    return {" + ",\n        ".join(lines) + "}"
    exec(source, scope)  # noqa: S102 - the source is made of descriptors' names alone
    encode: Encode = scope["encode"]
    return encode


def _item(field: FieldDescriptor, scope: dict[str, Any]) -> str:
    """One entry of the dict literal; what it calls goes into `scope`."""
    rule, name = json_rule(field), field.name
    value = _value(field, scope)
    present = f"m.HasField({name!r})"
    if rule.flatten:
        return f"**({value} if {present} else {{}})"
    if rule.omit_unset:
        return f"**({{{name!r}: {value}}} if {present} else {{}})"
    if field.has_presence:
        return f"{name!r}: {value} if {present} else None"
    return f"{name!r}: {value}"


def _value(field: FieldDescriptor, scope: dict[str, Any]) -> str:
    access, name = f"getattr(m, {field.name!r})" if iskeyword(field.name) else f"m.{field.name}", f"f_{field.name}"
    if is_map(field):
        parts: dict[str, Any] = {}
        parts["value"] = _single(map_parts(field)[1], parts, "value")
        scope[name] = _map_encoder(parts)
        return f"{name}({access})"
    convert = _single(field, scope, name)
    if convert is None:
        return f"list({access})" if field.is_repeated else access
    scope[name] = convert
    return f"[*map({name}, {access})]" if field.is_repeated else f"{name}({access})"


def _single(field: FieldDescriptor, scope: dict[str, Any], name: str) -> Encode | None:
    """What makes JSON of one value of the field, to be found in `scope`; None where the value is JSON already."""
    match field.type:
        case FieldDescriptor.TYPE_MESSAGE | FieldDescriptor.TYPE_GROUP:
            message = message_of(field)
            return WELL_KNOWN.get(message.full_name) or _late(message, scope, name)
        case FieldDescriptor.TYPE_ENUM:
            return _enum_encoder(enum_of(field))
        case FieldDescriptor.TYPE_BYTES:
            return _bytes
        case FieldDescriptor.TYPE_DOUBLE:
            return _double
        case FieldDescriptor.TYPE_FLOAT:
            return _float
        case _:
            return None


def _late(message: Descriptor, scope: dict[str, Any], name: str) -> Encode:
    """Finds the encoder of a type when it is first called, and puts it in its own place."""

    def encode(value: Any) -> Any:
        scope[name] = found = _generated(message)
        return found(value)

    return encode


class _EnumNames(dict[int, str]):
    """Short names; a number without a name stands for itself."""

    def __missing__(self, number: int) -> int:
        return number


def _enum_encoder(enum: EnumDescriptor) -> Encode:
    return _EnumNames(short_names(enum)).__getitem__


def _map_encoder(scope: Mapping[str, Encode | None]) -> Encode:
    """Maps have their keys sorted as text; a key that is no text becomes its JSON. `scope` has what encodes a value."""

    def encode(entries: Mapping[Any, Any]) -> dict[str, Any]:
        named = sorted((_key(entry), entry) for entry in entries)
        as_json = scope["value"]
        if as_json is None:
            return {name: entries[entry] for name, entry in named}
        return {name: as_json(entries[entry]) for name, entry in named}

    return encode


def _key(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _bytes(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _double(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _float(value: float) -> float | str:
    """A 32-bit float by its shortest decimal that reads back as the same."""
    if not math.isfinite(value):
        return _double(value)
    packed = struct.pack("<f", value)
    shortened = (float(f"{value:.{digits}g}") for digits in range(6, 9))
    return next((short for short in shortened if _fits(short, packed)), value)


def _fits(value: float, packed: bytes) -> bool:
    return abs(value) <= FLOAT_MAX and struct.pack("<f", value) == packed


@lru_cache(maxsize=4096)
def _to_the_second(seconds: int) -> str:
    text = timestamp_pb2.Timestamp(seconds=seconds).ToJsonString()
    return text.removesuffix("Z")


@lru_cache(maxsize=4096)
def _to_the_microsecond(seconds: int, nanos: int) -> str:
    return f"{_to_the_second(seconds)}.{nanos // 1000:06d}Z"


def _timestamp(value: Any) -> str:
    """RFC 3339 in UTC with six digits. Times that come by the thousand, as a log's do, are mostly the same."""
    return _to_the_microsecond(value.seconds, value.nanos)


def _duration(value: Any) -> str:
    """Seconds with as many digits as it takes, and `s`."""
    nanos = value.seconds * 1_000_000_000 + value.nanos
    whole, rest = divmod(abs(nanos), 1_000_000_000)
    fraction = f".{rest:09d}".rstrip("0") if rest else ""
    return f"{'-' if nanos < 0 else ''}{whole}{fraction}s"


def _struct(value: Any) -> dict[str, Any]:
    fields = value.fields
    return {key: _json_value(fields[key]) for key in sorted(fields)}


def _json_value(value: Any) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "string_value":
        return value.string_value
    if kind == "number_value":
        return _number(value.number_value)
    if kind == "bool_value":
        return value.bool_value
    if kind == "struct_value":
        return _struct(value.struct_value)
    if kind == "list_value":
        return _list(value.list_value)
    return None


def _number(value: float) -> float | int | str:
    """Struct knows doubles only; a whole number reads better, and round-trips, as one."""
    if value.is_integer() and abs(value) <= EXACT:
        return int(value)
    return _double(value)


def _list(value: Any) -> list[Any]:
    return [_json_value(item) for item in value.values]


def _wrapped(value: Any) -> Any:
    convert = _single(value.DESCRIPTOR.fields_by_name["value"], {}, "")
    return convert(value.value) if convert else value.value


WRAPPERS = tuple(message.full_name for message in wrappers_pb2.DESCRIPTOR.message_types_by_name.values())

WELL_KNOWN: Mapping[str, Encode] = {
    "google.protobuf.Timestamp": _timestamp,
    "google.protobuf.Duration": _duration,
    "google.protobuf.Struct": _struct,
    "google.protobuf.Value": _json_value,
    "google.protobuf.ListValue": _list,
    **dict.fromkeys(WRAPPERS, _wrapped),
}
