"""JSON read strictly: whatever two readers could understand differently is refused."""

import json
import math
from typing import NoReturn

# Beyond it a reader that keeps numbers as doubles sees another number than the one that was written.
SAFE_INTEGER_END = 2**53


def loads(data: bytes) -> object:
    """Reads a JSON text in UTF-8.

    Integers from 2^53 on come back as floats, which is what RFC 8785 takes them for.

    Raises:
        ValueError: not JSON, not UTF-8, repeated keys, NaN, numbers out of range, nested too deeply.
    """
    try:
        return json.loads(
            data.decode(),
            object_pairs_hook=_object,
            parse_constant=_refuse_constant,
            parse_float=_float,
            parse_int=_integer,
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members: dict[str, object] = {}
    for key, value in pairs:
        if key in members:
            raise ValueError(f"repeated key {key!r}")
        members[key] = value
    return members


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"number out of range: {text[:40]}")
    return number


def _integer(text: str) -> int | float:
    number = int(text)
    return number if abs(number) < SAFE_INTEGER_END else _float(text)
