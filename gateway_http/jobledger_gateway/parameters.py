"""Fields that a query can set, and setting them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from jobledger_gateway.dialect import Dialect
from jobledger_gateway.encoding import json_rule
from jobledger_gateway.errors import Violation
from jobledger_gateway.fields import assign, message_of
from jobledger_gateway.scalars import Convert, InvalidValueError
from jobledger_gateway.well_known_in import from_text

# How deep fields of fields are listed. Deeper ones are understood too: a type within itself has no last one.
LISTED_DEPTH = 3


@dataclass(frozen=True, slots=True)
class Parameter:
    """A field that a query sets. `splits`: commas part its values."""

    path: tuple[str, ...]
    field: FieldDescriptor
    convert: Convert
    splits: bool

    @property
    def name(self) -> str:
        """Its name in the plain dialect."""
        return ".".join(self.path)

    @property
    def claim(self) -> str:
        """What no other parameter may set too: the field, or the oneof that it is part of."""
        group = self.field.containing_oneof
        return self.name if group is None else f"{'.'.join(self.path[:-1])}/{group.name}"


def find_parameter(message: Descriptor, name: str, dialect: Dialect) -> Parameter | None:
    """The parameter of a name such as `inner.count`, in snake or camel case; None where there is none."""
    current, field = message, None
    path: tuple[str, ...] = ()
    for part in name.split("."):
        if field is not None:
            if field.is_repeated or field.message_type is None:
                return None
            current = field.message_type
        field = current.fields_by_name.get(part) or _by_json_name(current, part)
        if field is None:
            return None
        path = (*path, field.name)
    return None if field is None else _parameter(path, field, dialect)


def _by_json_name(message: Descriptor, name: str) -> FieldDescriptor | None:
    return next((field for field in message.fields if field.json_name == name), None)


def _parameter(path: tuple[str, ...], field: FieldDescriptor, dialect: Dialect) -> Parameter | None:
    convert = from_text(field, dialect)
    if convert is None:
        return None
    listed = field.is_repeated and (field.enum_type is not None or json_rule(field).comma_separated)
    return Parameter(path=path, field=field, convert=convert, splits=listed and dialect is Dialect.PLAIN)


def list_parameters(
    message: Descriptor, dialect: Dialect, above: tuple[FieldDescriptor, ...] = ()
) -> Iterator[Parameter]:
    """The parameters of a message, nested ones too; a type within itself is not followed."""
    for field in message.fields:
        path = (*(parent.name for parent in above), field.name)
        found = _parameter(path, field, dialect)
        if found is not None:
            yield found
        elif not field.is_repeated and len(above) < LISTED_DEPTH and _is_followed(message_of(field), above):
            yield from list_parameters(message_of(field), dialect, (*above, field))


def _is_followed(message: Descriptor, above: Sequence[FieldDescriptor]) -> bool:
    within_itself = message in {parent.containing_type for parent in above}
    return not within_itself and not message.full_name.startswith("google.protobuf.")


def set_parameters(
    message: Message,
    query: Mapping[str, tuple[Parameter | None, Sequence[str]]],
    claimed: Mapping[str, str],
) -> list[Violation]:
    """Sets fields from the values of a query, by name; tells what is wrong with them.

    Args:
        claimed: claims of what is set elsewhere, with the name that tells where.
    """
    violations: list[Violation] = []
    given = dict(claimed)
    for name, (parameter, values) in query.items():
        refusal = _refusal(parameter, name, values, given)
        if parameter is None or refusal:
            violations.append(Violation(name, refusal))
            continue
        try:
            _set(message, parameter, values)
        except InvalidValueError as error:
            violations.append(Violation(name, str(error)))
    return violations


def _refusal(parameter: Parameter | None, name: str, values: Sequence[str], given: dict[str, str]) -> str:
    """Why a parameter can't be taken, or ""."""
    if parameter is None:
        return "there is no such parameter"
    if len(values) > 1 and not parameter.field.is_repeated:
        return "may be given only once"
    other = given.setdefault(parameter.claim, name)
    return "" if other == name else f"excludes '{other}'"


def _set(message: Message, parameter: Parameter, values: Sequence[str]) -> None:
    target = parent_of(message, parameter.path)
    if not parameter.field.is_repeated:
        set_single(target, parameter.field, parameter.convert(values[0]))
        return
    pieces = [piece for value in values for piece in (value.split(",") if parameter.splits else [value])]
    if parameter.splits and not all(pieces):
        raise InvalidValueError("holds an empty element")
    items, made = getattr(target, parameter.field.name), [parameter.convert(piece) for piece in pieces]
    if parameter.field.message_type is None:
        items.extend(made)
        return
    for item in made:
        assign(items.add(), item)


def set_single(target: Message, field: FieldDescriptor, value: object) -> None:
    """Sets a field that is not repeated."""
    if isinstance(value, Message):
        assign(getattr(target, field.name), value)
    else:
        setattr(target, field.name, value)


def parent_of(message: Message, path: Sequence[str]) -> Message:
    """The message that holds the last field of a path."""
    for name in path[:-1]:
        message = getattr(message, name)
    return message
