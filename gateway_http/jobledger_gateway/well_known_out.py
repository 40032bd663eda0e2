"""Well-known types of protobuf as JSON, those that are more than their fields."""

import math
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from google.protobuf import timestamp_pb2

from jobledger_gateway.dialect import Dialect
from jobledger_gateway.scalars import EXACT

Encode = Callable[[Any], Any]

NANOS = 1_000_000_000


def double(value: float) -> float | str:
    """A double; by its name where JSON has no number for it."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


@lru_cache(maxsize=4096)
def _to_the_second(seconds: int) -> str:
    text = timestamp_pb2.Timestamp(seconds=seconds).ToJsonString()
    return text.removesuffix("Z")


def _timestamp(value: Any) -> str:
    """RFC 3339 in UTC with six digits. Of times that come by the thousand, as a log's do, most share their second."""
    return f"{_to_the_second(value.seconds)}.{_nanos(value) // 1000:06d}Z"


def _canonical_timestamp(value: Any) -> str:
    return f"{_to_the_second(value.seconds)}{_thirds(_nanos(value))}Z"


def _nanos(value: Any) -> int:
    nanos: int = value.nanos
    if not 0 <= nanos < NANOS:
        raise ValueError(f"a Timestamp has {nanos} nanos, which is no time")
    return nanos


def _duration(value: Any) -> str:
    """Seconds with as many digits as it takes, and `s`."""
    sign, whole, rest = _parts(value)
    fraction = f".{rest:09d}".rstrip("0") if rest else ""
    return f"{sign}{whole}{fraction}s"


def _canonical_duration(value: Any) -> str:
    sign, whole, rest = _parts(value)
    return f"{sign}{whole}{_thirds(rest)}s"


def _parts(value: Any) -> tuple[str, int, int]:
    if abs(value.nanos) >= NANOS or value.seconds * value.nanos < 0:
        raise ValueError(f"a Duration has {value.seconds} seconds and {value.nanos} nanos, which is no span")
    nanos = value.seconds * NANOS + value.nanos
    whole, rest = divmod(abs(nanos), NANOS)
    return "-" if nanos < 0 else "", whole, rest


def _thirds(nanos: int) -> str:
    """A fraction of none, three, six or nine digits."""
    if not nanos:
        return ""
    text = f"{nanos:09d}"
    return "." + (text[:3] if text.endswith("000000") else text[:6] if text.endswith("000") else text)


def _mask(value: Any) -> str:
    return ",".join(value.paths)


def _canonical_mask(value: Any) -> str:
    return ",".join(map(_camel, value.paths))


def _camel(path: str) -> str:
    """A path in camel case; unchanged where that could not be read back."""
    head, *parts = path.split("_")
    if path != path.lower() or any(not part[:1].isalpha() for part in parts):
        return path
    return head + "".join(part[0].upper() + part[1:] for part in parts)


def _struct(value: Any) -> dict[str, Any]:
    fields = value.fields
    return {key: _json_value(fields[key]) for key in sorted(fields)}


def _json_value(value: Any) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "string_value":
        return value.string_value
    if kind == "number_value":
        return _number(value.number_value)
    if kind == "bool_value":
        return value.bool_value
    if kind == "struct_value":
        return _struct(value.struct_value)
    if kind == "list_value":
        return _list(value.list_value)
    return None


def _number(value: float) -> float | int | str:
    """Struct knows doubles only; a whole number reads better, and round-trips, as one."""
    if value.is_integer() and abs(value) <= EXACT:
        return int(value)
    return double(value)


def _list(value: Any) -> list[Any]:
    return [_json_value(item) for item in value.values]


ALIKE: Mapping[str, Encode] = {
    "google.protobuf.Struct": _struct,
    "google.protobuf.Value": _json_value,
    "google.protobuf.ListValue": _list,
}

WELL_KNOWN: Mapping[Dialect, Mapping[str, Encode]] = {
    Dialect.PLAIN: {
        **ALIKE,
        "google.protobuf.Timestamp": _timestamp,
        "google.protobuf.Duration": _duration,
        "google.protobuf.FieldMask": _mask,
    },
    Dialect.PROTOJSON: {
        **ALIKE,
        "google.protobuf.Timestamp": _canonical_timestamp,
        "google.protobuf.Duration": _canonical_duration,
        "google.protobuf.FieldMask": _canonical_mask,
    },
}
