"""Pages of a job's log as entries, while it is written or after. Synchronous: meant for a thread."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from jobledger.v1.job_pb2 import LogEntry

from jobledger_server.joblog.entries import Line, decode_entry, gap_line, lines_of, plain_subsystem, text_of
from jobledger_server.joblog.segments import Kind
from jobledger_server.joblog.snapshot import Snapshot, consistently
from jobledger_server.joblog.structured import LEVELS

PAGE_BYTES = 3 * 1024 * 1024


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


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPage:
    """A page.

    Attributes:
        total: entries that the filter admits; `after_sequence` is no filter.
        offset: place of the page's first entry among them, in the order asked for.
    """

    entries: list[LogEntry]
    total: int
    offset: int

    @property
    def has_more(self) -> bool:
        """Whether entries follow this page."""
        return self.offset + len(self.entries) < self.total


class LogReader:
    """A job's log. Every call answers from one consistent moment; a log that doesn't exist yet is empty."""

    def __init__(self, log_dir: Path, job_number: int) -> None:
        self._log_dir = log_dir
        self._job_number = job_number

    def page(self, query: LogQuery) -> LogPage:
        """The entries that `query` asks for.

        Offsets, levels, times and sequences are found by binary search. `subsystem` and `contains` read every entry
        that the rest admits.
        """
        return consistently(self._log_dir, lambda snapshot: _Paging(snapshot, query, self._job_number).page())

    def last_sequence(self) -> int:
        """Number of the last entry, 0 without any."""
        return consistently(self._log_dir, Snapshot.last_sequence)

    def content_size(self) -> int:
        """Bytes of the job's output that are kept."""
        return consistently(self._log_dir, Snapshot.content_size)

    def read_content(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes of the job's output from `offset`, exactly as it wrote them; fewer only at the end."""
        return consistently(self._log_dir, lambda snapshot: snapshot.content(offset, length))


class _Paging:
    """One query on one snapshot. Positions count the entries of the query's levels, from 0, oldest first."""

    def __init__(self, snapshot: Snapshot, query: LogQuery, job_number: int) -> None:
        self._snapshot = snapshot
        self._query = query
        self._job_number = job_number
        self._levels = query.levels or frozenset(LEVELS)
        total = snapshot.total(self._levels)
        self._first = 0 if query.since is None else snapshot.position_of_time(query.since, self._levels)
        self._end = total if query.until is None else snapshot.position_of_time(query.until, self._levels)
        self._end = max(self._first, self._end)
        text = query.contains or ""
        # Where bytes were replaced, the message has a character that the log has not.
        self._needle = b"" if "\ufffd" in text else text.encode("utf-8", "surrogatepass")

    def page(self) -> LogPage:
        if self._query.subsystem is None and self._query.contains is None:
            return self._found()
        return self._searched()

    def _found(self) -> LogPage:
        """A page where every position counts."""
        total = self._end - self._first
        skipped = min(total, self._skipped_by_cursor() + self._query.offset)
        if self._query.descending:
            lines = self._backward(self._first, self._end - skipped)
        else:
            lines = self._forward(self._first + skipped, self._end)
        return LogPage(entries=self._collect(lines), total=total, offset=skipped)

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

    def _searched(self) -> LogPage:
        """A page of the entries that match, all of which are counted."""
        query, page = self._query, []
        before = after = 0
        walk = self._backward if query.descending else self._forward
        for line in walk(self._first, self._end):
            if not self._matches(line):
                continue
            if self._before_cursor(line):
                before += 1
                continue
            if query.offset <= after < query.offset + query.limit:
                page.append(line)
            after += 1
        skipped = before + min(after, query.offset)
        return LogPage(entries=self._collect(iter(page)), total=before + after, offset=skipped)

    def _before_cursor(self, line: Line) -> bool:
        cursor = self._query.after_sequence
        if cursor is None:
            return False
        if self._query.descending:
            return line.sequence >= cursor
        return line.sequence + line.dropped - 1 <= cursor if line.dropped else line.sequence <= cursor

    def _matches(self, line: Line) -> bool:
        subsystem, message = text_of(line)
        wanted, text = self._query.subsystem, self._query.contains
        return (wanted is None or subsystem == wanted) and (text is None or text in message)

    def _collect(self, lines: Iterator[Line]) -> list[LogEntry]:
        entries: list[LogEntry] = []
        size = 0
        for line in islice(lines, self._query.limit):
            entry = decode_entry(self._cursor_view(line), self._job_number)
            size += entry.ByteSize()
            if entries and size > self._query.max_bytes:
                break
            entries.append(entry)
        return entries

    def _cursor_view(self, line: Line) -> Line:
        """A gap as one sees it who has read up to the cursor: what was dropped after it."""
        cursor = self._query.after_sequence
        if not line.dropped or cursor is None or self._query.descending or cursor < line.sequence:
            return line
        return line._replace(sequence=cursor + 1, dropped=line.sequence + line.dropped - cursor - 1)

    # --- walking ---

    def _forward(self, first: int, end: int) -> Iterator[Line]:
        """Entries at the positions from `first` to `end` (excluded), oldest first."""
        position, index = first, -1
        while position < end:
            index = self._step(index, 1, position)
            skip = position - self._snapshot.rank(index, self._levels)
            count = min(self._snapshot[index].entries, skip + end - position)
            yield from self._lines(index, skip, count)
            position += count - skip

    def _backward(self, first: int, end: int) -> Iterator[Line]:
        """Entries at the positions from `first` to `end` (excluded), latest first."""
        position, index = end, -1
        while position > first:
            index = self._step(index, -1, position - 1)
            start = self._snapshot.rank(index, self._levels)
            skip = max(0, first - start)
            yield from reversed(self._lines(index, skip, position - start))
            position = start + skip

    def _step(self, index: int, direction: int, position: int) -> int:
        """Index of the run that holds `position`: mostly the neighbour of the one before."""
        neighbour = index + direction
        if index >= 0 and 0 <= neighbour < len(self._snapshot) and self._snapshot[neighbour].level in self._levels:
            return neighbour
        return self._snapshot.find_position(position, self._levels)

    def _lines(self, index: int, first: int, last: int) -> list[Line]:
        """Entries of a run, from `first` to `last` (excluded); none where it is plain that none matches."""
        run, gap = self._snapshot[index], self._snapshot.gap
        subsystem = plain_subsystem(run)
        if self._query.subsystem is not None and subsystem not in {None, self._query.subsystem}:
            return []
        if gap and run.kind == Kind.GAP:
            return [gap_line(run, gap.entries)]
        data = self._snapshot.run_bytes(index)
        if run.kind != Kind.STRUCTURED and self._needle not in data:
            return []
        return lines_of(run, data, first, last)
