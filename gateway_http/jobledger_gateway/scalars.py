"""Single values as clients write them, in JSON or as text in a path or query."""

import base64
import binascii
import math
import re
import struct
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor

from jobledger_gateway.dialect import Dialect
from jobledger_gateway.enums import choices, numbers
from jobledger_gateway.fields import enum_of

Convert = Callable[[Any], Any]

INTEGER = re.compile(r"-?(0|[1-9][0-9]*)")
NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
# The largest whole number up to which a double holds every one.
EXACT = 1 << 53
NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}

NULL_VALUE = "google.protobuf.NullValue"

RANGES: Mapping[int, tuple[int, int]] = {
    **dict.fromkeys(
        (FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_SINT32, FieldDescriptor.TYPE_SFIXED32),
        (-(1 << 31), (1 << 31) - 1),
    ),
    **dict.fromkeys(
        (FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_SINT64, FieldDescriptor.TYPE_SFIXED64),
        (-(1 << 63), (1 << 63) - 1),
    ),
    **dict.fromkeys((FieldDescriptor.TYPE_UINT32, FieldDescriptor.TYPE_FIXED32), (0, (1 << 32) - 1)),
    **dict.fromkeys((FieldDescriptor.TYPE_UINT64, FieldDescriptor.TYPE_FIXED64), (0, (1 << 64) - 1)),
}


class InvalidValueError(ValueError):
    """A value that its field does not take. The text says what it does."""


class WholeFloat(float):
    """A number of JSON with a point or an exponent, past where doubles are exact: it knows what was written."""

    __slots__ = ("text",)
    text: str

    @property
    def whole(self) -> int | None:
        """The whole number that it is; None where it is none."""
        exact = Decimal(self.text)
        return int(exact) if exact == exact.to_integral_value() else None


def scalar_from_json(field: FieldDescriptor, dialect: Dialect) -> Convert:
    """What makes a single value of a field, which is of no message type, of a JSON value.

    The function raises InvalidValueError.
    """
    if field.type == FieldDescriptor.TYPE_ENUM:
        return enum_reader(enum_of(field), dialect)
    if field.type in RANGES:
        return integer_reader(*RANGES[field.type])
    return SCALARS[field.type]


def scalar_from_text(field: FieldDescriptor, dialect: Dialect) -> Convert:
    """What makes a single value of a field, which is of no message type, of text in a path or query.

    The function raises InvalidValueError.
    """
    if field.type == FieldDescriptor.TYPE_BOOL:
        return _bool_text
    read = scalar_from_json(field, dialect)
    return _enum_text(enum_of(field), dialect, read) if field.type == FieldDescriptor.TYPE_ENUM else read


def _enum_text(enum: EnumDescriptor, dialect: Dialect, read: Convert) -> Convert:
    """Reads names before numbers: the short name of `HTTP_VERSION_2`, whatever its number, is `2`."""
    by_name = numbers(enum, dialect)

    def read_text(text: str) -> Any:
        is_number = text not in by_name and len(text) <= 20 and INTEGER.fullmatch(text)
        return read(int(text) if is_number else text)

    return read_text


def enum_reader(enum: EnumDescriptor, dialect: Dialect) -> Convert:
    """Reads a name of the .proto, in the plain dialect a short one too, or the number of a value that exists."""
    by_name, known = numbers(enum, dialect), {value.number for value in enum.values}
    nothing = None if enum.full_name != NULL_VALUE else 0

    def read(value: Any) -> int:
        if isinstance(value, str) and value in by_name:
            return by_name[value]
        if isinstance(value, int) and not isinstance(value, bool) and value in known:
            return value
        if value is None and nothing is not None:
            return nothing
        raise InvalidValueError(f"must be one of {choices(enum, dialect)}")

    return read


def integer_reader(low: int, high: int) -> Convert:
    """Reads a whole number, or its text, from `low` to `high`."""

    def read(value: Any) -> int:
        number = _integer(value)
        if number is None:
            raise InvalidValueError("must be a whole number")
        if not low <= number <= high:
            raise InvalidValueError(f"must be from {low} to {high}")
        return number

    return read


def _integer(value: Any) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, WholeFloat):
        return value.whole
    if isinstance(value, float) and value.is_integer() and abs(value) < EXACT:
        return int(value)
    if isinstance(value, str) and len(value) <= 20 and INTEGER.fullmatch(value):
        return int(value)
    return None


def _string(value: Any) -> str:
    if isinstance(value, str):
        return value
    raise InvalidValueError("must be a string")


def _bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise InvalidValueError("must be true or false")


def _bool_text(text: str) -> bool:
    if text in {"true", "false"}:
        return text == "true"
    raise InvalidValueError("must be true or false")


def _double(value: Any) -> float:
    if isinstance(value, str):
        if value in NOT_FINITE:
            return NOT_FINITE[value]
        if not NUMBER.fullmatch(value):
            raise InvalidValueError("must be a number")
    elif isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidValueError("must be a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if math.isinf(number):
        raise InvalidValueError("is too large")
    return number


def _float(value: Any) -> float:
    number = _double(value)
    try:
        # Only the standard form ("<") looks whether the number fits.
        struct.pack("<f", number)
    except OverflowError:
        raise InvalidValueError("is too large") from None
    return number


def _bytes(value: Any) -> bytes:
    """Base64, either alphabet, with or without padding."""
    text = _string(value).rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidValueError("must be base64") from None


SCALARS: Mapping[int, Convert] = {
    FieldDescriptor.TYPE_STRING: _string,
    FieldDescriptor.TYPE_BOOL: _bool,
    FieldDescriptor.TYPE_DOUBLE: _double,
    FieldDescriptor.TYPE_FLOAT: _float,
    FieldDescriptor.TYPE_BYTES: _bytes,
}
