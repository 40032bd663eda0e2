"""Names of enum values in the plain dialect: short and lower case."""

import re
from collections.abc import Mapping
from functools import cache

from google.protobuf.descriptor import EnumDescriptor

HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


@cache
def short_names(enum: EnumDescriptor) -> Mapping[int, str]:
    """Short name of each number: `JOB_STATE_RUNNING` of `JobState` is `running`."""
    prefix = HUMP.sub("_", enum.name).upper() + "_"
    names: dict[int, str] = {}
    for value in enum.values:
        # Where a number has aliases, its first name is the one that is written.
        names.setdefault(value.number, value.name.removeprefix(prefix).lower())
    return names


@cache
def numbers(enum: EnumDescriptor) -> Mapping[str, int]:
    """Number of each name that is understood: the short ones and those of the .proto."""
    return {
        **{name: number for number, name in short_names(enum).items()},
        **{value.name: value.number for value in enum.values},
    }


def choices(enum: EnumDescriptor) -> str:
    """The short names for a message to people, without that of the unset value."""
    named = [name for number, name in short_names(enum).items() if number or len(short_names(enum)) == 1]
    return ", ".join(named)
