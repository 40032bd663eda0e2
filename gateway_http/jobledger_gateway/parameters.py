"""Fields that a query can set, and setting them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from jobledger_gateway.dialect import Dialect
from jobledger_gateway.encoding import SINGLE_VALUE_TYPES, json_rule
from jobledger_gateway.errors import Violation
from jobledger_gateway.fields import assign, descriptor_of, message_of
from jobledger_gateway.scalars import Convert, InvalidValueError
from jobledger_gateway.well_known_in import from_text

# How deep fields of fields are listed, and how many in all. Others are understood too: a type within itself has no last
# one, and of types within types there may be more than a document can hold.
LISTED_DEPTH, MOST_LISTED = 3, 500
# How many fields a name may lead through.
MOST_NAME_PARTS = 32


@dataclass(frozen=True, slots=True)
class Parameter:
    """A field that a query or a path sets.

    Attributes:
        splits: whether commas part its values.
        is_choice: whether its path takes one field of a oneof of several, at any level.
    """

    path: tuple[str, ...]
    field: FieldDescriptor
    convert: Convert
    splits: bool
    is_choice: bool

    @property
    def name(self) -> str:
        """Its name in the plain dialect."""
        return ".".join(self.path)


def find_parameter(message: Descriptor, name: str, dialect: Dialect) -> Parameter | None:
    """The parameter of a name such as `inner.count`, in snake or camel case; None where there is none."""
    fields, is_whole = fields_of(message, name, dialect)
    return _parameter(fields, dialect) if is_whole else None


def fields_of(message: Descriptor, name: str, dialect: Dialect) -> tuple[tuple[FieldDescriptor, ...], bool]:
    """The fields that the parts of a name lead through, as far as they do, and whether all of them do."""
    found: tuple[FieldDescriptor, ...] = ()
    current: Descriptor | None = message
    # What is left over past the last level holds a dot, and so names no field.
    for part in name.split(".", MOST_NAME_PARTS - 1):
        field = None if current is None else _field(current, part, dialect)
        if field is None:
            return found, False
        found, current = (*found, field), _entered(field)
    return found, True


def _entered(field: FieldDescriptor) -> Descriptor | None:
    """The message whose fields a name may go on to; what is one value, such as a Timestamp, has no parts."""
    message = None if field.is_repeated else field.message_type
    return None if message is None or message.full_name in SINGLE_VALUE_TYPES else message


def _field(message: Descriptor, name: str, dialect: Dialect) -> FieldDescriptor | None:
    """The field of either name; where that is two, the one that the dialect writes by it."""
    by_name = message.fields_by_name.get(name)
    if by_name is not None and dialect is Dialect.PLAIN:
        return by_name
    return next((field for field in message.fields if field.json_name == name), by_name)


def _parameter(fields: tuple[FieldDescriptor, ...], dialect: Dialect) -> Parameter | None:
    field = fields[-1]
    convert = from_text(field, dialect)
    if convert is None:
        return None
    listed = field.is_repeated and (field.enum_type is not None or json_rule(field).comma_separated)
    return Parameter(
        path=tuple(each.name for each in fields),
        field=field,
        convert=convert,
        splits=listed and dialect is Dialect.PLAIN,
        is_choice=is_choice(fields),
    )


def is_choice(fields: Sequence[FieldDescriptor]) -> bool:
    """Whether a path of fields takes one of a oneof of several."""
    groups = (field.containing_oneof for field in fields)
    return any(group is not None and len(group.fields) > 1 for group in groups)


def list_parameters(message: Descriptor, dialect: Dialect) -> Sequence[Parameter]:
    """The parameters of a message, nested ones too, as deep as they are not too many; its own in any case."""
    for depth in range(LISTED_DEPTH, 0, -1):
        found = list(islice(_listed(message, dialect, depth), MOST_LISTED + 1))
        if len(found) <= MOST_LISTED:
            return found
    return list(_listed(message, dialect, 0))


def _listed(
    message: Descriptor, dialect: Dialect, depth: int, above: tuple[FieldDescriptor, ...] = ()
) -> Iterator[Parameter]:
    """Parameters down to a depth; a type within itself is not followed."""
    for field in message.fields:
        found = _parameter((*above, field), dialect)
        if found is not None:
            yield found
        elif not field.is_repeated and len(above) < depth and _is_followed(message_of(field), above):
            yield from _listed(message_of(field), dialect, depth, (*above, field))


def _is_followed(message: Descriptor, above: Sequence[FieldDescriptor]) -> bool:
    within_itself = message in {parent.containing_type for parent in above}
    return not within_itself and not message.full_name.startswith("google.protobuf.")


def set_parameters(
    message: Message,
    query: Mapping[str, tuple[Parameter | None, Sequence[str]]],
    excluded: Mapping[str, str],
) -> list[Violation]:
    """Sets fields from the values of a query, by name; tells what is wrong with them.

    Args:
        message: holds already what path and body set.
        excluded: fields of the message that the body's field excludes, with the name of that.
    """
    violations: list[Violation] = []
    given: dict[str, str] = {}
    for name, (parameter, values) in query.items():
        refusal = _refusal(parameter, name, values, given) or _exclusion(message, parameter, excluded)
        if parameter is None or refusal:
            violations.append(Violation(name or '""', refusal))
            continue
        try:
            _set(message, parameter, values)
        except InvalidValueError as error:
            violations.append(Violation(name, str(error)))
    return violations


def _refusal(parameter: Parameter | None, name: str, values: Sequence[str], given: dict[str, str]) -> str:
    """Why a parameter can't be taken, or ""."""
    if parameter is None:
        deep = name.count(".") >= MOST_NAME_PARTS
        return f"leads through more than {MOST_NAME_PARTS} fields" if deep else "there is no such parameter"
    if len(values) > 1 and not parameter.field.is_repeated:
        return "may be given only once"
    other = given.setdefault(parameter.name, name)
    return "" if other == name else f"excludes '{other}'"


def _exclusion(message: Message, parameter: Parameter | None, excluded: Mapping[str, str]) -> str:
    """Why what else is set leaves no room for a parameter, or ""."""
    if parameter is None or not parameter.is_choice:
        return ""
    rival = excluded.get(parameter.path[0]) or rival_of(message, parameter.path)
    return f"excludes '{rival}'" if rival else ""


def rival_of(message: Message, path: Sequence[str]) -> str:
    """The field that is set of a oneof which the path takes another of, at whatever level; "" where there is none."""
    for depth, name in enumerate(path):
        group = descriptor_of(message).fields_by_name[name].containing_oneof
        chosen = None if group is None else message.WhichOneof(group.name)
        if chosen is not None and chosen != name:
            return ".".join((*path[:depth], chosen))
        if depth < len(path) - 1:
            message = getattr(message, name)
    return ""


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
