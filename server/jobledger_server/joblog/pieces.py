"""Entries of a run, out of its bytes, as both `wire` and `plain_json` take them.

No message is made of an entry: an answer has thousands, and its bytes are put together from those of the log.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple, cast

import orjson

from jobledger_server.joblog.segments import Kind, Run, Stream
from jobledger_server.joblog.structured import Structured, parse_structured, structured_of

GAP_SUBSYSTEM = "engine"
STRUCTURED = int(Kind.STRUCTURED)
SUBSYSTEMS: dict[int, str] = {stream: stream.name.lower() for stream in Stream}
CONTINUED: dict[int, Mapping[str, int]] = {Kind.CONTINUED: {"continued": True}, Kind.LAST_PIECE: {"continued": False}}
ONLY_TEXTS, ONLY_OBJECTS = {str}, {dict}


class MisfitError(Exception):
    """Bytes of a run are not what its record says."""


class Lines(NamedTuple):
    """Plain entries of one run, in the order of the answer.

    Attributes:
        time: when they were captured, microseconds since the epoch.
        sequences: their numbers.
        messages: what they say, in UTF-8.
        payload: of each.
    """

    time: int
    level: int
    subsystem: str
    sequences: Sequence[int]
    messages: Sequence[bytes]
    payload: Mapping[str, int] | None

    def first(self, count: int) -> "Lines":
        """The first ones alone."""
        return self._replace(sequences=self.sequences[:count], messages=self.messages[:count])


class Said(NamedTuple):
    """A structured entry. `time` in microseconds since the epoch; `subsystem` unless it says its own."""

    time: int
    level: int
    subsystem: str
    sequence: int
    said: Structured


Piece = Lines | Said


def pieces_of(run: Run, data: bytes, places: Sequence[int]) -> Sequence[Piece]:
    """The entries of a run at these places, from 0.

    Args:
        data: the bytes of the run.

    Raises:
        MisfitError: they are not what the run says.
    """
    first, time, _, _, _, _, level, stream, kind, _ = run
    lines, subsystem = lines_of(run, data), SUBSYSTEMS[stream]
    if kind == STRUCTURED:
        chosen = [lines[place] + b"\n" for place in places]
        numbered = zip(places, _all_said(chosen), strict=True)
        return [Said(time, level, subsystem, first + place, said) for place, said in numbered]
    messages = _readable([lines[place] for place in places], data)
    sequences = [first + place for place in places]
    return [Lines(time, level, subsystem, sequences, messages, CONTINUED.get(kind))]


def gap_piece(run: Run, first_sequence: int, dropped: int) -> Lines:
    """The entry that stands for `dropped` ones from `first_sequence` on."""
    message = gap_message(dropped).encode()
    return Lines(run.time, run.level, GAP_SUBSYSTEM, (first_sequence,), (message,), {"dropped": dropped})


def count_entries(pieces: Iterable[Piece]) -> int:
    """How many there are in all."""
    return sum(len(piece.sequences) if isinstance(piece, Lines) else 1 for piece in pieces)


def last_sequence(piece: Piece) -> int:
    """Number of its last entry."""
    return piece.sequences[-1] if isinstance(piece, Lines) else piece.sequence


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


def said_of(runs: Sequence[Run], lines: Sequence[bytes]) -> list[Said]:
    """Structured entries that are the only ones of their runs.

    Args:
        lines: the bytes of each run.

    Raises:
        MisfitError: they are not what the runs say.
    """
    found = _all_said(lines)
    return [
        Said(time, level, SUBSYSTEMS[stream], sequence, said)
        for (sequence, time, _, _, _, _, level, stream, _, _), said in zip(runs, found, strict=True)
    ]


def _all_said(lines: Sequence[bytes]) -> list[Structured]:
    """What lines say, all of which are structured and end with a newline, but for the last one.

    One call reads them all where they have texts alone, as most have. Numbers are read with more care.
    """
    array = b"[%b]" % b",".join(lines)
    try:
        found = orjson.loads(array)
    except orjson.JSONDecodeError:
        found = []
    is_plain = len(lines) == len(found) == array.count(b"\n") == array.count(b"\n,") + 1 and _are_texts(found)
    said = [structured_of(fields) for fields in found] if is_plain else [_said(line) for line in lines]
    if None in said:
        raise MisfitError
    return cast("list[Structured]", said)


def _are_texts(values: Sequence[object]) -> bool:
    """Whether all are JSON objects that have texts alone."""
    if not ONLY_OBJECTS.issuperset(map(type, values)):
        return False
    return ONLY_TEXTS.issuperset(map(type, chain.from_iterable(map(dict.values, cast("list[dict[str, Any]]", values)))))


def _said(line: bytes) -> Structured | None:
    line = line.removesuffix(b"\n")
    return None if b"\n" in line else parse_structured(line)


def _readable(lines: list[bytes], data: bytes) -> list[bytes]:
    """Lines with what is not UTF-8 replaced. They hold whole characters if the bytes that they are cut from do."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return [line.decode("utf-8", "replace").encode() for line in lines]
    return lines
