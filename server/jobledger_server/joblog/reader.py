"""Pages of a job's log as entries, while it is written or after. Synchronous: meant for a thread."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from operator import add
from pathlib import Path
from typing import NamedTuple, TypeVar

from jobledger.v1.job_pb2 import LogEntry
from jobledger.v1.job_service_pb2 import GetLogsResponse

from jobledger_server.joblog.consistent import consistently
from jobledger_server.joblog.entries import EntryList
from jobledger_server.joblog.pieces import MisfitError, Piece, count_entries
from jobledger_server.joblog.promises import Promise, hold
from jobledger_server.joblog.query import AbandonedError, LogQuery
from jobledger_server.joblog.search import Matcher
from jobledger_server.joblog.segments import DamagedLogError, Kind, Run
from jobledger_server.joblog.snapshot import Snapshot, counter_of, counts_before
from jobledger_server.joblog.structured import LEVELS
from jobledger_server.joblog.wire import wire_entries

__all__ = ["AbandonedError", "LogPage", "LogQuery", "LogReader"]

EVERY_LEVEL = frozenset(LEVELS)
GAP, STRUCTURED = int(Kind.GAP), int(Kind.STRUCTURED)
T = TypeVar("T")
# Structured entries far from each other are the dearest: many at a time are read, if they are not longer than that.
MOST_LONE_BYTES = 4096


@dataclass(frozen=True, kw_only=True)
class LogPage:
    """A page.

    Attributes:
        job_number: whose entries they are.
        pieces: the entries; none is empty.
        total: entries that the filter admits; `after_sequence` is no filter.
        offset: place of the page's first entry among them, in the order asked for.
    """

    job_number: int
    pieces: Sequence[Piece]
    total: int
    offset: int

    @cached_property
    def entries(self) -> Sequence[LogEntry]:
        """The entries as messages."""
        return GetLogsResponse.FromString(b"".join(wire_entries(self.job_number, self.pieces))).logs

    @property
    def has_more(self) -> bool:
        """Whether entries follow this page."""
        return self.offset + count_entries(self.pieces) < self.total


class LogReader:
    """A job's log. Every call answers from one consistent moment; a log that doesn't exist yet is empty.

    Every call raises DamagedLogError where the files are not as they were written. A page ends before that, where it
    has entries before it: the next one raises.
    """

    def __init__(self, log_dir: Path, job_number: int, promise: Promise | None = None) -> None:
        """Reader of the log in `log_dir`, which is final and has to be what `promise` says, where there is one."""
        self._log_dir = log_dir
        self._job_number = job_number
        self._promise = promise

    def _read(self, read: Callable[[Snapshot], T]) -> T:
        def held(snapshot: Snapshot) -> T:
            if self._promise:
                hold(self._log_dir, snapshot, self._promise)
            return read(snapshot)

        return consistently(self._log_dir, held)

    def page(self, query: LogQuery, abandoned: Callable[[], bool] = lambda: False) -> LogPage:
        """The entries that `query` asks for.

        Offsets, levels, times and sequences are found by binary search. A search reads every entry that the rest
        admits; it asks now and then whether it is `abandoned`.

        Raises:
            AbandonedError: it is.
        """
        return self._read(lambda snapshot: _Paging(snapshot, query, self._job_number, abandoned).page())

    def look(self, query: LogQuery, *, is_final: bool) -> tuple[LogPage, int | None]:
        """A page, and the number of the last entry at that moment: None where more entries are to come.

        Args:
            is_final: whether nothing is written to the log any more.
        """

        def look(snapshot: Snapshot) -> tuple[LogPage, int | None]:
            page = _Paging(snapshot, query, self._job_number, lambda: False).page()
            goes_on = page.has_more or (page.pieces and not is_final)
            return page, None if goes_on else snapshot.last_sequence()

        return self._read(look)

    def last_sequence(self) -> int:
        """Number of the last entry, 0 without any."""
        return self._read(Snapshot.last_sequence)

    def content_size(self) -> int:
        """Bytes of the job's output that are kept."""
        return self._read(Snapshot.content_size)

    def dropped_content(self) -> int:
        """Bytes of the job's output that were dropped past the cap."""
        return self._read(lambda snapshot: snapshot.gap.content if snapshot.gap else 0)

    def read_content(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes of the job's output from `offset`, exactly as it wrote them; fewer only at the end."""
        return self._read(lambda snapshot: snapshot.content(offset, length))


class Slice(NamedTuple):
    """Entries in the order asked for. Of each run there is one at least.

    Attributes:
        segment: number of the segment that their runs are in.
        places: of each run, the places of its entries in it, from 0.
    """

    segment: int
    runs: Sequence[Run]
    places: Sequence[Sequence[int]]


class _Paging:
    """One query on one snapshot. Positions count the entries of the query's levels, from 0, oldest first."""

    def __init__(self, snapshot: Snapshot, query: LogQuery, job_number: int, abandoned: Callable[[], bool]) -> None:
        self._snapshot = snapshot
        self._query = query
        self._job_number = job_number
        self._abandoned = abandoned
        self._levels = query.levels or EVERY_LEVEL
        self._count = counter_of(self._levels)
        self._matcher = Matcher(query.subsystem, query.contains)
        total = snapshot.total(self._levels)
        self._first = 0 if query.since is None else snapshot.position_of_time(query.since, self._levels)
        self._end = total if query.until is None else snapshot.position_of_time(query.until, self._levels)
        self._end = max(self._first, self._end)

    def page(self) -> LogPage:
        return self._searched() if self._query.is_search else self._found()

    def _found(self) -> LogPage:
        """A page where every position counts."""
        total = self._end - self._first
        skipped = min(total, self._skipped_by_cursor() + self._query.offset)
        taken = min(self._query.limit, total - skipped)
        first = self._end - skipped - taken if self._query.descending else self._first + skipped
        return self._page(self._slices(first, first + taken), total, skipped)

    def _skipped_by_cursor(self) -> int:
        cursor = self._query.after_sequence
        if cursor is None:
            return 0
        if self._query.descending:
            return max(0, self._end - max(self._first, self._snapshot.position_of_sequence(cursor, self._levels)))
        gap = self._snapshot.gap
        if gap and gap.first_sequence <= cursor < gap.first_sequence + gap.entries - 1:
            # Who has read some of what was dropped since is told of the rest.
            cursor = gap.first_sequence - 1
        return max(0, min(self._end, self._snapshot.position_of_sequence(cursor + 1, self._levels)) - self._first)

    def _page(self, slices: Iterable[Slice], total: int, offset: int) -> LogPage:
        return LogPage(job_number=self._job_number, pieces=self._collect(slices), total=total, offset=offset)

    def _collect(self, slices: Iterable[Slice]) -> list[Piece]:
        entries = EntryList(self._job_number, limit=self._query.limit, max_bytes=self._query.max_bytes)
        try:
            for part in slices:
                self._add(entries, part)
                if entries.is_full:
                    break
        except DamagedLogError:
            # What lies before the damage is an answer; who asks for more is told of it.
            if not entries.pieces:
                raise
        return entries.pieces

    def _add(self, entries: EntryList, part: Slice) -> None:
        try:
            self._add_groups(entries, part)
        except MisfitError:
            raise self._snapshot.damage(part.segment) from None

    def _add_groups(self, entries: EntryList, part: Slice) -> None:
        """Adds what there is room for: structured entries that are alone in their runs together, other runs singly."""
        segment, runs, places = part
        start = 0
        for are_lone, group in groupby(_are_lone(runs)):
            stop = start + len(list(group))
            if are_lone:
                lone = runs[start : min(stop, start + entries.room)]
                entries.add_lone(lone, self._snapshot.lone_bytes(segment, lone))
            else:
                self._add_singly(entries, Slice(segment, runs[start:stop], places[start:stop]))
            if entries.is_full:
                return
            start = stop

    def _add_singly(self, entries: EntryList, part: Slice) -> None:
        for run, places in zip(part.runs, part.places, strict=True):
            if run.kind == GAP:
                entries.add_gap(run, *self._seen_gap())
            else:
                entries.add(run, self._snapshot.run_bytes(part.segment, run), places)
            if entries.is_full:
                return

    def _seen_gap(self) -> tuple[int, int]:
        """The gap as one sees it who has read up to the cursor: first number and count of what was dropped after it."""
        gap, cursor = self._snapshot.gap, self._query.after_sequence
        if gap is None:
            raise LookupError("there is no gap")
        read = 0 if cursor is None or self._query.descending else max(0, cursor + 1 - gap.first_sequence)
        return gap.first_sequence + read, gap.entries - read

    # --- searching ---

    def _searched(self) -> LogPage:
        """A page of the entries that match, all of which are counted."""
        query, page = self._query, list[Slice]()
        before = after = 0
        for segment, runs, places in self._slices(self._first, self._end, passes=self._passes):
            taken: list[tuple[Run, Sequence[int]]] = []
            for run, its in zip(runs, places, strict=True):
                matching = self._matching(segment, run, its)
                following = self._after_cursor(run, matching)
                if chosen := following[max(0, query.offset - after) : max(0, query.offset + query.limit - after)]:
                    taken.append((run, chosen))
                before += len(matching) - len(following)
                after += len(following)
            if taken:
                page.append(Slice(segment, *zip(*taken, strict=True)))
        return self._page(page, before + after, before + min(after, query.offset))

    def _passes(self, stretch: range) -> bool:
        """Whether a stretch of runs is worth a closer look."""
        if self._abandoned():
            raise AbandonedError
        gap = self._snapshot.gap
        if not self._matcher.has_needle or (gap and stretch.start == gap.place):
            return True
        return self._matcher.may_be_in(self._snapshot.stretch_bytes(stretch))

    def _matching(self, segment: int, run: Run, places: Sequence[int]) -> Sequence[int]:
        """The places of those entries that match, in the same order."""
        gap = self._snapshot.gap
        if run.kind == GAP:
            return places if gap and self._matcher.gap(gap.entries) else ()
        data = self._snapshot.run_bytes(segment, run) if self._matcher.needs(run) else b""
        try:
            found = self._matcher.places(run, data)
        except MisfitError:
            raise self._snapshot.damage(segment) from None
        if len(places) < run.entries:
            found = [place for place in found if place in places]
        return found[::-1] if self._query.descending else found

    def _after_cursor(self, run: Run, places: Sequence[int]) -> Sequence[int]:
        cursor, gap = self._query.after_sequence, self._snapshot.gap
        if cursor is None:
            return places
        if self._query.descending:
            return [place for place in places if run.first_sequence + place < cursor]
        dropped = gap.entries - 1 if gap and run.kind == GAP else 0
        return [place for place in places if run.first_sequence + place + dropped > cursor]

    # --- walking ---

    def _slices(self, first: int, end: int, passes: Callable[[range], bool] | None = None) -> Iterator[Slice]:
        """The entries at the positions from `first` to `end` (excluded), in the order asked for.

        Args:
            passes: says which stretches of runs to look at; None for all.
        """
        for stretch, low, high in self._parts(first, end):
            if passes and not passes(stretch):
                continue
            segment, runs = self._snapshot.select(stretch, self._levels)
            if not runs:
                continue
            starts, entries = counts_before(runs, self._levels), [run.entries for run in runs]
            ends = list(map(add, starts, entries))
            if starts[1:] != ends[:-1] or not starts[0] <= low < ends[0] or not starts[-1] < high <= ends[-1]:
                raise self._snapshot.damage(segment)
            places = list(map(range, entries))
            places[0] = places[0][low - starts[0] :]
            places[-1] = places[-1][: len(places[-1]) - (ends[-1] - high)]
            yield self._slice(segment, runs, places)

    def _parts(self, first: int, end: int) -> Iterator[tuple[range, int, int]]:
        """The stretches, and which positions of those asked for are in each: all of them, or the log is damaged."""
        expected = end if self._query.descending else first
        reached = 0
        for stretch in self._stretches(first, end):
            last = self._snapshot[stretch.stop - 1]
            low = max(first, self._count(self._snapshot[stretch.start]))
            high = min(end, self._count(last) + (last.entries if last.level in self._levels else 0))
            begin, following = (high, low) if self._query.descending else (low, high)
            if begin != expected:
                raise self._snapshot.damage_at(stretch.stop if self._query.descending else stretch.start)
            expected = following
            reached = stretch.start if self._query.descending else stretch.stop
            if low < high:
                yield stretch, low, high
        if expected != (first if self._query.descending else end) and first < end:
            raise self._snapshot.damage_at(reached)

    def _slice(self, segment: int, runs: list[Run], places: list[range]) -> Slice:
        """What stands here in the log's order, in the order asked for."""
        if self._query.descending:
            return Slice(segment, runs[::-1], [its[::-1] for its in reversed(places)])
        return Slice(segment, runs, places)

    def _stretches(self, first: int, end: int) -> Iterator[range]:
        """Stretches of runs that hold these positions, in the order asked for."""
        if first >= end or not len(self._snapshot):
            return
        # Where the first runs are lost, the first one that is there comes after the positions.
        low, high = (max(0, self._snapshot.find_position(place, self._levels)) for place in (first, end - 1))
        index = high if self._query.descending else low
        while low <= index <= high:
            stretch = self._snapshot.stretch(index)
            yield range(max(low, stretch.start), min(high + 1, stretch.stop))
            index = stretch.start - 1 if self._query.descending else stretch.stop


def _are_lone(runs: Sequence[Run]) -> list[bool]:
    """Of each run, whether it has one structured entry, and no long one."""
    return [run.entries == 1 and run.kind == STRUCTURED and run.length <= MOST_LONE_BYTES for run in runs]
