"""Messages as JSON values.

For each message type and dialect a function is generated once: in the plain dialect a dict literal, in canonical
ProtoJSON a statement for each field that may be absent. That is several times quicker than walking the descriptor for
every message, and the order of keys is that of the .proto.
"""

import base64
import math
import struct
from collections.abc import Iterable, Mapping
from functools import cache
from keyword import iskeyword
from typing import Any

import orjson
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from jobledger.v1 import annotations_pb2

from jobledger_gateway.dialect import Dialect
from jobledger_gateway.enums import names
from jobledger_gateway.fields import WRAPPERS, descriptor_of, enum_of, find_message, is_map, map_parts, message_of
from jobledger_gateway.scalars import NULL_VALUE
from jobledger_gateway.well_known_out import WELL_KNOWN, Encode, double

ANY_NAME = "google.protobuf.Any"
# Types whose JSON is not an object of their fields: within an Any it stands under `value`.
SINGLE_VALUE_TYPES = frozenset({*WELL_KNOWN[Dialect.PLAIN], *WRAPPERS, ANY_NAME})
WIDE = frozenset(
    {
        FieldDescriptor.TYPE_INT64,
        FieldDescriptor.TYPE_UINT64,
        FieldDescriptor.TYPE_SINT64,
        FieldDescriptor.TYPE_FIXED64,
        FieldDescriptor.TYPE_SFIXED64,
    }
)
FLOATS = frozenset({FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT})


def encode_json(message: Message, dialect: Dialect = Dialect.PLAIN) -> bytes:
    """The message as JSON. The same message gives the same bytes."""
    return orjson.dumps(encoder(descriptor_of(message), dialect)(message))


@cache
def encoder(message: Descriptor, dialect: Dialect = Dialect.PLAIN) -> Encode:
    """The function that makes a JSON value of a message of this type."""
    known = WELL_KNOWN[dialect].get(message.full_name)
    if known is not None:
        return known
    if message.full_name in WRAPPERS:
        return _unwrapped(message, dialect)
    if message.full_name == ANY_NAME:
        return _any_encoder(dialect)
    made = _compiled(_plain_source if dialect is Dialect.PLAIN else _canonical_source, message, dialect)
    return _extended(made, dialect) if message.is_extendable else made


def _extended(encode: Encode, dialect: Dialect) -> Encode:
    """What adds the extensions that a message has: which there can be, its type does not say."""

    def encode_all(value: Any) -> dict[str, Any]:
        made: dict[str, Any] = encode(value)
        for field, held in value.ListFields():
            if field.is_extension:
                made[f"[{field.full_name}]"] = _extension(field, dialect)(held)
        return made

    return encode_all


@cache
def _extension(field: FieldDescriptor, dialect: Dialect) -> Encode:
    convert = _single(field, {}, "", dialect) or (lambda value: value)
    return (lambda values: [*map(convert, values)]) if field.is_repeated else convert


def json_rule(field: FieldDescriptor) -> annotations_pb2.JsonRule:
    """How a field looks in plain JSON, as its option says."""
    return field.GetOptions().Extensions[annotations_pb2.json]


def value_encoder(field: FieldDescriptor, dialect: Dialect) -> Encode:
    """The function that makes a JSON value of one field of a message: None where it is unset."""
    scope: dict[str, Any] = {}
    value = _value(field, scope, dialect, access=_access(field.name))
    present = f" if m.HasField({field.name!r}) else None" if field.has_presence else ""
    exec(f"def encode(m):\n    return {value}{present}", scope)  # noqa: S102 - made of the field's name alone
    encode: Encode = scope["encode"]
    return encode


def _compiled(source: Any, message: Descriptor, dialect: Dialect) -> Encode:
    scope: dict[str, Any] = {}
    # A recursive type finds its own function here when it runs, not while it is compiled.
    exec(source(message, scope, dialect), scope)  # noqa: S102 - the source is made of descriptors' names alone
    encode: Encode = scope["encode"]
    return encode


def _plain_source(message: Descriptor, scope: dict[str, Any], dialect: Dialect) -> str:
    lines = [_item(field, scope, dialect) for field in message.fields]
    return "def encode(m):\n    return {" + ",\n        ".join(lines) + "}"


def _item(field: FieldDescriptor, scope: dict[str, Any], dialect: Dialect) -> str:
    """One entry of the dict literal; what it calls goes into `scope`."""
    rule, name = json_rule(field), field.name
    value = _value(field, scope, dialect, access=_access(name))
    present = f"m.HasField({name!r})"
    if rule.flatten:
        return f"**({value} if {present} else {{}})"
    if rule.omit_unset:
        return f"**({{{name!r}: {value}}} if {present} else {{}})"
    if field.has_presence:
        return f"{name!r}: {value} if {present} else None"
    return f"{name!r}: {value}"


def _canonical_source(message: Descriptor, scope: dict[str, Any], dialect: Dialect) -> str:
    lines: list[str] = []
    for field in message.fields:
        access = _access(field.name)
        if field.has_presence:
            value = _value(field, scope, dialect, access=access)
            lines.append(f"if m.HasField({field.name!r}): d[{field.json_name!r}] = {value}")
        else:
            # A negative zero is a number like others, and not the default.
            signed = " or str(v) == '-0.0'" if field.type in FLOATS and not field.is_repeated else ""
            value = _value(field, scope, dialect, access="v")
            lines.append(f"v = {access}\n    if v{signed}: d[{field.json_name!r}] = {value}")
    return "\n    ".join(["def encode(m):", "d = {}", *lines, "return d"])


def _access(name: str) -> str:
    return f"getattr(m, {name!r})" if iskeyword(name) else f"m.{name}"


def _value(field: FieldDescriptor, scope: dict[str, Any], dialect: Dialect, *, access: str) -> str:
    name = f"f_{field.name}"
    if is_map(field):
        parts: dict[str, Any] = {}
        parts["value"] = _single(map_parts(field)[1], parts, "value", dialect)
        scope[name] = _map_encoder(parts)
        return f"{name}({access})"
    convert = _single(field, scope, name, dialect)
    if convert is None:
        return f"list({access})" if field.is_repeated else access
    scope[name] = convert
    return f"[*map({name}, {access})]" if field.is_repeated else f"{name}({access})"


def _single(field: FieldDescriptor, scope: dict[str, Any], name: str, dialect: Dialect) -> Encode | None:
    """What makes JSON of one value of the field, to be found in `scope`; None where the value is JSON already."""
    match field.type:
        case FieldDescriptor.TYPE_MESSAGE | FieldDescriptor.TYPE_GROUP:
            return _late(message_of(field), scope, name, dialect)
        case FieldDescriptor.TYPE_ENUM:
            return _enum_encoder(enum_of(field), dialect)
        case FieldDescriptor.TYPE_BYTES:
            return _bytes
        case FieldDescriptor.TYPE_DOUBLE:
            return double
        case FieldDescriptor.TYPE_FLOAT:
            return _float
        case kind:
            return str if kind in WIDE and dialect is Dialect.PROTOJSON else None


def _late(message: Descriptor, scope: dict[str, Any], name: str, dialect: Dialect) -> Encode:
    """Finds the encoder of a type when it is first called, and puts it in its own place."""
    known = WELL_KNOWN[dialect].get(message.full_name)
    if known is not None:
        return known

    def encode(value: Any) -> Any:
        scope[name] = found = encoder(message, dialect)
        return found(value)

    return encode


class _EnumNames(dict[int, str]):
    """Names of numbers; a number without a name stands for itself."""

    def __missing__(self, number: int) -> int:
        return number


def _enum_encoder(enum: EnumDescriptor, dialect: Dialect) -> Encode:
    if enum.full_name == NULL_VALUE:
        return lambda _: None
    return _EnumNames(names(enum, dialect)).__getitem__


def _map_encoder(scope: Mapping[str, Encode | None]) -> Encode:
    """Maps have their keys sorted as text; a key that is no text becomes its JSON. `scope` has what encodes a value."""

    def encode(entries: Mapping[Any, Any]) -> dict[str, Any]:
        named: Iterable[tuple[str, Any]] = sorted((_key(entry), entry) for entry in entries)
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


def _float(value: float) -> float | str:
    """A 32-bit float by its shortest decimal that reads back as the same."""
    if not math.isfinite(value):
        return double(value)
    packed = struct.pack("<f", value)
    shortened = (float(f"{value:.{digits}g}") for digits in range(6, 10))
    # Nine digits tell any two of them apart.
    return next(short for short in shortened if struct.pack("<f", short) == packed)


def _unwrapped(wrapper: Descriptor, dialect: Dialect) -> Encode:
    convert = _single(wrapper.fields_by_name["value"], {}, "", dialect)
    return (lambda value: value.value) if convert is None else lambda value: convert(value.value)


def _any_encoder(dialect: Dialect) -> Encode:
    return lambda value: any_value(value, descriptor_of(value).file.pool, dialect)


def any_value(value: Any, pool: DescriptorPool, dialect: Dialect) -> dict[str, Any]:
    """The JSON value of an Any. A type that the pool lacks must not spoil the rest: it is told as its bytes."""
    if not value.type_url:
        return {}
    try:
        descriptor, inner = _unpacked(value, pool, dialect)
    except (LookupError, DecodeError, ValueError):
        return {"@type": value.type_url, "value": _bytes(value.value)}
    return {"@type": value.type_url, **({"value": inner} if descriptor.full_name in SINGLE_VALUE_TYPES else inner)}


def _unpacked(value: Any, pool: DescriptorPool, dialect: Dialect) -> tuple[Descriptor, Any]:
    name = value.type_url.rpartition("/")[2]
    found = find_message(pool, name)
    if found is None:
        raise LookupError(name)
    return found, encoder(found, dialect)(GetMessageClass(found).FromString(value.value))
