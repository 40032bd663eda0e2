"""Entries of a run, out of its bytes, as both `wire` and `plain_json` take them.

No message is made of an entry: an answer has thousands, and its bytes are put together from those of the log.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any, NamedTuple, cast

import orjson

from jobledger_server.joblog.segments import Kind, Run, Stream
from jobledger_server.joblog.structured import ENGINE, LEVEL_NAMES, Structured, parse_structured, structured_of

STRUCTURED = int(Kind.STRUCTURED)
SUBSYSTEMS = {int(stream): stream.name.lower() for stream in Stream}
CONTINUED = {int(Kind.CONTINUED): {"continued": True}, int(Kind.LAST_PIECE): {"continued": False}}
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
    """Structured entries in the order of the answer: columns, each with one item an entry.

    Attributes:
        sequences: their numbers; `times` in microseconds since the epoch.
        payloads: None where there is none; `correlation_ids` likewise.
    """

    sequences: Sequence[int]
    times: Sequence[int]
    levels: Sequence[int]
    subsystems: Sequence[str]
    messages: Sequence[str]
    correlation_ids: Sequence[str | None]
    payloads: Sequence[Mapping[str, Any] | None]

    def first(self, count: int) -> "Said":
        """The first ones alone."""
        return Said._make(column[:count] for column in self)


Piece = Lines | Said
# Of what structured entries say: subsystems, messages, correlation ids, payloads.
Columns = tuple[Sequence[str], Sequence[str], Sequence[str | None], Sequence[Mapping[str, Any] | None]]


def piece_of(run: Run, data: bytes, places: Sequence[int]) -> Piece:
    """The entries of a run at these places, from 0.

    Args:
        data: the bytes of the run.

    Raises:
        MisfitError: they are not what the run says.
    """
    lines = lines_of(run, data)
    chosen, count = list(map(lines.__getitem__, places)), len(places)
    sequences = [run.first_sequence + place for place in places]
    if run.kind == STRUCTURED:
        columns = _said([line + b"\n" for line in chosen], [SUBSYSTEMS[run.stream]] * count)
        return Said(sequences, [run.time] * count, [run.level] * count, *columns)
    messages = _readable(chosen, data)
    return Lines(run.time, run.level, SUBSYSTEMS[run.stream], sequences, messages, CONTINUED.get(run.kind))


def gap_piece(run: Run, first_sequence: int, dropped: int) -> Lines:
    """The entry that stands for `dropped` ones from `first_sequence` on."""
    message = gap_message(dropped).encode()
    return Lines(run.time, run.level, ENGINE, (first_sequence,), (message,), {"dropped": dropped})


def count_entries(pieces: Iterable[Piece]) -> int:
    """How many there are in all."""
    return sum(len(piece.sequences) for piece in pieces)


def last_sequence(piece: Piece) -> int:
    """Number of its last entry."""
    return piece.sequences[-1]


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
        return ENGINE
    return None if run.kind == Kind.STRUCTURED else SUBSYSTEMS[run.stream]


def gap_message(dropped: int) -> str:
    """What the entry says that stands for `dropped` ones."""
    return f"{dropped} entries were dropped here to keep the log within its limit"


def lone_piece(runs: Sequence[Run], lines: Sequence[bytes]) -> Said:
    """Structured entries that are the only ones of their runs.

    Args:
        lines: the bytes of each run.

    Raises:
        MisfitError: they are not what the runs say.
    """
    subsystems = [SUBSYSTEMS[run.stream] for run in runs]
    return Said(
        [run.first_sequence for run in runs],
        [run.time for run in runs],
        [run.level for run in runs],
        *_said(lines, subsystems),
    )


def _said(lines: Sequence[bytes], subsystems: Sequence[str]) -> Columns:
    """What lines say that are structured and end with a newline, but for the last one.

    Args:
        subsystems: of those that do not say their own.
    """
    found = _objects_of_texts(lines)
    if found is None:
        return _columns([_parsed(line) for line in lines], subsystems)
    if set(map(len, found)) != {2}:
        return _columns([structured_of(fields) for fields in found], subsystems)
    # A level and a message, and nothing else.
    try:
        levels, messages = set(map(itemgetter("level"), found)), list(map(itemgetter("message"), found))
    except KeyError:
        raise MisfitError from None
    if not all(level.lower() in LEVEL_NAMES for level in levels):
        raise MisfitError
    nothing = [None] * len(found)
    return subsystems, messages, nothing, nothing


def _objects_of_texts(lines: Sequence[bytes]) -> list[dict[str, str]] | None:
    """The JSON objects that lines are, if each is one that has texts alone, as most are. One call reads them all.

    Between two of these a line ends and a brace follows, which is found nowhere inside such an object.
    """
    array = b"[%b]" % b",".join(lines)
    if not len(lines) == array.count(b"\n") == array.count(b"\n,{") + array.startswith(b"[{"):
        return None
    try:
        found = orjson.loads(array)
    except orjson.JSONDecodeError:
        return None
    return found if len(found) == len(lines) and _are_texts(found) else None


def _are_texts(values: Sequence[object]) -> bool:
    """Whether all are JSON objects that have texts alone."""
    if not ONLY_OBJECTS.issuperset(map(type, values)):
        return False
    return ONLY_TEXTS.issuperset(map(type, chain.from_iterable(map(dict.values, cast("list[dict[str, Any]]", values)))))


def _parsed(line: bytes) -> Structured | None:
    line = line.removesuffix(b"\n")
    return None if b"\n" in line else parse_structured(line)


def _columns(found: Sequence[Structured | None], subsystems: Sequence[str]) -> Columns:
    """The columns of entries, of which none must be missing."""
    if None in found:
        raise MisfitError
    _, messages, own, correlation_ids, payloads = zip(*cast("Sequence[Structured]", found), strict=True)
    return [said or given for said, given in zip(own, subsystems, strict=True)], messages, correlation_ids, payloads


def _readable(lines: list[bytes], data: bytes) -> list[bytes]:
    """Lines with what is not UTF-8 replaced. They hold whole characters if the bytes that they are cut from do."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return [line.decode("utf-8", "replace").encode() for line in lines]
    return lines
