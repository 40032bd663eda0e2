"""Entries of a log as GetLogs and TailLogs show them in JSON.

The gateway can make the same of the message that `wire` gives, and does where a socket is between: the very same bytes,
which takes several times as long.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from itertools import chain, repeat
from typing import Any

import orjson
from jobledger.v1.job_service_pb2 import GetLogsResponse

from jobledger_server.core.ids import log_entry_ids
from jobledger_server.core.times import SECOND, micros, rfc3339
from jobledger_server.joblog.pieces import Lines, Piece, Said
from jobledger_server.joblog.structured import EXACT, LEVELS

LEVEL_TEXTS = dict(zip(LEVELS, (b"trace", b"debug", b"info", b"warn", b"error"), strict=True))
NULL = b"null"

# Of each entry the same part, as JSON.
Columns = Sequence[Iterable[bytes]]


class PlainItems(list[bytes]):
    """Items of a stream that are ready together, each as its JSON.

    Attributes:
        numbers: theirs, as JSON too.
    """

    def __init__(self, items: Iterable[bytes], numbers: Sequence[bytes]) -> None:
        super().__init__(items)
        self.numbers = numbers


def json_answer(job_number: int, pieces: Iterable[Piece], totals: GetLogsResponse) -> bytes:
    """The answer of GetLogs; `totals` has all of it but the entries."""
    rest = orjson.dumps(
        {
            "total": totals.total,
            "offset": totals.offset,
            "limit": totals.limit,
            "has_more": totals.has_more,
            "log_removed_at": rfc3339(micros(totals.log_removed_at)) if totals.HasField("log_removed_at") else None,
        }
    )
    entries = chain.from_iterable(_entries(job_number, piece, _numbers(piece.sequences)) for piece in pieces)
    return b'{"logs":[%b],%b' % (b",".join(entries), rest[1:])


def json_items(job_number: int, pieces: Iterable[Piece]) -> PlainItems:
    """The items of TailLogs."""
    numbered = [(piece, _numbers(piece.sequences)) for piece in pieces]
    entries = chain.from_iterable(_entries(job_number, piece, numbers) for piece, numbers in numbered)
    return PlainItems(entries, [*chain.from_iterable(numbers for _, numbers in numbered)])


def _entries(job_number: int, piece: Piece, numbers: Iterable[bytes]) -> Iterator[bytes]:
    """Each entry. A column is coded at once, or has the same bytes for all: a call for each entry takes longer."""
    columns = _lines(piece) if isinstance(piece, Lines) else _said(piece)
    ids = _numbers(log_entry_ids(job_number, piece.sequences))
    return map(b"".join, zip(repeat(b'{"id":'), ids, repeat(b',"job_sequence":'), numbers, *columns, strict=False))


def _lines(piece: Lines) -> Columns:
    """What is shown of entries that share all but their number and their message."""
    (moment,) = _moments((piece.time,))
    shared = (moment, LEVEL_TEXTS[piece.level], _subsystem(piece.subsystem))
    return (
        repeat(b',"timestamp_utc":"%b","level":"%b","subsystem":%b,"message":"' % shared),
        _texts(piece.messages),
        repeat(b'","payload":%b,"correlation_id":null}' % orjson.dumps(piece.payload)),
    )


def _said(piece: Said) -> Columns:
    return (
        repeat(b',"timestamp_utc":"'),
        _moments(piece.times),
        repeat(b'","level":"'),
        [LEVEL_TEXTS[level] for level in piece.levels],
        repeat(b'","subsystem":'),
        map(_subsystem, piece.subsystems),
        repeat(b',"message":"'),
        _texts([message.encode() for message in piece.messages]),
        repeat(b'","payload":'),
        [NULL if payload is None else orjson.dumps(_sorted(payload)) for payload in piece.payloads],
        repeat(b',"correlation_id":'),
        [NULL if correlation_id is None else orjson.dumps(correlation_id) for correlation_id in piece.correlation_ids],
        repeat(b"}"),
    )


def _numbers(values: Sequence[int]) -> list[bytes]:
    return orjson.dumps(values)[1:-1].split(b",")


def _texts(texts: Sequence[bytes]) -> list[bytes]:
    """Texts as JSON strings without their quotes: all at once, where what stands for a newline is nowhere in them."""
    together = b"\n".join(texts)
    if b"\\" in together or together.count(b"\n") >= len(texts):
        return [orjson.dumps(text.decode())[1:-1] for text in texts]
    return orjson.dumps(together.decode())[1:-1].split(b"\\n")


@lru_cache(maxsize=256)
def _subsystem(text: str) -> bytes:
    return orjson.dumps(text)


def _moments(times: Iterable[int]) -> Iterator[bytes]:
    """Times as JSON strings without their quotes. Those that follow each other are mostly of one second."""
    second, text = -SECOND, b""
    for time in times:
        micros = time - second
        if not 0 <= micros < SECOND:
            micros = time % SECOND
            second = time - micros
            text = _to_the_second(second // SECOND)
        yield b"%b.%06dZ" % (text, micros)


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
