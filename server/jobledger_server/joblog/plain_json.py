"""Entries of a log as GetLogs and TailLogs show them in JSON.

The gateway can make the same of the message that `wire` gives, and does where a socket is between: the very same bytes,
which takes several times as long.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple

import orjson
from jobledger.v1.job_service_pb2 import GetLogsResponse

from jobledger_server.core.ids import log_entry_id
from jobledger_server.core.times import SECOND, micros, rfc3339
from jobledger_server.joblog.pieces import Lines, Piece, Said
from jobledger_server.joblog.structured import EXACT, LEVELS

LEVEL_TEXTS = dict(zip(LEVELS, ("trace", "debug", "info", "warn", "error"), strict=True))


class PlainItem(NamedTuple):
    """An item of a stream: its number, and its JSON."""

    number: int
    plain_json: bytes


def json_answer(job_number: int, pieces: Iterable[Piece], totals: GetLogsResponse) -> bytes:
    """The answer of GetLogs; `totals` has all of it but the entries."""
    return orjson.dumps(
        {
            "logs": _entries(job_number, pieces),
            "total": totals.total,
            "offset": totals.offset,
            "limit": totals.limit,
            "has_more": totals.has_more,
            "log_removed_at": rfc3339(micros(totals.log_removed_at)) if totals.HasField("log_removed_at") else None,
        }
    )


def json_items(job_number: int, pieces: Iterable[Piece]) -> list[PlainItem]:
    """The items of TailLogs."""
    return [PlainItem(entry["job_sequence"], orjson.dumps(entry)) for entry in _entries(job_number, pieces)]


def _entries(job_number: int, pieces: Iterable[Piece]) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = []
    for piece in pieces:
        entries += _lines(job_number, piece) if isinstance(piece, Lines) else _said(job_number, piece)
    return entries


def _lines(job_number: int, piece: Lines) -> list[dict[str, Any]]:
    """Entries that share all but their number and their message."""
    moment, level, subsystem, payload = _moment(piece.time), LEVEL_TEXTS[piece.level], piece.subsystem, piece.payload
    return [
        {
            "id": log_entry_id(job_number, sequence),
            "job_sequence": sequence,
            "timestamp_utc": moment,
            "level": level,
            "subsystem": subsystem,
            "message": message.decode(),
            "payload": payload,
            "correlation_id": None,
        }
        for sequence, message in zip(piece.sequences, piece.messages, strict=True)
    ]


def _said(job_number: int, piece: Said) -> list[dict[str, Any]]:
    return [
        {
            "id": log_entry_id(job_number, sequence),
            "job_sequence": sequence,
            "timestamp_utc": _moment(time),
            "level": LEVEL_TEXTS[level],
            "subsystem": subsystem,
            "message": message,
            "payload": None if payload is None else _sorted(payload),
            "correlation_id": correlation_id,
        }
        for sequence, time, level, subsystem, message, correlation_id, payload in zip(*piece, strict=True)
    ]


def _moment(time: int) -> str:
    seconds, micros = divmod(time, SECOND)
    return f"{_to_the_second(seconds)}.{micros:06d}Z"


@lru_cache(maxsize=4096)
def _to_the_second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _sorted(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _value(values[key]) for key in sorted(values)}


def _value(value: Any) -> Any:
    """A value of a Struct: it knows doubles alone, and a whole number reads better as one."""
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) <= EXACT else value
    if isinstance(value, dict):
        return _sorted(value)
    return [_value(item) for item in value] if isinstance(value, list) else value
