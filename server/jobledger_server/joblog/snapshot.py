"""What a log held at one moment: a sequence of runs in which positions are found by binary search.

The writer may go on meanwhile. It may also drop a middle segment, which then raises FileNotFoundError here: take
another snapshot, as `consistently` does. Standard library only.
"""

import os
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple, TypeVar

from jobledger_server.joblog.segments import (
    DATA,
    INDEX,
    RECORD,
    Kind,
    Run,
    Stream,
    segment_numbers,
    segment_path,
    unpack_runs,
)
from jobledger_server.joblog.structured import LEVELS, WARN

BLOCK = 32
MOST_BLOCKS = 1024
CONTENT_CHUNK = 1 << 20

NOTHING = (0,) * len(LEVELS)
T = TypeVar("T")


class Gap(NamedTuple):
    """Entries that were dropped: place among the runs, how many in all and of each level, and bytes of output."""

    place: int
    first_sequence: int
    entries: int
    by_level: tuple[int, ...]
    content: int


class Snapshot:
    """The runs of a log, oldest first, the gap among them as a run of one entry.

    In the runs handed out `before` and `content` count what is kept, and the gap as one entry of level warn.
    """

    def __init__(self, log_dir: Path) -> None:
        self._log_dir = log_dir
        self._blocks: dict[tuple[int, int], list[Run]] = {}
        sizes = [(number, self._records(number)) for number in segment_numbers(log_dir)]
        kept = [(number, count) for number, count in sizes if count]
        self._numbers = [number for number, _ in kept]
        self._ends = list(accumulate(count for _, count in kept))
        self.gap = self._find_gap()

    def _records(self, number: int) -> int:
        return segment_path(self._log_dir, number, INDEX).stat().st_size // RECORD.size

    def __len__(self) -> int:
        return (self._ends[-1] if self._ends else 0) + (1 if self.gap else 0)

    def __getitem__(self, index: int) -> Run:
        gap = self.gap
        if gap is None or index < gap.place:
            return self._stored(index)
        if index == gap.place:
            return self._gap_run(gap)
        run = self._stored(index - 1)
        before = [count - dropped for count, dropped in zip(run.before, gap.by_level, strict=True)]
        before[WARN - 1] += 1
        return run._replace(before=tuple(before), content=run.content - gap.content)

    def _stored(self, index: int) -> Run:
        segment, within = self._place(index)
        block, position = divmod(within, BLOCK)
        key = (self._numbers[segment], block)
        if key not in self._blocks:
            path = segment_path(self._log_dir, key[0], INDEX)
            count = min(BLOCK, self._ends[segment] - index + position)
            if len(self._blocks) == MOST_BLOCKS:
                self._blocks.clear()
            self._blocks[key] = list(unpack_runs(_read(path, block * BLOCK * RECORD.size, count * RECORD.size)))
        return self._blocks[key][position]

    def _place(self, index: int) -> tuple[int, int]:
        """A stored run's segment, counted from 0, and its place in it."""
        segment = bisect_right(self._ends, index)
        return segment, index - (self._ends[segment - 1] if segment else 0)

    def _find_gap(self) -> Gap | None:
        """The one place where segment numbers, which count from 1, leave some out."""
        missing = next((place for place, number in enumerate(self._numbers) if number != place + 1), None)
        if missing is None:
            return None
        if segment_path(self._log_dir, self._numbers[missing] - 1, INDEX).exists():
            raise FileNotFoundError("segments were added while they were listed")
        index = self._ends[missing - 1] if missing else 0
        previous, following = self._stored(index - 1) if index else None, self._stored(index)
        start = previous.end_sequence if previous else 1
        counted = previous.after() if previous else NOTHING
        content = previous.content + previous.content_length if previous else 0
        by_level = tuple(later - earlier for later, earlier in zip(following.before, counted, strict=True))
        return Gap(index, start, following.first_sequence - start, by_level, following.content - content)

    def _gap_run(self, gap: Gap) -> Run:
        following = self._stored(gap.place)
        before = self._stored(gap.place - 1).after() if gap.place else NOTHING
        content = following.content - gap.content
        return Run(gap.first_sequence, following.time, content, 1, 0, 0, WARN, Stream.CONTROL, Kind.GAP, before)

    def last_stored(self) -> Run | None:
        """The last run as it is stored: `before` and `content` count what was dropped, too."""
        return self._stored(self._ends[-1] - 1) if self._ends else None

    # --- positions ---

    def total(self, levels: Collection[int]) -> int:
        """Entries of these levels."""
        return _sum(self[len(self) - 1].after(), levels) if len(self) else 0

    def rank(self, index: int, levels: Collection[int]) -> int:
        """Entries of these levels before the run at `index`, which may be the end."""
        return _sum(self[index].before, levels) if index < len(self) else self.total(levels)

    def find_position(self, position: int, levels: Collection[int]) -> int:
        """Index of the run that holds the entry at `position` (from 0) among those of these levels."""
        return bisect_right(self, position, key=lambda run: _sum(run.before, levels)) - 1

    def position_of_time(self, time: int, levels: Collection[int]) -> int:
        """Entries of these levels that were captured before `time`, microseconds since the epoch."""
        return self.rank(bisect_right(self, time - 1, key=lambda run: run.time), levels)

    def position_of_sequence(self, sequence: int, levels: Collection[int]) -> int:
        """Entries of these levels with a number below `sequence`."""
        index = bisect_right(self, sequence - 1, key=lambda run: run.first_sequence) - 1
        if index < 0:
            return 0
        run = self[index]
        inside = min(run.entries, sequence - run.first_sequence) if run.level in levels else 0
        return self.rank(index, levels) + inside

    def last_sequence(self) -> int:
        """Number of the last entry, 0 without any."""
        return self[len(self) - 1].end_sequence - 1 if len(self) else 0

    # --- bytes ---

    def run_bytes(self, index: int) -> bytes:
        """The bytes of the run at `index`; none for the gap."""
        run = self[index]
        if run.kind == Kind.GAP:
            return b""
        return _read(self._data_path(index), run.offset, run.length)

    def _data_path(self, index: int) -> Path:
        stored = index if self.gap is None or index < self.gap.place else index - 1
        return segment_path(self._log_dir, self._numbers[self._place(stored)[0]], DATA)

    def content_size(self) -> int:
        """Bytes of the job's output that are kept."""
        if not len(self):
            return 0
        last = self[len(self) - 1]
        return last.content + last.content_length

    def content(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes of the kept output from `offset`; fewer only at its end."""
        parts, end = [], min(offset + length, self.content_size())
        index = bisect_right(self, offset, key=lambda run: run.content) - 1
        while offset < end:
            path, start, size, index = self._contiguous(index, offset, end)
            parts.append(_read(path, start, size))
            offset += size
        return b"".join(parts)

    def _contiguous(self, index: int, offset: int, end: int) -> tuple[Path, int, int, int]:
        """Bytes of output from `offset` that lie side by side in one file: path, start, size, the run after them."""
        run, path = self[index], self._data_path(index)
        start = run.offset + offset - run.content
        size = run.content + run.content_length - offset
        index += 1
        while offset + size < end:
            following = self[index]
            if following.offset != start + size or not following.content_length or self._data_path(index) != path:
                break
            size += following.length
            index += 1
        return path, start, min(size, end - offset), index

    def content_chunks(self) -> Iterator[bytes]:
        """The whole kept output."""
        size = self.content_size()
        for offset in range(0, size, CONTENT_CHUNK):
            yield self.content(offset, CONTENT_CHUNK)


def consistently(log_dir: Path, read: Callable[[Snapshot], T]) -> T:
    """What `read` answers of a snapshot, taken anew whenever a segment was dropped under it."""
    while True:
        try:
            return read(Snapshot(log_dir))
        except FileNotFoundError:
            continue


def _sum(counts: tuple[int, ...], levels: Collection[int]) -> int:
    return sum(counts[level - 1] for level in levels)


def _read(path: Path, offset: int, size: int) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.pread(descriptor, size, offset)
    finally:
        os.close(descriptor)
