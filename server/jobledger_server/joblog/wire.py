"""Entries of a log as GetLogsResponse has them on the wire.

Put together by hand: a message for each entry, with its fields set one by one, takes several times as long.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from google.protobuf.struct_pb2 import NULL_VALUE, Struct, Value
from jobledger.v1.job_service_pb2 import GetLogsResponse, TailLogsResponse

from jobledger_server.core.ids import log_entry_id
from jobledger_server.core.times import SECOND
from jobledger_server.joblog.pieces import Lines, Piece, Said
from jobledger_server.joblog.structured import LEVELS

# Tags: a field's number, and how its value is coded.
LOGS, ID, SEQUENCE, TIME, LEVEL = (bytes((tag,)) for tag in b"\x0a\x08\x10\x1a\x20")
SUBSYSTEM, MESSAGE, PAYLOAD, CORRELATION = (bytes((tag,)) for tag in b"\x2a\x32\x3a\x42")
BATCH = bytes((TailLogsResponse.BATCH_FIELD_NUMBER << 3 | 2,))
SECONDS, NANOS = b"\x08", b"\x10"

MORE = 0x80
LAST = [bytes((low,)) for low in range(MORE)]
NOT_LAST = [bytes((low | MORE,)) for low in range(MORE)]
PAIRS = [low + high for high in NOT_LAST for low in NOT_LAST]
LEVELED = [LEVEL + LAST[level] for level in range(max(LEVELS) + 1)]


def wire_entries(job_number: int, pieces: Iterable[Piece]) -> list[bytes]:
    """Each entry with its tag and length: a GetLogsResponse when they are joined, a TailLogsResponse each."""
    entries: list[bytes] = []
    for piece in pieces:
        entries += _lines(job_number, piece) if isinstance(piece, Lines) else _said(job_number, piece)
    return entries


def wire_answer(job_number: int, pieces: Iterable[Piece], totals: GetLogsResponse) -> bytes:
    """A GetLogsResponse; `totals` has all of it but the entries."""
    return b"".join((*wire_entries(job_number, pieces), totals.SerializeToString()))


def wire_batch(job_number: int, pieces: Iterable[Piece]) -> list[bytes]:
    """One TailLogsResponse with all of the entries."""
    batch = b"".join(wire_entries(job_number, pieces))
    return [b"".join((BATCH, varint(len(batch)), batch))]


def _lines(job_number: int, piece: Lines) -> Iterator[bytes]:
    """Entries that share all but their number and their message.

    Of two numbers that follow each other, mostly the lowest seven bits differ, which come first.
    """
    shared = b"".join((*_moments((piece.time,)), LEVELED[piece.level], _subsystem(piece.subsystem)))
    payload = b"" if piece.payload is None else _payload(piece.payload)
    group, sizes = -1, dict[int, tuple[bytes, bytes]]()
    lowest, middle, common = LAST, b"", b""
    for sequence, message in zip(piece.sequences, piece.messages, strict=True):
        if sequence >> 7 != group:
            group = sequence >> 7
            lowest = NOT_LAST if group else LAST
            middle = varint(log_entry_id(job_number, group << 7) >> 7) + SEQUENCE
            common = (varint(group) if group else b"") + shared
            sizes.clear()
        size = len(message)
        if size not in sizes:
            sizes[size] = _sizes(size, 3 + len(middle) + len(common) + len(payload))
        before, between = sizes[size]
        low = sequence & 127
        yield b"".join((before, NOT_LAST[low], middle, lowest[low], common, between, message, payload))


def _sizes(message: int, rest: int) -> tuple[bytes, bytes]:
    """What stands before an entry's id, and before its message, by the sizes of the message and of the rest."""
    between = MESSAGE + varint(message) if message else b""
    return LOGS + varint(rest + len(between) + message) + ID, between


def _said(job_number: int, piece: Said) -> Iterator[bytes]:
    """Structured entries. Of the numbers of many, the lowest fourteen bits alone differ."""
    group, middle, highest = -1, b"", b""
    sequences, times, *rest = piece
    columns = zip(sequences, _moments(times), *rest, strict=True)
    for sequence, moment, level, subsystem, message, correlation_id, payload in columns:
        if sequence >> 14 != group:
            group = sequence >> 14
            middle = varint(log_entry_id(job_number, group << 14) >> 14) + SEQUENCE
            highest = varint(group) if group else b""
        low, text = PAIRS[sequence & 0x3FFF], message.encode()
        body = b"".join(
            (
                ID,
                # The lowest bits of id and number are the same.
                low,
                middle,
                low if group else varint(sequence),
                highest,
                moment,
                LEVELED[level],
                _subsystem(subsystem),
                _message(len(text)),
                text,
                b"" if payload is None else _payload(payload),
                b"" if correlation_id is None else _text(CORRELATION, correlation_id.encode()),
            )
        )
        yield _start(len(body)) + body


@lru_cache(maxsize=1024)
def _start(size: int) -> bytes:
    """What stands before an entry of so many bytes."""
    return LOGS + varint(size)


@lru_cache(maxsize=1024)
def _message(size: int) -> bytes:
    """What stands before a message of so many bytes."""
    return MESSAGE + varint(size) if size else b""


def _moments(times: Iterable[int]) -> Iterator[bytes]:
    """Times. Those that follow each other are mostly of one second."""
    second = -SECOND
    for time in times:
        micros = time - second
        if not 0 <= micros < SECOND:
            seconds, micros = divmod(time, SECOND)
            second = time - micros
            coded = SECONDS + varint(seconds) if seconds else b""
            common = TIME + LAST[len(coded) + 6] + coded + NANOS
        nanos = micros * 1000
        if nanos >= 1 << 28:
            # As most are.
            yield common + PAIRS[nanos & 0x3FFF] + PAIRS[nanos >> 14 & 0x3FFF] + LAST[nanos >> 28]
        else:
            rest = coded + NANOS + varint(nanos) if nanos else coded
            yield TIME + LAST[len(rest)] + rest


@lru_cache(maxsize=256)
def _subsystem(text: str) -> bytes:
    return _text(SUBSYSTEM, text.encode())


def _text(tag: bytes, text: bytes) -> bytes:
    return tag + varint(len(text)) + text if text else b""


def _payload(values: Mapping[str, Any]) -> bytes:
    struct = Struct()
    _fill(struct, values)
    payload = struct.SerializeToString(deterministic=True)
    return PAYLOAD + varint(len(payload)) + payload


def varint(number: int) -> bytes:
    """A number from 0 as protobuf codes it: seven bits a byte, the lowest first."""
    if number < 1 << 7:
        return LAST[number]
    if number < 1 << 14:
        return NOT_LAST[number & 127] + LAST[number >> 7]
    return PAIRS[number & 0x3FFF] + varint(number >> 14)


def _fill(struct: Struct, values: Mapping[str, Any]) -> None:
    """Much quicker than `Struct.update`."""
    struct.SetInParent()
    for key, value in values.items():
        _set(struct.fields[key], value)


def _set(target: Value, value: Any) -> None:
    if isinstance(value, str):
        target.string_value = value
    elif isinstance(value, bool):
        target.bool_value = value
    elif isinstance(value, int | float):
        target.number_value = value
    elif isinstance(value, dict):
        _fill(target.struct_value, value)
    elif isinstance(value, list):
        target.list_value.SetInParent()
        for item in value:
            _set(target.list_value.values.add(), item)
    else:
        target.null_value = NULL_VALUE
