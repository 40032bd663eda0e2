"""Instants and spans: integers of microseconds inside, protobuf's messages at the edge."""

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

SECOND = 1_000_000

# What a Timestamp may hold, seconds: the years 1 to 9999. A caller may send any 64 bits.
EARLIEST, LATEST = -62_135_596_800, 253_402_300_799


def timestamp(micros: int) -> Timestamp:
    """The instant `micros` microseconds after the epoch (UTC)."""
    return Timestamp(seconds=micros // SECOND, nanos=micros % SECOND * 1000)


def micros(instant: Timestamp) -> int:
    """Microseconds since the epoch (UTC), rounded down; of the years 1 to 9999 the nearest where it is beyond."""
    return max(EARLIEST, min(instant.seconds, LATEST)) * SECOND + instant.nanos // 1000


def duration(seconds: float) -> Duration:
    """A span of `seconds`, to the microsecond."""
    whole = round(seconds * SECOND)
    return Duration(seconds=whole // SECOND, nanos=whole % SECOND * 1000)


def seconds(span: Duration) -> float:
    """A span in seconds."""
    return span.seconds + span.nanos / 1e9


def rfc3339(micros: int) -> str:
    """`2026-01-02T03:04:05.678901Z`"""
    instant = timestamp(micros)
    text: str = instant.ToDatetime().strftime("%Y-%m-%dT%H:%M:%S.%f")
    return f"{text}Z"
