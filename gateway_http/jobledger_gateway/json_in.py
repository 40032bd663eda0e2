"""JSON as clients send it, read strictly."""

import json
import re
from collections.abc import Sequence
from typing import Any, NoReturn

import orjson

from jobledger_gateway.errors import GatewayError, problem
from jobledger_gateway.scalars import EXACT, WholeFloat

MAX_DEPTH = 64
# Of floats from EXACT on it takes the text to know which whole number was meant, up to what an integer holds.
WIDEST = 1 << 64

# A string (possessive, so that no input makes it slow) or a bracket.
TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)


def parse_object(body: bytes) -> dict[str, Any]:
    """The JSON object that a body is; an empty body is an empty object.

    Raises:
        GatewayError: `BAD_JSON`: not strict JSON, a duplicate key, nested too deeply, or no object.
    """
    value = parse_json(body) if body else {}
    if not isinstance(value, dict):
        _refuse("The body is not a JSON object")
    return value


def parse_json(body: bytes) -> Any:
    """The JSON value that bytes are.

    Raises:
        GatewayError: `BAD_JSON`: not strict JSON, a duplicate key, or nested too deeply.
    """
    _check_depth(body)
    try:
        # orjson refuses what the standard library lets pass: NaN, lone surrogates, a BOM, bad UTF-8.
        orjson.loads(body)
        # The standard library tells of duplicate keys, and keeps large integers exact.
        return json.loads(body, object_pairs_hook=_unique, parse_float=_number)
    except json.JSONDecodeError as error:
        _refuse(f"The body is not strict JSON: line {error.lineno}, column {error.colno}")
    except ValueError:
        _refuse("The body holds a number that is too long")


def _check_depth(body: bytes) -> None:
    if body.count(b"{") + body.count(b"[") <= MAX_DEPTH:
        return
    depth = 0
    for token in TOKEN.finditer(body):
        depth += {b"{": 1, b"[": 1, b"}": -1, b"]": -1}.get(token[0], 0)
        if depth > MAX_DEPTH:
            _refuse(f"The body is nested more than {MAX_DEPTH} deep")


def depth_of(value: Any) -> int:
    """How many objects and lists a JSON value is deep."""
    if not isinstance(value, dict | list):
        return 0
    return 1 + max(map(depth_of, value.values() if isinstance(value, dict) else value), default=0)


def _number(text: str) -> float:
    number = float(text)
    if not EXACT <= abs(number) <= WIDEST:
        return number
    made = WholeFloat(number)
    made.text = text
    return made


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        _refuse("The body holds an object with a duplicate key")
    return found


def _refuse(message: str) -> NoReturn:
    raise GatewayError(problem("BAD_JSON", message)) from None
