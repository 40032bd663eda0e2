"""Segment files of a log: `00000001.data` holds bytes as they were written, `00000001.index` one record a run.

Once nothing more is written to them, `00000001.seal` holds their hashes (`seals`).

A run is consecutive entries of one stream, level and kind that were captured together. Records have a fixed size and
carry the counts of all that came before, so that any position is found by binary search. Data is written before the
records that cover it: what the index covers is there, what it does not cover was never told to anyone.
Standard library only.
"""

import contextlib
import enum
import os
import struct
from collections.abc import Container, Iterable, Sequence
from functools import partial
from itertools import compress, count, repeat
from pathlib import Path
from typing import NamedTuple

from jobledger_server.joblog.structured import INFO, LEVELS, WARN

DATA, INDEX, SEAL = ".data", ".index", ".seal"
RECORD = struct.Struct("<QQQIIIBBBx5Q")
# Values before the counts per level.
PLAIN_FIELDS = 9
# Where the level stands in a record.
LEVEL_AT = struct.calcsize("<QQQIII")
LARGEST_OFFSET = 1 << 40
# The year 10000, which no Timestamp holds.
END_OF_TIME = 253_402_300_800_000_000
CLOSED = -1


class DamagedLogError(Exception):
    """The files of a log are not as they were written. The message, for the operator, says which and what to do."""


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
    for _, time, _, entries, offset, length, level, stream, kind, _, _, _, _, _ in runs:
        if level not in KNOWN_LEVELS or stream not in STREAMS or kind not in STORED_KINDS:
            return False
        if not entries or offset + length >= LARGEST_OFFSET or time >= END_OF_TIME:
            return False
    return True


def segment_path(log_dir: Path, number: int, suffix: str) -> Path:
    """Path of a segment's file."""
    return log_dir / f"{number:08d}{suffix}"


def segment_numbers(log_dir: Path) -> list[int]:
    """Numbers of the segments that exist, ascending; none where there is no such directory."""
    try:
        # Strings, not paths: a log may have a thousand segments, and every page asks.
        return sorted(int(name.removesuffix(INDEX)) for name in os.listdir(log_dir) if name.endswith(INDEX))  # noqa: PTH208
    except (FileNotFoundError, NotADirectoryError):
        return []


def index_sizes(log_dir: Path) -> dict[int, int]:
    """Bytes of each segment's index, by its number, ascending.

    Raises:
        FileNotFoundError: a segment was removed meanwhile.
    """
    # All are listed before the first is measured: one that another follows has its final size then.
    return {number: os.stat(f"{log_dir}/{number:08d}{INDEX}").st_size for number in segment_numbers(log_dir)}  # noqa: PTH116


def log_extent(log_dir: Path) -> tuple[int, int]:
    """Number of the last segment and bytes of its index: differs once entries have come."""
    numbers = segment_numbers(log_dir)
    try:
        return (numbers[-1], segment_path(log_dir, numbers[-1], INDEX).stat().st_size) if numbers else (0, 0)
    except (FileNotFoundError, NotADirectoryError):
        return 0, 0


def remove_segment(log_dir: Path, number: int) -> None:
    """Removes a segment. The index goes first: it is what readers list."""
    for suffix in (INDEX, DATA, SEAL):
        segment_path(log_dir, number, suffix).unlink(missing_ok=True)


def remove_orphans(log_dir: Path) -> None:
    """Removes data and seals whose index is gone: what an interrupted removal leaves."""
    with contextlib.suppress(FileNotFoundError):
        for path in log_dir.iterdir():
            if path.suffix in {DATA, SEAL} and not path.with_suffix(INDEX).exists():
                path.unlink()


class Segment:
    """A segment to append to, repaired to what its index covers. Where it has no files yet, the first run makes them.

    Attributes:
        last: its last run, None while it is empty.
        torn: whether something was cut off when it was opened.
    """

    def __init__(self, log_dir: Path, number: int) -> None:
        self.number = number
        self._log_dir = log_dir
        self._data = self._index = CLOSED
        self._data_size = self._index_size = 0
        self.last: Run | None = None
        self.torn = False
        if segment_path(log_dir, number, INDEX).exists():
            self._open()
            self.last, self.torn = self._repair()

    def _open(self) -> None:
        self._data = _open_to_write(segment_path(self._log_dir, self.number, DATA))
        try:
            self._index = _open_to_write(segment_path(self._log_dir, self.number, INDEX))
        except OSError:
            self.close()
            raise

    def _make(self) -> None:
        """What an interrupted removal has left in the place of its data is none of it: that is in no index."""
        self._log_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._open()
        self._cut()

    def _repair(self) -> tuple[Run | None, bool]:
        """Cuts off what an interrupted write left. Returns the last whole run, and whether anything was cut."""
        data_size, index_size = os.fstat(self._data).st_size, os.fstat(self._index).st_size
        records = index_size // RECORD.size
        last = None
        while records:
            last = unpack_run(os.pread(self._index, RECORD.size, (records - 1) * RECORD.size), 0)
            if are_sound([last]) and last.end <= data_size:
                break
            records, last = records - 1, None
        self._data_size = last.end if last else 0
        self._index_size = records * RECORD.size
        torn = (data_size, index_size) != (self._data_size, self._index_size)
        if torn:
            self._cut()
        return last, torn

    def _cut(self) -> None:
        os.ftruncate(self._index, self._index_size)
        os.ftruncate(self._data, self._data_size)

    @property
    def size(self) -> int:
        """Bytes of both files."""
        return self._data_size + self._index_size

    def append(self, runs: Sequence[tuple[Run, bytes]]) -> None:
        """Writes runs with their bytes: all of them, or none.

        Args:
            runs: `offset` is filled in here.

        Raises:
            OSError: nothing was written.
        """
        placed, offset = [], self._data_size
        for run, data in runs:
            placed.append(run._replace(offset=offset))
            offset += len(data)
        index = b"".join(run.pack() for run in placed)
        if self._index == CLOSED:
            self._make()
        try:
            _write_all(self._data, b"".join(data for _, data in runs), self._data_size)
            _write_all(self._index, index, self._index_size)
        except OSError:
            self._cut()
            raise
        self._data_size, self._index_size = offset, self._index_size + len(index)
        self.last = placed[-1]

    def close(self) -> None:
        for descriptor in (self._data, self._index):
            if descriptor != CLOSED:
                os.close(descriptor)
        self._data = self._index = CLOSED


def _open_to_write(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _write_all(descriptor: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written
