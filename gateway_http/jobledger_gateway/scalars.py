"""Single values as clients write them, in JSON or as text in a path or query."""

import base64
import binascii
import math
import re
import struct
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from jobledger_gateway.enums import choices, numbers
from jobledger_gateway.fields import enum_of, message_of

Convert = Callable[[Any], Any]

INTEGER = re.compile(r"-?(0|[1-9][0-9]*)")
NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
TIMESTAMP = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]{1,9}))?(Z|[+-][0-9]{2}:[0-9]{2})"
)
DURATION = re.compile(r"(-?[0-9]{1,12}(?:\.[0-9]{1,9})?)s")

EXACT = 1 << 53
LONGEST_DURATION = 315_576_000_000
NANOS = 1_000_000_000
NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}

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


def from_json(field: FieldDescriptor) -> Convert | None:
    """What makes a single value of the field of a JSON value; None for messages that are objects in JSON.

    The function raises InvalidValueError.
    """
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        return MESSAGES.get(message_of(field).full_name)
    if field.type == FieldDescriptor.TYPE_ENUM:
        return enum_reader(enum_of(field))
    if field.type in RANGES:
        return integer_reader(*RANGES[field.type])
    return SCALARS[field.type]


def from_text(field: FieldDescriptor) -> Convert | None:
    """What makes a single value of the field of text in a path or query; None where text can't say it.

    The function raises InvalidValueError.
    """
    if field.type == FieldDescriptor.TYPE_BOOL:
        return _bool_text
    if field.type == FieldDescriptor.TYPE_ENUM:
        read = enum_reader(enum_of(field))
        return lambda text: read(int(text) if INTEGER.fullmatch(text) else text)
    if field.message_type is not None and field.message_type.full_name == Duration.DESCRIPTOR.full_name:
        return _duration_text
    return from_json(field)


def enum_reader(enum: EnumDescriptor) -> Convert:
    """Reads a short name, a name of the .proto, or the number of a value that exists."""
    by_name, known = numbers(enum), {value.number for value in enum.values}

    def read(value: Any) -> int:
        if isinstance(value, str) and value in by_name:
            return by_name[value]
        if isinstance(value, int) and not isinstance(value, bool) and value in known:
            return value
        raise InvalidValueError(f"must be one of {choices(enum)}")

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


def _timestamp(value: Any) -> Timestamp:
    match = TIMESTAMP.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        hint = "; a '+' in a query must be sent as %2B" if isinstance(value, str) and " " in value else ""
        raise InvalidValueError(f"must be a time such as 2026-01-02T03:04:05Z{hint}")
    whole, fraction, zone = match.groups()
    try:
        moment = datetime.fromisoformat(whole + zone.replace("Z", "+00:00")).astimezone(UTC)
    except (ValueError, OverflowError):
        raise InvalidValueError("is not a time that exists in the years 1 to 9999") from None
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return Timestamp(seconds=since.days * 86400 + since.seconds, nanos=int((fraction or "0").ljust(9, "0")))


def _duration(value: Any) -> Duration:
    if isinstance(value, str):
        match = DURATION.fullmatch(value)
        if match is None:
            raise InvalidValueError('must be a duration such as "1.5s", or a number of seconds')
        return _span(Decimal(match[1]))
    return _span(Decimal(repr(_seconds(value))))


def _seconds(value: Any) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InvalidValueError('must be a duration such as "1.5s", or a number of seconds')
    return value


def _duration_text(text: str) -> Duration:
    return _duration(f"{text}s" if DURATION.fullmatch(f"{text}s") else text)


def _span(seconds: Decimal) -> Duration:
    if abs(seconds) > LONGEST_DURATION:
        raise InvalidValueError(f"must be from -{LONGEST_DURATION}s to {LONGEST_DURATION}s")
    nanos = int((seconds * NANOS).to_integral_value())
    sign = -1 if nanos < 0 else 1
    whole, rest = divmod(abs(nanos), NANOS)
    return Duration(seconds=sign * whole, nanos=sign * rest)


SCALARS: Mapping[int, Convert] = {
    FieldDescriptor.TYPE_STRING: _string,
    FieldDescriptor.TYPE_BOOL: _bool,
    FieldDescriptor.TYPE_DOUBLE: _double,
    FieldDescriptor.TYPE_FLOAT: _float,
    FieldDescriptor.TYPE_BYTES: _bytes,
}

MESSAGES: Mapping[str, Convert] = {
    "google.protobuf.Timestamp": _timestamp,
    "google.protobuf.Duration": _duration,
}
