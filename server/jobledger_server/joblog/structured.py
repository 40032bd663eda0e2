"""Structured log lines: JSON objects with a level and a message. Standard library only.

Writer and reader must agree on which line is structured, so both ask here.
"""

import json
import math
from typing import Any, NamedTuple

TRACE, DEBUG, INFO, WARN, ERROR = 1, 2, 3, 4, 5
LEVELS = (TRACE, DEBUG, INFO, WARN, ERROR)

LEVEL_NAMES = {
    "trace": TRACE,
    "debug": DEBUG,
    "info": INFO,
    "warn": WARN,
    "warning": WARN,
    "error": ERROR,
    "critical": ERROR,
    "fatal": ERROR,
}

# What the engine alone says: the subsystem of its entries, and the key that marks the pieces of a line. A job that says
# so itself is quoted: the one stays among what its entry carries, the other goes into an object of its own there.
ENGINE, CONTINUED, QUOTED = "engine", "continued", "quoted"

# Protobuf readers give up on messages nested deeper than 100; each level of JSON takes up to three.
MAX_DEPTH = 24
EXACT = 2**53


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"{digits} is out of range")
    return number


def _exact(digits: str) -> int | str:
    """A whole number, or its digits where a Struct, which holds doubles, would round it."""
    number = int(digits)
    return number if abs(number) <= EXACT else digits


# What `json.loads` has inside, without the steps around it: it runs for every structured line.
scan = json.JSONDecoder(parse_constant=_refuse, parse_float=_finite, parse_int=_exact).scan_once  # type: ignore[attr-defined]
JSON_SPACE = " \t\n\r"


class Structured(NamedTuple):
    """What a structured line says. `subsystem`, `payload` and `correlation_id` are None where it does not say."""

    level: int
    message: str
    subsystem: str | None
    correlation_id: str | None
    payload: dict[str, Any] | None


def parse_structured(line: bytes) -> Structured | None:
    """The structured entry in a line without its newline, or None where the line is plain text."""
    return structured_of(_json_object(line))


def structured_of(fields: dict[str, Any]) -> Structured | None:
    """The structured entry that a line's fields make, if they do. Takes what it needs out of them."""
    level = _level(fields)
    if level is None:
        return None
    if len(fields) == 2:
        return Structured(level, fields["message"], None, None, None)
    del fields["level"]
    message = fields.pop("message")
    subsystem = None if _is_engine(fields.get("subsystem")) else _take_text(fields, "subsystem")
    correlation_id = _take_text(fields, "correlation_id")
    return Structured(level, message, subsystem, correlation_id, _payload(fields))


def structured_level(line: bytes) -> int | None:
    """Level of a structured line, or None where the line is plain text."""
    return _level(_json_object(line))


def _level(fields: dict[str, Any]) -> int | None:
    level = fields.get("level")
    if not isinstance(level, str) or not isinstance(fields.get("message"), str):
        return None
    return LEVEL_NAMES.get(level.lower())


def _take_text(fields: dict[str, Any], key: str) -> str | None:
    value = fields.get(key)
    if not isinstance(value, str) or not value:
        return None
    del fields[key]
    return value


def _is_engine(subsystem: object) -> bool:
    """Whether people would take it for the engine's."""
    return isinstance(subsystem, str) and subsystem.strip().casefold() == ENGINE


def _payload(fields: dict[str, Any]) -> dict[str, Any] | None:
    """The line's own payload, joined by its other keys; the payload's own keys win."""
    if not fields:
        return None
    own = fields.get("payload")
    if isinstance(own, dict):
        del fields["payload"]
        fields |= own
    if CONTINUED in fields:
        fields[QUOTED] = {CONTINUED: fields.pop(CONTINUED)} | ({QUOTED: fields[QUOTED]} if QUOTED in fields else {})
    return fields


def _json_object(line: bytes) -> dict[str, Any]:
    """The JSON object in a line, if there is one that a protobuf Struct can hold; else an empty one."""
    if not line.startswith(b"{"):
        return {}
    try:
        text = line.decode("utf-8")
        value, end = scan(text, 0)
        if text[end:].strip(JSON_SPACE):
            return {}
        if "\\u" in text:
            # An escaped lone surrogate is JSON, but no text.
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (StopIteration, ValueError, OverflowError, RecursionError):
        return {}
    may_be_deep = len(text) > 2 * MAX_DEPTH and text.count("{") + text.count("[") > MAX_DEPTH
    if not isinstance(value, dict) or (may_be_deep and _deeper_than(value, MAX_DEPTH)):
        return {}
    return value


def _deeper_than(value: object, depth: int) -> bool:
    if isinstance(value, dict):
        return depth == 0 or any(_deeper_than(item, depth - 1) for item in value.values())
    if isinstance(value, list):
        return depth == 0 or any(_deeper_than(item, depth - 1) for item in value)
    return False
