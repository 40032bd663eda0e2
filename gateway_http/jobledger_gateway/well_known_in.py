"""Well-known types of protobuf as clients write them, in JSON or as text in a path or query."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.struct_pb2 import NULL_VALUE, ListValue, Struct, Value

from jobledger_gateway.dialect import Dialect
from jobledger_gateway.errors import GatewayError
from jobledger_gateway.fields import WRAPPERS, message_of
from jobledger_gateway.json_in import parse_json
from jobledger_gateway.scalars import EXACT, Convert, InvalidValueError, scalar_from_json, scalar_from_text
from jobledger_gateway.times import duration, seconds_or_duration, seconds_or_duration_text, timestamp

MASK_PATH = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*|\*")
CAPITAL = re.compile(r"[A-Z]")

# protobuf takes 100 levels of messages. An object within a Struct takes three, so this leaves ten for what is around.
MOST_JSON_LEVELS = 30


def from_json(field: FieldDescriptor, dialect: Dialect) -> Convert | None:
    """What makes a single value of the field of a JSON value; None for messages that are objects in JSON.

    The function raises InvalidValueError.
    """
    if field.message_type is None:
        return scalar_from_json(field, dialect)
    return message_from_json(field.message_type, dialect)


def message_from_json(message: Descriptor, dialect: Dialect) -> Convert | None:
    """What makes a message of a JSON value; None for messages that are objects in JSON.

    The function raises InvalidValueError.
    """
    if message.full_name in WRAPPERS:
        return _wrapper(message, scalar_from_json, dialect)
    return JSON_CONVERTERS[dialect].get(message.full_name)


def from_text(field: FieldDescriptor, dialect: Dialect) -> Convert | None:
    """What makes a single value of the field of text in a path or query; None where text can't say it.

    Struct, Value and ListValue are JSON text. The function raises InvalidValueError.
    """
    if field.message_type is None:
        return scalar_from_text(field, dialect)
    name = field.message_type.full_name
    if name in WRAPPERS:
        return _wrapper(field.message_type, scalar_from_text, dialect)
    return TEXT_CONVERTERS[dialect].get(name)


def takes_null(field: FieldDescriptor) -> bool:
    """Whether null is a value of the field's type, and does not mean that it is unset."""
    if field.message_type is not None:
        return message_of(field).full_name == Value.DESCRIPTOR.full_name
    return field.enum_type is not None and field.enum_type.full_name == "google.protobuf.NullValue"


def _struct(value: Any) -> Struct:
    if not isinstance(value, dict):
        raise InvalidValueError("must be an object")
    made = Struct()
    _fill_struct(made, value, MOST_JSON_LEVELS)
    return made


def _list(value: Any) -> ListValue:
    if not isinstance(value, list):
        raise InvalidValueError("must be a list")
    made = ListValue()
    _fill_list(made, value, MOST_JSON_LEVELS)
    return made


def _deeper(left: int) -> int:
    if left == 0:
        raise InvalidValueError(f"is nested too deeply: objects and lists may have {MOST_JSON_LEVELS} levels")
    return left - 1


def _value(value: Any) -> Value:
    made = Value()
    _fill_value(made, value, MOST_JSON_LEVELS)
    return made


# In place: half a million values, which a small body can hold, take seconds where each is made and then copied.
def _fill_struct(into: Struct, value: Mapping[str, Any], left: int) -> None:
    fields, deeper = into.fields, _deeper(left) if value else left
    for key, item in value.items():
        _fill_value(fields[key], item, deeper)


def _fill_list(into: ListValue, value: Sequence[Any], left: int) -> None:
    add, deeper = into.values.add, _deeper(left) if value else left
    for item in value:
        _fill_value(add(), item, deeper)


def _fill_value(into: Value, value: Any, left: int) -> None:
    if isinstance(value, str):
        into.string_value = value
    elif isinstance(value, bool):
        into.bool_value = value
    elif isinstance(value, int | float):
        into.number_value = _exact(value)
    elif isinstance(value, dict):
        into.struct_value.SetInParent()
        _fill_struct(into.struct_value, value, left)
    elif isinstance(value, list):
        into.list_value.SetInParent()
        _fill_list(into.list_value, value, left)
    else:
        into.null_value = NULL_VALUE


def _exact(value: int | float) -> float:
    """A Struct holds doubles only: a whole number that would change is refused, and so is one past their range."""
    if isinstance(value, int) and abs(value) > EXACT:
        raise InvalidValueError(f"holds a whole number past {EXACT}, which would lose digits: send it as a string")
    number = float(value)
    if math.isinf(number):
        raise InvalidValueError("holds a number that is too large")
    return number


def _mask(value: Any) -> FieldMask:
    """Paths with commas between, in the names of the .proto or in camel case."""
    if not isinstance(value, str):
        raise InvalidValueError('must be the names of fields with commas between, such as "name,owner.email"')
    paths = value.split(",") if value else []
    for path in paths:
        if not MASK_PATH.fullmatch(path):
            raise InvalidValueError(f"'{path[:64]}' is not the path of a field")
    return FieldMask(paths=[snake_case(path) for path in paths])


def _camel_mask(value: Any) -> FieldMask:
    """The same in camel case alone: an underscore would be another name on the way back."""
    if isinstance(value, str) and "_" in value:
        raise InvalidValueError("names fields in camel case, without underscores")
    return _mask(value)


def snake_case(name: str) -> str:
    """A name in camel case as the .proto writes it."""
    return CAPITAL.sub(lambda capital: f"_{capital[0].lower()}", name)


def _wrapper(
    wrapper: Descriptor, read: Callable[[FieldDescriptor, Dialect], Convert], dialect: Dialect
) -> Callable[[Any], Any]:
    convert, wrapping = read(wrapper.fields_by_name["value"], dialect), GetMessageClass(wrapper)
    return lambda value: wrapping(value=convert(value))


def _json_text(convert: Convert) -> Convert:
    def read(text: str) -> Any:
        try:
            value = parse_json(text.encode())
        except GatewayError:
            raise InvalidValueError("must be JSON") from None
        return convert(value)

    return read


ALIKE: Mapping[str, Convert] = {
    "google.protobuf.Struct": _struct,
    "google.protobuf.ListValue": _list,
    "google.protobuf.Value": _value,
    "google.protobuf.FieldMask": _mask,
    "google.protobuf.Timestamp": timestamp,
}

# What is not read field by field, beside wrappers: by the full name of its type.
JSON_CONVERTERS: Mapping[Dialect, Mapping[str, Convert]] = {
    Dialect.PLAIN: {**ALIKE, "google.protobuf.Duration": seconds_or_duration},
    Dialect.PROTOJSON: {**ALIKE, "google.protobuf.Duration": duration, "google.protobuf.FieldMask": _camel_mask},
}
JSON_TEXTS = {
    f"google.protobuf.{name}": _json_text(ALIKE[f"google.protobuf.{name}"]) for name in ("Struct", "ListValue", "Value")
}
TEXT_CONVERTERS: Mapping[Dialect, Mapping[str, Convert]] = {
    Dialect.PLAIN: {
        **JSON_CONVERTERS[Dialect.PLAIN],
        **JSON_TEXTS,
        "google.protobuf.Duration": seconds_or_duration_text,
    },
    # Of queries canonical ProtoJSON says nothing: there either spelling will do, as for the names of parameters.
    Dialect.PROTOJSON: {**JSON_CONVERTERS[Dialect.PROTOJSON], **JSON_TEXTS, "google.protobuf.FieldMask": _mask},
}
