"""JSON values as messages. Strict: what is not understood is refused, never dropped.

For each message type and dialect a table of readers is made once. Readers collect violations instead of stopping at the
first, so that a person sees what is wrong at once; but they stop where there are more than anybody reads.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, EncodeError, Message
from google.protobuf.message_factory import GetMessageClass

from jobledger_gateway.dialect import Dialect
from jobledger_gateway.encoding import ANY_NAME, SINGLE_VALUE_TYPES
from jobledger_gateway.enums import some_of
from jobledger_gateway.errors import Violation
from jobledger_gateway.fields import assign, descriptor_of, find_message, is_map, map_parts, message_of
from jobledger_gateway.scalars import InvalidValueError, scalar_from_text
from jobledger_gateway.violations import EnoughError, Violations, below
from jobledger_gateway.well_known_in import from_json, message_from_json, takes_null

EMPTY_NAME = "google.protobuf.Empty"

# Reads a JSON value into a message; where the value is bad it adds violations, under the given path.
Read = Callable[[Message, Any, str, Violations], None]
# Makes one value (of a field, an item, a map's entry) of a JSON value; None where it added violations instead.
Make = Callable[[Any, str, Violations], Any]


def decode(into: Message, value: Any, dialect: Dialect = Dialect.PLAIN) -> list[Violation]:
    """Sets the fields of `into` from a JSON object, and tells what is wrong with it.

    Returns:
        The violations, at most as many as are told; where there are any, `into` is not to be used.
    """
    violations = Violations()
    with suppress(EnoughError):
        reader(descriptor_of(into), dialect)(into, value, "", violations)
    return violations.found


@dataclass(frozen=True, slots=True)
class Reader:
    """How a field of an object is read. `takes_null`: null is a value, and does not mean unset."""

    field: FieldDescriptor
    read: Read
    takes_null: bool


@cache
def reader(message: Descriptor, dialect: Dialect) -> Read:
    """What reads a JSON value into a message of this type."""
    at_once = _well_known(message, dialect)
    if at_once is not None:
        return at_once
    readers: dict[str, Reader] = {}

    def read(into: Message, value: Any, path: str, violations: Violations) -> None:
        if not readers:
            # Not before: a recursive type has readers of its own type.
            readers.update(_readers(message, dialect))
        _read_fields(readers, into, value, path, violations)

    return read


def _well_known(message: Descriptor, dialect: Dialect) -> Read | None:
    convert = _converter_of(message, dialect)
    if convert is None:
        return None

    def read(into: Message, value: Any, path: str, violations: Violations) -> None:
        try:
            assign(into, convert(value))
        except InvalidValueError as error:
            violations.add(path, str(error))

    return read


def _readers(message: Descriptor, dialect: Dialect) -> Mapping[str, Reader]:
    """Readers by each name that a field goes by: that of the .proto, and the camel case of canonical ProtoJSON.

    Of two fields that share one, it is the one's that the dialect writes by it.
    """
    made = [
        Reader(field=field, read=_reader(field, dialect), takes_null=_sets_by_null(field, dialect))
        for field in message.fields
    ]
    by_name = {reader.field.name: reader for reader in made}
    by_json_name = {reader.field.json_name: reader for reader in made}
    return {**by_json_name, **by_name} if dialect is Dialect.PLAIN else {**by_name, **by_json_name}


def _sets_by_null(field: FieldDescriptor, dialect: Dialect) -> bool:
    """Whether null is a value of the field. The plain dialect writes null for each of a oneof that is not the one."""
    one_of_many = field.containing_oneof is not None and len(field.containing_oneof.fields) > 1
    return takes_null(field) and not field.is_repeated and not (one_of_many and dialect is Dialect.PLAIN)


def _read_fields(readers: Mapping[str, Reader], into: Message, value: Any, path: str, violations: Violations) -> None:
    if not isinstance(value, dict):
        violations.add(path, "must be an object")
        return
    given: set[str] = set()
    for name, item in value.items():
        where = below(path, name)
        found = readers.get(name)
        if found is None:
            violations.add(where, "there is no such field")
            continue
        refusal = _claim(found.field, item is not None or found.takes_null, given)
        if refusal:
            violations.add(where, refusal)
        elif item is not None or found.takes_null:
            found.read(into, item, where, violations)


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
        return f"only one of {some_of([other.name for other in group.fields])} may be given"
    given.add(key)
    return ""


def _reader(field: FieldDescriptor, dialect: Dialect) -> Read:
    if is_map(field):
        return _map_reader(field, dialect)
    if field.is_repeated:
        return _list_reader(field, dialect) if _converter(field, dialect) else _objects_reader(field, dialect)
    convert = _converter(field, dialect)
    return _nested_reader(field, dialect) if convert is None else _single_reader(field, convert)


def _converter_of(message: Descriptor, dialect: Dialect) -> Callable[[Any], Any] | None:
    if message.full_name == ANY_NAME:
        return _any_converter(message.file.pool, dialect)
    return message_from_json(message, dialect)


def _converter(field: FieldDescriptor, dialect: Dialect) -> Callable[[Any], Any] | None:
    """What converts a value that is no object to be read field by field."""
    return from_json(field, dialect) if field.message_type is None else _converter_of(field.message_type, dialect)


def _nested_reader(field: FieldDescriptor, dialect: Dialect) -> Read:
    name, read_into = field.name, reader(message_of(field), dialect)

    def read(into: Message, value: Any, path: str, violations: Violations) -> None:
        nested = getattr(into, name)
        # An empty object sets the message too.
        nested.SetInParent()
        read_into(nested, value, path, violations)

    return read


def _single_reader(field: FieldDescriptor, convert: Callable[[Any], Any]) -> Read:
    name, is_message = field.name, field.message_type is not None

    def read(into: Message, value: Any, path: str, violations: Violations) -> None:
        try:
            made = convert(value)
        except InvalidValueError as error:
            violations.add(path, str(error))
            return
        if is_message:
            assign(getattr(into, name), made)
        else:
            setattr(into, name, made)

    return read


def _list_reader(field: FieldDescriptor, dialect: Dialect) -> Read:
    name, make, is_message = field.name, _maker(field, dialect), field.message_type is not None

    def read(into: Message, value: Any, path: str, violations: Violations) -> None:
        if not isinstance(value, list):
            violations.add(path, "must be a list")
            return
        target = getattr(into, name)
        made = (make(item, f"{path}[{index}]", violations) for index, item in enumerate(value))
        if not is_message:
            target.extend(item for item in made if item is not None)
            return
        for item in made:
            if item is not None:
                assign(target.add(), item)

    return read


def _objects_reader(field: FieldDescriptor, dialect: Dialect) -> Read:
    """Of a list of messages that are objects in JSON: they are read where they stand."""
    name, read_into = field.name, reader(message_of(field), dialect)

    def read(into: Message, value: Any, path: str, violations: Violations) -> None:
        if not isinstance(value, list):
            violations.add(path, "must be a list")
            return
        add = getattr(into, name).add
        for index, item in enumerate(value):
            where = f"{path}[{index}]"
            if item is None:
                violations.add(where, "must not be null")
            else:
                read_into(add(), item, where, violations)

    return read


def _map_reader(field: FieldDescriptor, dialect: Dialect) -> Read:
    keys, values = map_parts(field)
    make_key, make = scalar_from_text(keys, dialect), _maker(values, dialect)

    def read(into: Message, value: Any, path: str, violations: Violations) -> None:
        if not isinstance(value, dict):
            violations.add(path, "must be an object")
            return
        target, names = getattr(into, field.name), dict[Any, str]()
        for name, item in value.items():
            where = below(path, name)
            try:
                key = make_key(name)
            except InvalidValueError as error:
                violations.add(where, f"the key {error}")
                continue
            if names.setdefault(key, name) != name:
                violations.add(where, f"is the key '{names[key]}' in another spelling")
                continue
            made = make(item, where, violations)
            if made is None:
                continue
            if values.message_type is None:
                target[key] = made
            else:
                assign(target[key], made)

    return read


def _maker(field: FieldDescriptor, dialect: Dialect) -> Make:
    convert, null_is_a_value = _converter(field, dialect), takes_null(field)
    read = reader(message_of(field), dialect) if convert is None else None

    def make(value: Any, path: str, violations: Violations) -> Any:
        if value is None and not null_is_a_value:
            violations.add(path, "must not be null")
            return None
        if read is not None:
            message = GetMessageClass(message_of(field))()
            read(message, value, path, violations)
            return message
        try:
            return convert(value) if convert else None
        except InvalidValueError as error:
            violations.add(path, str(error))
            return None

    return make


def _any_converter(pool: DescriptorPool, dialect: Dialect) -> Callable[[Any], AnyMessage]:
    """Reads `{"@type": ..., ...}`; the fields of well-known types stand under `value`."""

    def convert(value: Any) -> AnyMessage:
        if not isinstance(value, dict):
            raise InvalidValueError("must be an object")
        if not value:
            return AnyMessage()
        url = value.get("@type")
        found = find_message(pool, url.rpartition("/")[2]) if isinstance(url, str) and "/" in url else None
        if found is None:
            raise InvalidValueError("must name a type that is known here as '@type'")
        rest: Any = {name: item for name, item in value.items() if name != "@type"}
        if found.full_name == EMPTY_NAME and rest == {"value": {}}:
            # As Go writes it, to whom Empty is a well-known type.
            rest = {}
        if found.full_name in SINGLE_VALUE_TYPES:
            if rest.keys() != {"value"}:
                raise InvalidValueError(f"must hold its {found.name} as 'value', and nothing else")
            rest = rest["value"]
        message = GetMessageClass(found)()
        violations = decode(message, rest, dialect)
        if violations:
            where = f"{violations[0].field}: " if violations[0].field else ""
            raise InvalidValueError(f"holds a {found.name} that breaks a rule: {where}{violations[0].description}")
        try:
            packed = message.SerializeToString(deterministic=True)
            type(message).FromString(packed)
        except (DecodeError, EncodeError) as error:
            raise InvalidValueError(f"holds a {found.name} that can't be sent: {error}") from None
        return AnyMessage(type_url=url, value=packed)

    return convert
