"""Pages of a job's log as entries, while it is written or after. Synchronous: meant for a thread."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from google.protobuf.internal.containers import RepeatedCompositeFieldContainer
from jobledger.v1.job_pb2 import LogEntry
from jobledger.v1.job_service_pb2 import GetLogsResponse

from jobledger_server.joblog.entries import EntryList, MisfitError
from jobledger_server.joblog.search import Matcher
from jobledger_server.joblog.segments import Kind, Run
from jobledger_server.joblog.snapshot import Snapshot, consistently, count_of
from jobledger_server.joblog.structured import LEVELS

PAGE_BYTES = 3 * 1024 * 1024
EVERY_LEVEL = frozenset(LEVELS)


class AbandonedError(Exception):
    """Nobody waits for the answer any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogQuery:
    """Which entries, and which page of them.

    Attributes:
        offset: entries to skip; `limit`: most entries in the page.
        levels: any of these; empty means all.
        subsystem: exactly this one.
        since: captured at or after, microseconds since the epoch; `until`: before.
        contains: the message contains this text, case and all.
        descending: latest first.
        after_sequence: only entries after this number, or before it where `descending`; `offset` counts from there.
        max_bytes: where the page would grow past this it ends, but has one entry at least.
    """

    offset: int = 0
    limit: int = 1000
    levels: frozenset[int] = frozenset()
    subsystem: str | None = None
    since: int | None = None
    until: int | None = None
    contains: str | None = None
    descending: bool = False
    after_sequence: int | None = None
    max_bytes: int = PAGE_BYTES

    @property
    def is_search(self) -> bool:
        """Whether it takes reading all that the rest admits, rather than a look at the index."""
        return self.subsystem is not None or self.contains is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPage:
    """A page.

    Attributes:
        answer: has the entries, and nothing else yet.
        total: entries that the filter admits; `after_sequence` is no filter.
        offset: place of the page's first entry among them, in the order asked for.
    """

    answer: GetLogsResponse
    total: int
    offset: int

    @property
    def entries(self) -> RepeatedCompositeFieldContainer[LogEntry]:
        """The page's entries."""
        return self.answer.logs

    @property
    def has_more(self) -> bool:
        """Whether entries follow this page."""
        return self.offset + len(self.entries) < self.total


class LogReader:
    """A job's log. Every call answers from one consistent moment; a log that doesn't exist yet is empty.

    Every call raises DamagedLogError where the files are not as they were written.
    """

    def __init__(self, log_dir: Path, job_number: int) -> None:
        self._log_dir = log_dir
        self._job_number = job_number

    def page(self, query: LogQuery, abandoned: Callable[[], bool] = lambda: False) -> LogPage:
        """The entries that `query` asks for.

        Offsets, levels, times and sequences are found by binary search. A search reads every entry that the rest
        admits; it asks now and then whether it is `abandoned`.

        Raises:
            AbandonedError: it is.
        """
        return consistently(
            self._log_dir, lambda snapshot: _Paging(snapshot, query, self._job_number, abandoned).page()
        )

    def last_sequence(self) -> int:
        """Number of the last entry, 0 without any."""
        return consistently(self._log_dir, Snapshot.last_sequence)

    def content_size(self) -> int:
        """Bytes of the job's output that are kept."""
        return consistently(self._log_dir, Snapshot.content_size)

    def read_content(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes of the job's output from `offset`, exactly as it wrote them; fewer only at the end."""
        return consistently(self._log_dir, lambda snapshot: snapshot.content(offset, length))


class Slice(NamedTuple):
    """Entries of a run in a segment: their places in the run, from 0, in the order asked for."""

    segment: int
    run: Run
    places: Sequence[int]


class _Paging:
    """One query on one snapshot. Positions count the entries of the query's levels, from 0, oldest first."""

    def __init__(self, snapshot: Snapshot, query: LogQuery, job_number: int, abandoned: Callable[[], bool]) -> None:
        self._snapshot = snapshot
        self._query = query
        self._job_number = job_number
        self._abandoned = abandoned
        self._levels = query.levels or EVERY_LEVEL
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
        if self._query.descending:
            slices = self._slices(self._first, self._end - skipped)
        else:
            slices = self._slices(self._first + skipped, self._end)
        return LogPage(answer=self._collect(slices), total=total, offset=skipped)

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

    def _collect(self, slices: Iterable[Slice]) -> GetLogsResponse:
        entries = EntryList(self._job_number, limit=self._query.limit, max_bytes=self._query.max_bytes)
        for piece in slices:
            if piece.run.kind == Kind.GAP:
                entries.add_gap(piece.run, *self._seen_gap())
            else:
                data = self._snapshot.run_bytes(piece.segment, piece.run)
                try:
                    entries.add(piece.run, data, piece.places)
                except MisfitError:
                    raise self._snapshot.damage(piece.segment) from None
            if entries.is_full:
                break
        return entries.answer

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
        query, page = self._query, []
        before = after = 0
        for piece in self._slices(self._first, self._end, passes=self._passes):
            matching = self._matching(piece)
            following = self._after_cursor(piece.run, matching)
            taken = following[max(0, query.offset - after) : max(0, query.offset + query.limit - after)]
            if taken:
                page.append(Slice(piece.segment, piece.run, taken))
            before += len(matching) - len(following)
            after += len(following)
        return LogPage(answer=self._collect(page), total=before + after, offset=before + min(after, query.offset))

    def _passes(self, stretch: range) -> bool:
        """Whether a stretch of runs is worth a closer look."""
        if self._abandoned():
            raise AbandonedError
        gap = self._snapshot.gap
        if not self._matcher.has_needle or (gap and stretch.start == gap.place):
            return True
        return self._matcher.may_be_in(self._snapshot.stretch_bytes(stretch))

    def _matching(self, piece: Slice) -> Sequence[int]:
        """The places of those entries that match, in the same order."""
        run, gap = piece.run, self._snapshot.gap
        if run.kind == Kind.GAP:
            return piece.places if gap and self._matcher.gap(gap.entries) else ()
        data = self._snapshot.run_bytes(piece.segment, run) if self._matcher.needs(run) else b""
        try:
            found = self._matcher.places(run, data)
        except MisfitError:
            raise self._snapshot.damage(piece.segment) from None
        if len(piece.places) < run.entries:
            found = [place for place in found if place in piece.places]
        return found[::-1] if self._query.descending else found

    def _after_cursor(self, run: Run, places: Sequence[int]) -> Sequence[int]:
        cursor, gap = self._query.after_sequence, self._snapshot.gap
        if cursor is None:
            return places
        if self._query.descending:
            return [place for place in places if run.first_sequence + place < cursor]
        dropped = gap.entries - 1 if gap and run.kind == Kind.GAP else 0
        return [place for place in places if run.first_sequence + place + dropped > cursor]

    # --- walking ---

    def _slices(self, first: int, end: int, passes: Callable[[range], bool] | None = None) -> Iterator[Slice]:
        """The entries at the positions from `first` to `end` (excluded), in the order asked for.

        Args:
            passes: says which stretches of runs to look at; None for all.
        """
        backward, expected = self._query.descending, None
        for stretch in self._stretches(first, end):
            if passes and not passes(stretch):
                expected = None
                continue
            segment, runs = self._snapshot.select(stretch, self._levels)
            for run in reversed(runs) if backward else runs:
                start = count_of(run.before, self._levels)
                low, high = max(first, start), min(end, start + run.entries)
                if low >= high or expected not in {None, high if backward else low}:
                    raise self._snapshot.damage(segment)
                expected = low if backward else high
                places = range(low - start, high - start)
                yield Slice(segment, run, places[::-1] if backward else places)

    def _stretches(self, first: int, end: int) -> Iterator[range]:
        """Stretches of runs that hold these positions, in the order asked for."""
        if first >= end:
            return
        low, high = (self._snapshot.find_position(position, self._levels) for position in (first, end - 1))
        index = high if self._query.descending else low
        while low <= index <= high:
            stretch = self._snapshot.stretch(index)
            yield range(max(low, stretch.start), min(high + 1, stretch.stop))
            index = stretch.start - 1 if self._query.descending else stretch.stop
