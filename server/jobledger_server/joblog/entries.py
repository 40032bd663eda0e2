"""Entries of a log as clients see them, out of the bytes of runs."""

from collections.abc import Mapping, Sequence
from itertools import repeat
from typing import Any

from google.protobuf.struct_pb2 import NULL_VALUE, Struct, Value
from jobledger.v1.job_pb2 import LogEntry, LogLevel
from jobledger.v1.job_service_pb2 import GetLogsResponse

from jobledger_server.core.ids import log_entry_id
from jobledger_server.core.times import SECOND, timestamp
from jobledger_server.joblog.segments import Kind, Run, Stream
from jobledger_server.joblog.structured import parse_structured

GAP_SUBSYSTEM = "engine"
SUBSYSTEMS: dict[int, str] = {stream: stream.name.lower() for stream in Stream}
LEVEL_VALUES: dict[int, LogLevel.ValueType] = {int(value): value for value in LogLevel.values()}

# The most that bytes of a log grow by as a message (`[0,0,0]`, as values of a Struct), and what an entry has beside.
MOST_GROWTH, MOST_FRAME = 8, 512


class MisfitError(Exception):
    """Bytes of a run are not what its record says."""


class EntryList:
    """Entries that are collected for an answer, as many as it takes.

    Attributes:
        answer: what they are collected in.
    """

    def __init__(self, job_number: int, *, limit: int, max_bytes: int) -> None:
        self.answer = GetLogsResponse()
        self._job_number = job_number
        self._limit = limit
        self._max_bytes = max_bytes
        # Measuring takes time: until this bound passes `max_bytes` there is no need.
        self._bound = 0
        self._cut = False

    @property
    def is_full(self) -> bool:
        return self._cut or len(self.answer.logs) >= self._limit

    def add(self, run: Run, data: bytes, places: Sequence[int]) -> None:
        """Adds entries of a run.

        Args:
            data: the bytes of the run.
            places: which of its entries, from 0, in the order of the answer.

        Raises:
            MisfitError: the bytes are not what the run says.
        """
        lines = lines_of(run, data)
        if run.entries > 1:
            places = places[: self._limit - len(self.answer.logs)]
            lines = [lines[place] for place in places]
        if run.kind == Kind.STRUCTURED:
            self._add_structured(run, places, lines)
        else:
            self._add_plain(run, places, lines)
        self._bound += run.length * MOST_GROWTH + len(places) * MOST_FRAME
        if self._bound > self._max_bytes:
            self._hold_limit()

    def add_gap(self, run: Run, first_sequence: int, dropped: int) -> None:
        """Adds the entry that stands for `dropped` ones from `first_sequence` on."""
        entry = self._new(run, first_sequence)
        entry.subsystem, entry.message = GAP_SUBSYSTEM, gap_message(dropped)
        _fill(entry.payload, {"dropped": dropped})
        self._bound += MOST_FRAME

    def _add_plain(self, run: Run, places: Sequence[int], lines: Sequence[bytes]) -> None:
        logs, count = self.answer.logs, len(self.answer.logs)
        # Copies of one, since what they share takes the most time.
        logs.extend(repeat(_common(run), len(lines)))
        number, first, is_piece = self._job_number, run.first_sequence, run.kind != Kind.PLAIN
        for entry, place, line in zip(logs[count:], places, lines, strict=True):
            entry.id = log_entry_id(number, first + place)
            entry.job_sequence = first + place
            entry.message = line.decode("utf-8", "replace")
            if is_piece:
                _fill(entry.payload, {"continued": run.kind == Kind.CONTINUED})

    def _add_structured(self, run: Run, places: Sequence[int], lines: Sequence[bytes]) -> None:
        for place, line in zip(places, lines, strict=True):
            said = parse_structured(line)
            if said is None:
                raise MisfitError
            entry = self._new(run, run.first_sequence + place)
            entry.message = said.message
            if said.subsystem is not None:
                entry.subsystem = said.subsystem
            if said.correlation_id is not None:
                entry.correlation_id = said.correlation_id
            if said.payload is not None:
                _fill(entry.payload, said.payload)

    def _new(self, run: Run, sequence: int) -> LogEntry:
        entry = self.answer.logs.add()
        entry.id = log_entry_id(self._job_number, sequence)
        entry.job_sequence = sequence
        entry.level, entry.subsystem = LEVEL_VALUES[run.level], SUBSYSTEMS[run.stream]
        instant = entry.timestamp_utc
        instant.seconds, micros = divmod(run.time, SECOND)
        instant.nanos = micros * 1000
        return entry

    def _hold_limit(self) -> None:
        """Takes back what passes `max_bytes`, but for the first entry."""
        logs = self.answer.logs
        self._bound = self.answer.ByteSize()
        while self._bound > self._max_bytes and len(logs) > 1:
            self._bound -= _framed_size(logs[-1])
            del logs[-1]
            self._cut = True


def lines_of(run: Run, data: bytes) -> list[bytes]:
    """The lines of a run whose bytes are `data`; a piece of a long line is one.

    Raises:
        MisfitError: there are not as many as the run has entries.
    """
    lines = data.removesuffix(b"\n").split(b"\n")
    if len(lines) != run.entries:
        raise MisfitError
    return lines


def plain_subsystem(run: Run) -> str | None:
    """Subsystem of all entries of a run; None where each says its own."""
    if run.kind == Kind.GAP:
        return GAP_SUBSYSTEM
    return None if run.kind == Kind.STRUCTURED else SUBSYSTEMS[run.stream]


def gap_message(dropped: int) -> str:
    """What the entry says that stands for `dropped` ones."""
    return f"{dropped} entries were dropped here to keep the log within its limit"


def _common(run: Run) -> LogEntry:
    """What entries of a plain run share."""
    return LogEntry(timestamp_utc=timestamp(run.time), level=LEVEL_VALUES[run.level], subsystem=SUBSYSTEMS[run.stream])


def _framed_size(entry: LogEntry) -> int:
    """Bytes of an entry within an answer: itself, a tag, and its length."""
    size = entry.ByteSize()
    return size + 1 + max(1, (size.bit_length() + 6) // 7)


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
