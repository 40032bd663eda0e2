"""Timestamps and durations as clients write them."""

import math
import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from jobledger_gateway.scalars import NUMBER, InvalidValueError

TIMESTAMP = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]{1,9}))?(Z|[+-][0-9]{2}:[0-9]{2})"
)
DURATION = re.compile(r"(-?[0-9]{1,12}(?:\.[0-9]{1,9})?)s")

LONGEST_DURATION = 315_576_000_000
NANOS = 1_000_000_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def timestamp(value: Any) -> Timestamp:
    """An instant in RFC 3339, of the years 1 to 9999.

    Raises:
        InvalidValueError: it is none.
    """
    match = TIMESTAMP.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        hint = "; a '+' in a query must be sent as %2B" if isinstance(value, str) and " " in value else ""
        raise InvalidValueError(f"must be a time such as 2026-01-02T03:04:05Z{hint}")
    whole, fraction, zone = match.groups()
    try:
        moment = datetime.fromisoformat(whole + zone.replace("Z", "+00:00")).astimezone(UTC)
    except (ValueError, OverflowError):
        raise InvalidValueError("is not a time that exists in the years 1 to 9999") from None
    since = moment - EPOCH
    return Timestamp(seconds=since.days * 86400 + since.seconds, nanos=int((fraction or "0").ljust(9, "0")))


def duration(value: Any) -> Duration:
    """A span such as `"1.5s"`.

    Raises:
        InvalidValueError: it is none.
    """
    match = DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise InvalidValueError('must be a duration such as "1.5s"')
    return _span(Decimal(match[1]))


def seconds_or_duration(value: Any) -> Duration:
    """A span such as `"1.5s"`, or a number of seconds.

    Raises:
        InvalidValueError: it is neither.
    """
    if isinstance(value, str) and DURATION.fullmatch(value):
        return duration(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InvalidValueError('must be a duration such as "1.5s", or a number of seconds')
    return _span(Decimal(repr(value)))


def seconds_or_duration_text(text: str) -> Duration:
    """The same of text in a path or query; a number has there what forms it has in JSON.

    Raises:
        InvalidValueError: it is neither.
    """
    if DURATION.fullmatch(f"{text}s"):
        return duration(f"{text}s")
    return seconds_or_duration(float(text) if NUMBER.fullmatch(text) else text)


def _span(seconds: Decimal) -> Duration:
    if abs(seconds) > LONGEST_DURATION:
        raise InvalidValueError(f"must be from -{LONGEST_DURATION}s to {LONGEST_DURATION}s")
    nanos = int((seconds * NANOS).to_integral_value())
    sign = -1 if nanos < 0 else 1
    whole, rest = divmod(abs(nanos), NANOS)
    return Duration(seconds=sign * whole, nanos=sign * rest)
