"""Segment files of a log: `00000001.data` holds bytes as they were written, `00000001.index` one record a run.

Once nothing more is written to them, `00000001.seal` holds their hashes (`seals`).

A run is consecutive entries of one stream, level and kind that were captured together. Records have a fixed size and
carry the counts of all that came before, so that any position is found by binary search. Data is written before the
records that cover it: what the index covers is there, what it does not cover was never told to anyone.
Standard library only.
"""

import enum
import errno
import os
import stat
import struct
from collections.abc import Container, Iterable
from functools import lru_cache, partial
from itertools import compress, count, repeat
from pathlib import Path
from typing import NamedTuple

from jobledger_server.joblog.structured import INFO, LEVELS, WARN

DATA, INDEX, SEAL = ".data", ".index", ".seal"
# Beside a segment that a writer has found damaged, once the log says so.
MARK = ".damaged"
RECORD = struct.Struct("<QQQIIIBBBx5Q")
# Values before the counts per level.
PLAIN_FIELDS = 9
# Where the level stands in a record.
LEVEL_AT = struct.calcsize("<QQQIII")
LARGEST_OFFSET = 1 << 40
# More entries or bytes than any log has: what comes after them still fits into a record, and into the API's integers.
LARGEST_COUNT = 1 << 60
SUFFIXES = frozenset({DATA, INDEX, SEAL, MARK})
# The year 10000, which no Timestamp holds.
END_OF_TIME = 253_402_300_800_000_000


class DamagedLogError(Exception):
    """The files of a log are not as they were written. The message, for the operator, says which and what to do.

    Attributes:
        segment: number of the one that is damaged; 0 where it is none alone.
    """

    def __init__(self, message: str, segment: int = 0) -> None:
        super().__init__(message)
        self.segment = segment


class DamagedIndexError(DamagedLogError):
    """It is the index of a segment that is not as it was sealed."""


class Stream(enum.IntEnum):
    """Where entries come from; the name is their subsystem unless they say otherwise."""

    STDOUT = 1
    STDERR = 2
    CONTROL = 3


class Kind(enum.IntEnum):
    """What the bytes of a run are.

    PLAIN: lines. STRUCTURED: lines, each a JSON object with level and message. CONTINUED: a piece of a line that goes
    on in the next run of the stream. LAST_PIECE: the end of such a line. GAP: never stored; stands for dropped entries.
    """

    PLAIN = 1
    STRUCTURED = 2
    CONTINUED = 3
    LAST_PIECE = 4
    GAP = 5


STREAM_LEVELS = {Stream.STDOUT: INFO, Stream.STDERR: WARN}
# As plain numbers, since runs are looked at by the thousand.
KNOWN_LEVELS, STREAMS = frozenset(LEVELS), frozenset(map(int, Stream))
STORED_KINDS = frozenset(int(kind) for kind in Kind if kind != Kind.GAP)


class Run(NamedTuple):
    """A record of the index.

    Attributes:
        first_sequence: number of the first entry.
        time: when it was captured, microseconds since the epoch; never before that of the run before it.
        content: bytes of stdout and stderr in the log before this run.
        entries: how many.
        offset: of the first byte in the segment's data; `length` in bytes.
        traces: entries of level trace in the log before this run; `debugs` to `errors` likewise.
    """

    first_sequence: int
    time: int
    content: int
    entries: int
    offset: int
    length: int
    level: int
    stream: int
    kind: int
    traces: int
    debugs: int
    infos: int
    warns: int
    errors: int

    @property
    def before(self) -> tuple[int, ...]:
        """Entries in the log before this run, by level from trace to error."""
        return self[PLAIN_FIELDS:]

    @property
    def end_sequence(self) -> int:
        """Number after that of the last entry."""
        return self.first_sequence + self.entries

    @property
    def end(self) -> int:
        """Offset after that of the last byte."""
        return self.offset + self.length

    @property
    def content_length(self) -> int:
        """Bytes of the job's output: what came through the control pipe is not output."""
        return 0 if self.stream == Stream.CONTROL else self.length

    def after(self) -> tuple[int, ...]:
        """Entries in the log up to and with this run, by level."""
        return tuple(
            count + self.entries if level == self.level else count
            for level, count in zip(LEVELS, self.before, strict=True)
        )

    def cut(self, length: int, entries: int) -> tuple["Run", "Run"]:
        """Two runs in place of this one, which is not stored: its first `entries`, of `length` bytes, and the rest."""
        first = self._replace(entries=entries, length=length)
        second = self._replace(
            first_sequence=first.end_sequence,
            content=self.content + first.content_length,
            entries=self.entries - entries,
            length=self.length - length,
        )
        return first, second.counted(first.after())

    def counted(self, before: Iterable[int]) -> "Run":
        """The same with so many entries before it, by level from trace to error."""
        return Run(*self[:PLAIN_FIELDS], *before)

    def pack(self) -> bytes:
        """The record."""
        return RECORD.pack(*self)


def unpack_run(records: bytes, place: int) -> Run:
    """The run in the record at `place`, from 0."""
    return Run._make(RECORD.unpack_from(records, place * RECORD.size))


def unpack_runs(records: bytes, levels: Container[int]) -> list[Run]:
    """The runs of these levels in records that lie side by side."""
    places = compress(count(0, RECORD.size), map(levels.__contains__, records[LEVEL_AT :: RECORD.size]))
    # `Run._make` without the steps around it: runs come by the thousand.
    return list(map(partial(tuple.__new__, Run), map(RECORD.unpack_from, repeat(records), places)))


def are_sound(runs: Iterable[Run]) -> bool:
    """Whether these have values that a writer writes."""
    for run in runs:
        first, time, content, entries, offset, length, level, stream, kind, traces, debugs, infos, warns, errors = run
        if level not in KNOWN_LEVELS or stream not in STREAMS or kind not in STORED_KINDS:
            return False
        if not entries or offset + length >= LARGEST_OFFSET or time >= END_OF_TIME:
            return False
        # All of them at once, as the limit is a power of two: records are looked at by the thousand.
        if first | content | traces | debugs | infos | warns | errors >= LARGEST_COUNT:
            return False
    return True


def segment_path(log_dir: Path, number: int, suffix: str) -> Path:
    """Path of a segment's file."""
    return log_dir / f"{number:08d}{suffix}"


def segment_files(log_dir: Path) -> dict[int, set[str]]:
    """The suffixes of the files that each segment has, by its number, ascending; none without such a directory."""
    found: dict[int, set[str]] = {}
    try:
        # Strings, not paths: a log may have a thousand segments, and every page asks.
        names = os.listdir(log_dir)  # noqa: PTH208
    except (FileNotFoundError, NotADirectoryError):
        return {}
    for number, suffix in filter(None, map(_named, names)):
        found.setdefault(number, set()).add(suffix)
    return dict(sorted(found.items()))


@lru_cache(maxsize=8192)
def _named(name: str) -> tuple[int, str] | None:
    """Number and suffix of the file of a segment; the names are the same in every log."""
    stem, dot, kind = name.partition(".")
    return (int(stem), dot + kind) if dot + kind in SUFFIXES and stem.isdecimal() else None


def segment_numbers(log_dir: Path) -> list[int]:
    """Numbers of the segments that have an index, ascending."""
    return [number for number, suffixes in segment_files(log_dir).items() if INDEX in suffixes]


def log_extent(log_dir: Path) -> tuple[int, int]:
    """Number of the last segment and bytes of its index: differs once entries have come."""
    numbers = segment_numbers(log_dir)
    try:
        return (numbers[-1], segment_path(log_dir, numbers[-1], INDEX).stat().st_size) if numbers else (0, 0)
    except (FileNotFoundError, NotADirectoryError):
        return 0, 0


def remove_segment(log_dir: Path, number: int) -> None:
    """Removes a segment. The seal goes first: a sealed one without an index is one whose index was lost."""
    for suffix in (SEAL, MARK, INDEX, DATA):
        segment_path(log_dir, number, suffix).unlink(missing_ok=True)


def open_regular(path: Path, flags: int) -> int:
    """Opens a file, and nothing else: where nothing isolates a job it may have put a link or a FIFO in its place.

    Raises:
        DamagedLogError: it is something else.
        OSError: it can't be opened.
    """
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.EMLINK, errno.EISDIR, errno.ENXIO}:
            raise _is_no_file(path) from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _is_no_file(path)
    return descriptor


def _is_no_file(path: Path) -> DamagedLogError:
    number = int(path.stem) if path.stem.isdecimal() else 0
    return DamagedLogError(f"{path} is not a file any more: restore it from a backup", number)
