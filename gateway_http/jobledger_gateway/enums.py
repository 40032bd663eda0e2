"""Names of enum values: short and lower case in the plain dialect, those of the .proto in canonical ProtoJSON."""

import re
from collections.abc import Mapping, Sequence
from functools import cache

from google.protobuf.descriptor import EnumDescriptor

from jobledger_gateway.dialect import Dialect

# Names that a message lists at most.
MOST_NAMES = 32

WORD_BOUNDARY = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


@cache
def short_names(enum: EnumDescriptor) -> Mapping[int, str]:
    """Short name of each number: `JOB_STATE_RUNNING` of `JobState` is `running`.

    A name that would be no name, or that of another number too, is not shortened.
    """
    known = _numbers_by_short_name(enum)
    return {
        number: short if (short := _short(enum, name)) in known else name for number, name in _full_names(enum).items()
    }


@cache
def _numbers_by_short_name(enum: EnumDescriptor) -> Mapping[str, int]:
    """Number of each short name, those of aliases too, that means no other number."""
    meant: dict[str, set[int]] = {}
    for value in enum.values:
        meant.setdefault(_short(enum, value.name), set()).add(value.number)
        meant.setdefault(value.name, set()).add(value.number)
    shorts = (_short(enum, value.name) for value in enum.values)
    return {short: next(iter(meant[short])) for short in shorts if short and len(meant[short]) == 1}


def _short(enum: EnumDescriptor, name: str) -> str:
    return name.removeprefix(WORD_BOUNDARY.sub("_", enum.name).upper() + "_").lower()


@cache
def _full_names(enum: EnumDescriptor) -> Mapping[int, str]:
    """Name of each number; where it has aliases, the first."""
    found: dict[int, str] = {}
    for value in enum.values:
        found.setdefault(value.number, value.name)
    return found


def names(enum: EnumDescriptor, dialect: Dialect) -> Mapping[int, str]:
    """Name that each number is written by."""
    return short_names(enum) if dialect is Dialect.PLAIN else _full_names(enum)


def numbers(enum: EnumDescriptor, dialect: Dialect) -> Mapping[str, int]:
    """Number of each name that is understood: those of the .proto, and in the plain dialect the short ones."""
    short = _numbers_by_short_name(enum) if dialect is Dialect.PLAIN else {}
    return {**short, **{value.name: value.number for value in enum.values}}


def choices(enum: EnumDescriptor, dialect: Dialect) -> str:
    """The names for a message to people, without that of the unset value."""
    known = names(enum, dialect)
    return some_of([known[number] for number in known if number or len(known) == 1])


def some_of(told: Sequence[str]) -> str:
    """Names for a message to people; of many the first, and how many there are besides."""
    more = f", and {len(told) - MOST_NAMES} more" if len(told) > MOST_NAMES else ""
    return ", ".join(told[:MOST_NAMES]) + more
