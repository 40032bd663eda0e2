"""What a log held at one moment: a sequence of runs in which positions are found by binary search.

The writer may go on meanwhile. It may also drop a middle segment, which then raises FileNotFoundError here: take
another snapshot, as `consistently` does. Standard library only.
"""

from bisect import bisect_right
from collections.abc import Callable, Collection, Container, Iterable, Iterator
from itertools import accumulate
from operator import itemgetter
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from jobledger_server.joblog.files import SegmentFiles
from jobledger_server.joblog.gaps import Gap, Holdings
from jobledger_server.joblog.seals import damaged
from jobledger_server.joblog.segments import (
    PLAIN_FIELDS,
    RECORD,
    DamagedLogError,
    Kind,
    Run,
    Stream,
    are_sound,
    segment_path,
    unpack_run,
    unpack_runs,
)
from jobledger_server.joblog.structured import WARN

# Records of an index that are read at once, and how many such blocks are kept.
BLOCK = 256
MOST_BLOCKS = 256
CONTENT_CHUNK = 1 << 20


class Snapshot:
    """The runs of a log, oldest first, the gap among them as a run of one entry.

    In the runs handed out `before` and `content` count what is kept, and the gap as one entry of level warn. What does
    not fit together raises DamagedLogError. Of a segment that is lost, or has become shorter, positions and numbers are
    left out between the runs, and counted: seals tell how many.
    """

    def __init__(self, log_dir: Path, without: Container[int] = frozenset()) -> None:
        """What is there, but for the segments `without`, whose indexes are damaged."""
        self._log_dir = log_dir
        self._files = SegmentFiles(log_dir)
        self._blocks: dict[tuple[int, int], bytes] = {}
        with self._files:
            held = Holdings(log_dir, self._files, without)
            self._numbers = list(held.records)
            self._ends = list(accumulate(held.records.values()))
            self._last, self._ending, self._misses = held.last, held.ending, held.misses
            self.gap = held.gap

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._files.__exit__(kind, error, trace)

    def __len__(self) -> int:
        return (self._ends[-1] if self._ends else 0) + (1 if self.gap else 0)

    def __getitem__(self, index: int) -> Run:
        gap = self.gap
        if gap is None or index < gap.place:
            return self._stored(index)
        if index == gap.place:
            return self._gap_run(gap)
        return _after_gap(self._stored(index - 1), gap)

    def _stored(self, index: int) -> Run:
        segment, within = self._place(index)
        block, position = divmod(within, BLOCK)
        return self._run(segment, self._block(segment, block), position)

    def _run(self, segment: int, records: bytes, position: int) -> Run:
        run = unpack_run(records, position)
        if not are_sound([run]):
            raise self._nonsense(segment)
        return run

    def _nonsense(self, segment: int) -> DamagedLogError:
        return damaged(self._log_dir, self._numbers[segment], "a record of its index makes no sense")

    def _block(self, segment: int, block: int) -> bytes:
        """Records of a segment's index, both counted from 0; the last block of a segment is shorter."""
        key = (segment, block)
        records = self._blocks.get(key)
        if records is None:
            if len(self._blocks) == MOST_BLOCKS:
                self._blocks.clear()
            first = block * BLOCK
            count = min(BLOCK, self._ends[segment] - self._start(segment) - first)
            records = self._files.index(self._numbers[segment], first * RECORD.size, count * RECORD.size)
            self._blocks[key] = records
        return records

    def _start(self, segment: int) -> int:
        """Index of a segment's first run among those that are stored."""
        return self._ends[segment - 1] if segment else 0

    def _place(self, index: int) -> tuple[int, int]:
        """A stored run's segment, counted from 0, and its place in it."""
        segment = bisect_right(self._ends, index)
        return segment, index - self._start(segment)

    def _gap_run(self, gap: Gap) -> Run:
        following = self._stored(gap.place)
        content = following.content - gap.content
        return Run(gap.first_sequence, following.time, content, 1, 0, 0, WARN, Stream.CONTROL, Kind.GAP, *gap.before)

    @property
    def extent(self) -> tuple[list[int], list[int]]:
        """Equal for snapshots between which nothing was written or dropped."""
        return self._numbers, self._ends

    # --- positions ---

    def total(self, levels: Collection[int]) -> int:
        """Entries of these levels."""
        if self._ending:
            return sum(self._kept_counts(self._ending.counts)[level - 1] for level in levels)
        if not len(self):
            return 0
        last = self[len(self) - 1]
        return counter_of(levels)(last) + (last.entries if last.level in levels else 0)

    def _kept_counts(self, counts: Iterable[int]) -> list[int]:
        return self.gap.without_dropped(counts) if self.gap else list(counts)

    def rank(self, index: int, levels: Collection[int]) -> int:
        """Entries of these levels before the run at `index`, which may be the end."""
        return counter_of(levels)(self[index]) if index < len(self) else self.total(levels)

    def find_position(self, position: int, levels: Collection[int]) -> int:
        """Index of the run that holds the entry at `position` (from 0) among those of these levels.

        Where it is lost, of the last one before it.
        """
        count, likely = counter_of(levels), self._likely(position, levels)
        index = bisect_right(self, position, likely.start, likely.stop, key=count) - 1
        if likely and index >= 0:
            run = self[index]
            if run.level in levels and 0 <= position - count(run) < run.entries:
                return index
        return bisect_right(self, position, key=count) - 1

    def _likely(self, position: int, levels: Collection[int]) -> range:
        """The runs of the segment that holds this position by what seals say: looking into each index takes longer.

        It is a guess, since nothing tells whether a seal is as it was written.
        """
        gap = self.gap

        def count(segment: int) -> int:
            seal = self._files.seal(self._numbers[segment])
            if seal is None or seal.ending is None:
                return position + 1
            counts = seal.ending.counts
            kept = gap.without_dropped(counts) if gap and self._start(segment) >= gap.place else counts
            return sum(kept[level - 1] for level in levels)

        segment = bisect_right(range(len(self._numbers)), position, key=count)
        if segment == len(self._numbers):
            return range(0)
        shift = 1 if gap and self._start(segment) >= gap.place else 0
        return range(self._start(segment) + shift, self._ends[segment] + shift)

    def position_of_time(self, time: int, levels: Collection[int]) -> int:
        """Entries of these levels that were captured before `time`, microseconds since the epoch.

        Raises:
            DamagedLogError: there are entries missing of which some may have been, and others not.
        """
        if self._ending and time > self._ending.time:
            return self.total(levels)
        index = bisect_right(self, time - 1, key=lambda run: run.time)
        following = self[index].first_sequence if index < len(self) else self.last_sequence() + 1
        if self._sequence_after(index - 1) != following:
            raise self.damage_at(index)
        return self.rank(index, levels)

    def position_of_sequence(self, sequence: int, levels: Collection[int]) -> int:
        """Entries of these levels with a number below `sequence`.

        Raises:
            DamagedLogError: the entry before it is missing: nothing tells of which levels those up to it were.
        """
        if sequence > self.last_sequence():
            return self.total(levels)
        # Where entries before it are lost, it is the run of the number itself that knows how many.
        index = bisect_right(self, sequence, key=lambda run: run.first_sequence) - 1
        if sequence > self._sequence_after(index):
            raise self.damage_at(index + 1)
        if index < 0:
            return 0
        run = self[index]
        inside = min(run.entries, sequence - run.first_sequence) if run.level in levels else 0
        return self.rank(index, levels) + inside

    def _sequence_after(self, index: int) -> int:
        """The number with which the log goes on after the run at `index`, and with which it begins after -1."""
        if index < 0:
            return 1
        gap = self.gap
        return gap.end_sequence if gap and index == gap.place else self[index].end_sequence

    def last_sequence(self) -> int:
        """Number of the last entry, 0 without any."""
        if self._ending:
            return self._ending.sequence
        return self[len(self) - 1].end_sequence - 1 if len(self) else 0

    def stretch(self, index: int) -> range:
        """The runs around `index`, it among them, whose records are read at once and whose data lies side by side."""
        gap = self.gap
        if gap and index == gap.place:
            return range(index, index + 1)
        shift = 1 if gap and index > gap.place else 0
        segment, within = self._place(index - shift)
        first = index - within % BLOCK
        return range(first, first + len(self._block(segment, within // BLOCK)) // RECORD.size)

    def select(self, stretch: range, levels: Collection[int]) -> tuple[int, list[Run]]:
        """The runs of a stretch, or of a part of it, that are of these levels, and the number of their segment."""
        gap = self.gap
        if gap and stretch.start == gap.place:
            return 0, [self._gap_run(gap)] if WARN in levels else []
        is_after = gap is not None and stretch.start > gap.place
        segment, within = self._place(stretch.start - is_after)
        block, position = divmod(within, BLOCK)
        records = self._block(segment, block)
        part = records[position * RECORD.size : (position + len(stretch)) * RECORD.size]
        runs = unpack_runs(part, levels)
        if not are_sound(runs):
            raise self._nonsense(segment)
        return self._numbers[segment], [_after_gap(run, gap) for run in runs] if gap and is_after else runs

    # --- bytes ---

    def run_bytes(self, segment: int, run: Run) -> bytes:
        """The bytes of a run of the segment with this number."""
        return self._files.data(segment, run.offset, run.length)

    def lone_bytes(self, segment: int, runs: Iterable[Run]) -> list[bytes]:
        """The bytes of each of these runs of a segment, short ones that may be far from each other."""
        return self._files.pieces(segment, [run.offset for run in runs], [run.length for run in runs])

    def stretch_bytes(self, stretch: range) -> bytes:
        """The bytes of the runs of a stretch, or of a part of it; none for the gap."""
        first, last = self[stretch.start], self[stretch.stop - 1]
        return self._files.data(self._number(stretch.start), first.offset, last.end - first.offset) if last.end else b""

    def _number(self, index: int) -> int:
        """Number of the segment that holds a run."""
        stored = index if self.gap is None or index < self.gap.place else index - 1
        return self._numbers[self._place(stored)[0]]

    def damage(self, segment: int) -> DamagedLogError:
        """The error for the segment with this number, where bytes are not what a record says."""
        return damaged(self._log_dir, segment, "its data is not what its index says")

    def damage_at(self, index: int) -> DamagedLogError:
        """The error where what goes before the run at `index`, which may be the end, or comes after it is not there."""
        number = self._number(index) if index < len(self) else self._last
        if self._misses(number - 1):
            name = segment_path(self._log_dir, number - 1, "")
            return DamagedLogError(f"{name} is missing, with all its files: restore it from a backup", number - 1)
        return damaged(self._log_dir, number, "entries are missing")

    def content_size(self) -> int:
        """Bytes of the job's output that are kept."""
        if self._ending:
            return self._ending.content - (self.gap.content if self.gap else 0)
        if not len(self):
            return 0
        last = self[len(self) - 1]
        return last.content + last.content_length

    def content(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes of the kept output from `offset`; fewer only at its end."""
        parts, end = [], min(offset + length, self.content_size())
        index = bisect_right(self, offset, key=lambda run: run.content) - 1
        while offset < end:
            if not 0 <= index < len(self) or not 0 <= offset - self[index].content <= self[index].content_length:
                raise self.damage_at(index + 1)
            number, start, size, following = self._contiguous(index, offset, end)
            parts.append(self._files.data(number, start, size))
            offset, index = offset + size, following
        return b"".join(parts)

    def _contiguous(self, index: int, offset: int, end: int) -> tuple[int, int, int, int]:
        """Bytes of output from `offset` that lie side by side in a segment: its number, start, size, the run after."""
        run, number = self[index], self._number(index)
        start = run.offset + offset - run.content
        size = run.content + run.content_length - offset
        index += 1
        while offset + size < end and index < len(self):
            following = self[index]
            if following.offset != start + size or not following.content_length or self._number(index) != number:
                break
            size += following.length
            index += 1
        return number, start, min(size, end - offset), index

    def content_chunks(self) -> Iterator[bytes]:
        """The whole kept output."""
        size = self.content_size()
        for offset in range(0, size, CONTENT_CHUNK):
            yield self.content(offset, CONTENT_CHUNK)


def _after_gap(run: Run, gap: Gap) -> Run:
    """A run after the gap, with the counts of what is kept."""
    return run._replace(content=run.content - gap.content).counted(gap.without_dropped(run.before))


def counter_of(levels: Collection[int]) -> Callable[[Run], int]:
    """What tells how many entries of these levels are in the log before a run."""
    chosen = _counts_in(levels)
    return chosen if len(levels) == 1 else lambda run: sum(chosen(run))


def counts_before(runs: Iterable[Run], levels: Collection[int]) -> list[int]:
    """What `counter_of` tells of each run."""
    chosen = map(_counts_in(levels), runs)
    return list(chosen if len(levels) == 1 else map(sum, chosen))


def _counts_in(levels: Collection[int]) -> Callable[[Run], Any]:
    """What gives the counts of these levels that a record has: a number where it is one level alone."""
    return itemgetter(*(PLAIN_FIELDS + level - 1 for level in levels))
