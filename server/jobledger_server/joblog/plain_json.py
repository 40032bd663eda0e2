"""Entries of a log as GetLogs shows them in JSON.

The gateway can make the same of the message that `wire` gives, and does where a socket is between: the very same bytes,
which takes several times as long.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import orjson
from jobledger.v1.job_service_pb2 import GetLogsResponse

from jobledger_server.core.ids import log_entry_id
from jobledger_server.core.times import SECOND
from jobledger_server.joblog.pieces import Lines, Piece, Said
from jobledger_server.joblog.structured import EXACT, LEVELS

LEVEL_TEXTS = dict(zip(LEVELS, (b"trace", b"debug", b"info", b"warn", b"error"), strict=True))
NULL = b"null"


def json_answer(job_number: int, pieces: Iterable[Piece], totals: GetLogsResponse) -> bytes:
    """The answer of GetLogs; `totals` has all of it but the entries."""
    entries: list[bytes] = []
    for piece in pieces:
        if isinstance(piece, Lines):
            entries += _lines(job_number, piece)
        else:
            entries.append(_said(job_number, piece))
    return b'{"logs":[%b],"total":%d,"offset":%d,"limit":%d,"has_more":%b}' % (
        b",".join(entries),
        totals.total,
        totals.offset,
        totals.limit,
        b"true" if totals.has_more else b"false",
    )


def _lines(job_number: int, piece: Lines) -> Iterator[bytes]:
    """Entries that share all but their number and their message."""
    shared = b'%b,"subsystem":%b,"message":' % (_moment(piece.time, piece.level), orjson.dumps(piece.subsystem))
    payload = NULL if piece.payload is None else orjson.dumps(piece.payload)
    for sequence, message in zip(piece.sequences, piece.messages, strict=True):
        yield b'{"id":%d,"job_sequence":%d%b%b,"payload":%b,"correlation_id":null}' % (
            log_entry_id(job_number, sequence),
            sequence,
            shared,
            orjson.dumps(message.decode()),
            payload,
        )


def _said(job_number: int, entry: Said) -> bytes:
    said = entry.said
    return b'{"id":%d,"job_sequence":%d%b,"subsystem":%b,"message":%b,"payload":%b,"correlation_id":%b}' % (
        log_entry_id(job_number, entry.sequence),
        entry.sequence,
        _moment(entry.time, entry.level),
        orjson.dumps(said.subsystem or entry.subsystem),
        orjson.dumps(said.message),
        NULL if said.payload is None else orjson.dumps(_sorted(said.payload)),
        NULL if said.correlation_id is None else orjson.dumps(said.correlation_id),
    )


def _moment(time: int, level: int) -> bytes:
    """Time and level."""
    seconds, micros = divmod(time, SECOND)
    return b',"timestamp_utc":"%b.%06dZ","level":"%b"' % (_to_the_second(seconds), micros, LEVEL_TEXTS[level])


@lru_cache(maxsize=4096)
def _to_the_second(seconds: int) -> bytes:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S").encode()


def _sorted(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _value(values[key]) for key in sorted(values)}


def _value(value: Any) -> Any:
    """A value of a Struct: it knows doubles alone, and a whole number reads better as one."""
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) <= EXACT else value
    if isinstance(value, dict):
        return _sorted(value)
    return [_value(item) for item in value] if isinstance(value, list) else value
