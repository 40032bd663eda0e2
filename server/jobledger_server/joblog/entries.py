"""Entries of a log as clients see them, out of the bytes of runs."""

from functools import lru_cache
from typing import NamedTuple

from google.protobuf.timestamp_pb2 import Timestamp
from jobledger.v1.job_pb2 import LogEntry, LogLevel

from jobledger_server.core.ids import log_entry_id
from jobledger_server.core.times import timestamp
from jobledger_server.joblog.segments import Kind, Run, Stream
from jobledger_server.joblog.structured import Structured, parse_structured

GAP_SUBSYSTEM = "engine"
PIECES = {Kind.CONTINUED, Kind.LAST_PIECE}
SUBSYSTEMS: dict[int, str] = {stream: stream.name.lower() for stream in Stream}
LEVEL_VALUES: dict[int, LogLevel.ValueType] = {int(value): value for value in LogLevel.values()}


class Line(NamedTuple):
    """One entry, not decoded yet. `dropped` is 0 but for the gap."""

    sequence: int
    time: int
    level: int
    stream: int
    kind: int
    data: bytes
    dropped: int = 0


def lines_of(run: Run, data: bytes, first: int, last: int) -> list[Line]:
    """Entries `first` to `last` (excluded), from 0, of a stored run whose bytes are `data`."""
    pieces = data.split(b"\n")[first:last] if run.kind in {Kind.PLAIN, Kind.STRUCTURED} else [data.removesuffix(b"\n")]
    return [
        Line(run.first_sequence + place, run.time, run.level, run.stream, run.kind, piece)
        for place, piece in enumerate(pieces, start=first)
    ]


def gap_line(run: Run, dropped: int) -> Line:
    """The entry that stands for `dropped` ones."""
    return Line(run.first_sequence, run.time, run.level, run.stream, run.kind, b"", dropped)


def plain_subsystem(run: Run) -> str | None:
    """Subsystem of all entries of a run; None where each says its own."""
    if run.kind == Kind.GAP:
        return GAP_SUBSYSTEM
    return None if run.kind == Kind.STRUCTURED else SUBSYSTEMS[run.stream]


def text_of(line: Line) -> tuple[str, str]:
    """Subsystem and message, as the entry will have them."""
    return _text(line, parse_structured(line.data) if line.kind == Kind.STRUCTURED else None)


def _text(line: Line, structured: Structured | None) -> tuple[str, str]:
    if line.kind == Kind.GAP:
        return GAP_SUBSYSTEM, f"{line.dropped} entries were dropped here to keep the log within its limit"
    subsystem = SUBSYSTEMS[line.stream]
    if structured is None:
        return subsystem, line.data.decode("utf-8", "replace")
    return structured.subsystem or subsystem, structured.message


def decode_entry(line: Line, job_number: int) -> LogEntry:
    """The entry as a message. Bytes that are not UTF-8 are replaced."""
    structured = parse_structured(line.data) if line.kind == Kind.STRUCTURED else None
    subsystem, message = _text(line, structured)
    entry = LogEntry(
        id=log_entry_id(job_number, line.sequence),
        job_sequence=line.sequence,
        timestamp_utc=_instant(line.time),
        level=LEVEL_VALUES[line.level],
        subsystem=subsystem,
        message=message,
    )
    if structured:
        _add_details(entry, structured)
    elif line.kind == Kind.GAP:
        entry.payload.update({"dropped": line.dropped})
    elif line.kind in PIECES:
        entry.payload.update({"continued": line.kind == Kind.CONTINUED})
    return entry


def _add_details(entry: LogEntry, structured: Structured) -> None:
    if structured.correlation_id is not None:
        entry.correlation_id = structured.correlation_id
    if structured.payload is not None:
        entry.payload.update(structured.payload)
        entry.payload.SetInParent()


@lru_cache(maxsize=16)
def _instant(micros: int) -> Timestamp:
    """The entries of a run share it. Not to be changed."""
    return timestamp(micros)
