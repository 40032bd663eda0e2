"""Values of the plain JSON dialect as messages. Strict: what is not understood is refused, never dropped.

For each message type a table of readers is made once. Readers collect violations instead of stopping at the first, so
that a person sees all that is wrong at once.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from google.protobuf import wrappers_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.struct_pb2 import NULL_VALUE, ListValue, Struct, Value

from jobledger_gateway.errors import Violation
from jobledger_gateway.fields import descriptor_of, is_map, map_parts, message_of
from jobledger_gateway.scalars import EXACT, InvalidValueError, from_json, from_text

# Reads a JSON value into a message; where the value is bad it adds violations, under the given path.
Read = Callable[[Message, Any, str, list[Violation]], None]
# Makes one value (of a field, an item, a map's entry) of a JSON value; None where it added violations instead.
Make = Callable[[Any, str, list[Violation]], Any]


def decode(into: Message, value: Any) -> list[Violation]:
    """Sets the fields of `into` from a JSON object, and tells what is wrong with it.

    Returns:
        The violations; where there are any, `into` is not to be used.
    """
    violations: list[Violation] = []
    _read_message(into, value, "", violations)
    return violations


@dataclass(frozen=True, slots=True)
class Reader:
    """How a field of an object is read. `takes_null`: null is a value, and does not mean unset."""

    field: FieldDescriptor
    read: Read
    takes_null: bool


@cache
def _readers(message: Descriptor) -> Mapping[str, Reader]:
    """Readers by each name that a field goes by: that of the .proto, and the camel case of canonical ProtoJSON."""
    readers: dict[str, Reader] = {}
    for field in message.fields:
        takes_null = field.message_type is not None and field.message_type.full_name == Value.DESCRIPTOR.full_name
        reader = Reader(field=field, read=_reader(field), takes_null=takes_null and not field.is_repeated)
        readers[field.name] = readers[field.json_name] = reader
    return readers


def _read_message(into: Message, value: Any, path: str, violations: list[Violation]) -> None:
    if not isinstance(value, dict):
        violations.append(Violation(path, "must be an object"))
        return
    readers = _readers(descriptor_of(into))
    given: set[str] = set()
    for name, item in value.items():
        where = f"{path}.{name}" if path else name
        reader = readers.get(name)
        if reader is None:
            violations.append(Violation(where, "there is no such field"))
            continue
        refusal = _claim(reader.field, item is not None or reader.takes_null, given)
        if refusal:
            violations.append(Violation(where, refusal))
        elif item is not None or reader.takes_null:
            reader.read(into, item, where, violations)


def _claim(field: FieldDescriptor, sets: bool, given: set[str]) -> str:
    """Notes that a field is given; says why it must not be where it, or another of its oneof, was given before."""
    if field.name in given:
        return "is given twice, under two names"
    given.add(field.name)
    group = field.containing_oneof
    if not sets or group is None or len(group.fields) == 1:
        return ""
    # A field's name holds no dot, so that the group's never meets one.
    key = f"oneof.{group.name}"
    if key in given:
        return f"only one of {', '.join(other.name for other in group.fields)} may be given"
    given.add(key)
    return ""


def _reader(field: FieldDescriptor) -> Read:
    if is_map(field):
        return _map_reader(field)
    if field.is_repeated:
        return _list_reader(field)
    convert = _late(field)
    if convert is None:
        return lambda into, value, path, violations: _read_nested(getattr(into, field.name), value, path, violations)
    return _single_reader(field, convert)


def _late(field: FieldDescriptor) -> Callable[[Any], Any] | None:
    """What converts a value that is no object to be read field by field."""
    if field.message_type is not None and field.message_type.full_name in WELL_KNOWN:
        return WELL_KNOWN[field.message_type.full_name]
    return from_json(field)


def _read_nested(into: Message, value: Any, path: str, violations: list[Violation]) -> None:
    # An empty object sets the message too.
    into.SetInParent()
    _read_message(into, value, path, violations)


def _single_reader(field: FieldDescriptor, convert: Callable[[Any], Any]) -> Read:
    name, is_message = field.name, field.message_type is not None

    def read(into: Message, value: Any, path: str, violations: list[Violation]) -> None:
        try:
            made = convert(value)
        except InvalidValueError as error:
            violations.append(Violation(path, str(error)))
            return
        if is_message:
            getattr(into, name).CopyFrom(made)
        else:
            setattr(into, name, made)

    return read


def _list_reader(field: FieldDescriptor) -> Read:
    make = _maker(field)

    def read(into: Message, value: Any, path: str, violations: list[Violation]) -> None:
        if not isinstance(value, list):
            violations.append(Violation(path, "must be a list"))
            return
        made = [make(item, f"{path}[{index}]", violations) for index, item in enumerate(value)]
        if not violations:
            getattr(into, field.name).extend(made)

    return read


def _map_reader(field: FieldDescriptor) -> Read:
    keys, values = map_parts(field)
    make_key, make = from_text(keys), _maker(values)
    if make_key is None:
        raise TypeError(f"{field.full_name} has keys that text can't say")

    def read(into: Message, value: Any, path: str, violations: list[Violation]) -> None:
        if not isinstance(value, dict):
            violations.append(Violation(path, "must be an object"))
            return
        target = getattr(into, field.name)
        for name, item in value.items():
            where = f"{path}.{name}"
            try:
                key = make_key(name)
            except InvalidValueError as error:
                violations.append(Violation(where, f"the key {error}"))
                continue
            made = make(item, where, violations)
            if made is None:
                continue
            if values.message_type is None:
                target[key] = made
            else:
                target[key].CopyFrom(made)

    return read


def _maker(field: FieldDescriptor) -> Make:
    convert = _late(field)

    def make(value: Any, path: str, violations: list[Violation]) -> Any:
        if value is None and convert is not _value:
            violations.append(Violation(path, "must not be null"))
            return None
        if convert is None:
            message = GetMessageClass(message_of(field))()
            _read_message(message, value, path, violations)
            return message
        try:
            return convert(value)
        except InvalidValueError as error:
            violations.append(Violation(path, str(error)))
            return None

    return make


def _struct(value: Any) -> Struct:
    if not isinstance(value, dict):
        raise InvalidValueError("must be an object")
    return Struct(fields={key: _value(item) for key, item in value.items()})


def _list(value: Any) -> ListValue:
    if not isinstance(value, list):
        raise InvalidValueError("must be a list")
    return ListValue(values=[_value(item) for item in value])


def _value(value: Any) -> Value:
    if isinstance(value, str):
        return Value(string_value=value)
    if isinstance(value, bool):
        return Value(bool_value=value)
    if isinstance(value, int | float):
        return Value(number_value=_exact(value))
    if isinstance(value, dict):
        return Value(struct_value=_struct(value))
    if isinstance(value, list):
        return Value(list_value=_list(value))
    return Value(null_value=NULL_VALUE)


def _exact(value: int | float) -> float:
    """A Struct holds doubles only: a whole number that would change is refused, and so is one past their range."""
    if isinstance(value, int) and abs(value) > EXACT:
        raise InvalidValueError(f"holds a whole number past {EXACT}, which would lose digits: send it as a string")
    if value in {float("inf"), float("-inf")}:
        raise InvalidValueError("holds a number that is too large")
    return float(value)


def _wrapper(message: Descriptor) -> Callable[[Any], Any]:
    convert = from_json(message.fields_by_name["value"])
    if convert is None:
        raise TypeError(f"{message.full_name} does not wrap a scalar")
    return lambda value: GetMessageClass(message)(value=convert(value))


# What is not read field by field, beside the times that scalars.py knows.
WELL_KNOWN: Mapping[str, Callable[[Any], Any]] = {
    "google.protobuf.Struct": _struct,
    "google.protobuf.ListValue": _list,
    "google.protobuf.Value": _value,
    **{message.full_name: _wrapper(message) for message in wrappers_pb2.DESCRIPTOR.message_types_by_name.values()},
}
