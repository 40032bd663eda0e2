"""Appends to a job's log. One writer at a time; it goes on where the one before it stopped. Standard library only."""

import hashlib
import os
import time
from collections import deque
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from jobledger_server.joblog.segments import Kind, Run, Segment, Stream, remove_orphans, remove_segment, segment_numbers
from jobledger_server.joblog.snapshot import NOTHING, Snapshot
from jobledger_server.joblog.splitter import Cut, LineSplitter
from jobledger_server.joblog.structured import ERROR, WARN, structured_level

DEFAULT_CAP = 256 * 1024 * 1024
LARGEST_SEGMENT, SMALLEST_SEGMENT = 8 * 1024 * 1024, 4 * 1024
HEAD_SHARE = 8


class LogTotals(NamedTuple):
    """What a log came to: entries ever written, SHA-256 (hex) of the output that is kept, warnings and errors."""

    entries: int
    sha256: str
    warnings: int
    errors: int


def wall_clock() -> int:
    """Microseconds since the epoch."""
    return time.time_ns() // 1000


class LogWriter:
    """A log open for appending.

    What can't be written (disk full) is held in memory, in order, and tried again with the next call; the OSError
    comes out each time. Nothing that was passed in is lost while the writer lives.
    """

    def __init__(self, log_dir: Path, cap_bytes: int = DEFAULT_CAP, *, now: Callable[[], int] = wall_clock) -> None:
        """Opens the log in `log_dir`, which is made if need be.

        Args:
            cap_bytes: the most that data and index may take together, give or take a segment. Past it the middle is
                dropped: the first eighth and the tail stay.
            now: the time, microseconds since the epoch.
        """
        log_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._log_dir = log_dir
        self._cap = cap_bytes
        self._segment_bytes = min(LARGEST_SEGMENT, max(SMALLEST_SEGMENT, cap_bytes // 16))
        self._now = now
        self._splitters = {stream: LineSplitter(stream) for stream in (Stream.STDOUT, Stream.STDERR)}
        self._queue: deque[tuple[Run, bytes]] = deque()
        self._sizes: dict[int, int] = {}
        self._unsynced: set[int] = set()
        self._segment = self._open()
        self._resume()

    def _open(self) -> Segment:
        """Opens the last segment that is sound. What follows a torn one can't be trusted and goes."""
        numbers = segment_numbers(self._log_dir) or [1]
        while True:
            number = numbers.pop(0)
            segment = Segment(self._log_dir, number)
            self._sizes[number] = segment.size
            if segment.torn or not numbers:
                break
            segment.close()
        for number in numbers:
            remove_segment(self._log_dir, number)
        remove_orphans(self._log_dir)
        return segment

    def _resume(self) -> None:
        """Takes up numbers and counts from the last run that is stored."""
        last = Snapshot(self._log_dir).last_stored()
        self._sequence = last.end_sequence - 1 if last else 0
        self._counts = last.after() if last else NOTHING
        self._content = last.content + last.content_length if last else 0
        self._time = last.time if last else 0
        self._digest = None if last else hashlib.sha256()

    @property
    def last_sequence(self) -> int:
        """Number of the last entry, 0 without any."""
        return self._sequence

    def write(self, stream: Stream, chunk: bytes) -> None:
        """Takes what was read from stdout or stderr. The incomplete last line waits for its end.

        Raises:
            OSError: it could not be written just now.
        """
        for cut in self._splitters[stream].feed(chunk):
            self._add(stream, cut)
        self.flush()

    def write_control(self, line: bytes) -> bool:
        """Takes a structured line (without newline) that came through the control pipe; False if it is none.

        Raises:
            OSError: it could not be written just now.
        """
        level = structured_level(line)
        if level is None:
            return False
        self._add(Stream.CONTROL, Cut(line + b"\n", 1, level, Kind.STRUCTURED))
        self.flush()
        return True

    def end(self) -> None:
        """Both streams are over: incomplete last lines become entries.

        Raises:
            OSError: they could not be written just now.
        """
        for stream, splitter in self._splitters.items():
            for cut in splitter.end():
                self._add(stream, cut)
        self.flush()

    def _add(self, stream: Stream, cut: Cut) -> None:
        self._time = max(self._time, self._now())
        run = Run(
            first_sequence=self._sequence + 1,
            time=self._time,
            content=self._content,
            entries=cut.entries,
            offset=0,
            length=len(cut.data),
            level=cut.level,
            stream=stream,
            kind=cut.kind,
            before=self._counts,
        )
        self._queue.append((run, cut.data))
        self._sequence += cut.entries
        self._content += run.content_length
        self._counts = run.after()

    def flush(self) -> None:
        """Writes what waits.

        Raises:
            OSError: it could not be written just now.
        """
        while self._queue:
            full = self._segment.size + self._queue[0][0].length > self._segment_bytes
            if full and self._segment.last:
                self._roll()
            batch = self._fitting()
            self._segment.append(batch)
            self._sizes[self._segment.number] = self._segment.size
            self._unsynced.add(self._segment.number)
            self._hash(batch)
            for _ in batch:
                self._queue.popleft()
            self._make_room()

    def _fitting(self) -> list[tuple[Run, bytes]]:
        """Waiting runs that the segment takes; at least one."""
        batch, room = [self._queue[0]], self._segment_bytes - self._segment.size - self._queue[0][0].length
        for run, data in islice(self._queue, 1, None):
            room -= len(data)
            if room < 0:
                break
            batch.append((run, data))
        return batch

    def _hash(self, batch: list[tuple[Run, bytes]]) -> None:
        if self._digest is None:
            return
        for run, data in batch:
            if run.content_length:
                self._digest.update(data)

    def _roll(self) -> None:
        """Goes on in the next segment."""
        following = Segment(self._log_dir, self._segment.number + 1)
        self._segment.close()
        self._segment = following

    def _make_room(self) -> None:
        """Drops the oldest segments after the head until another one fits under the cap."""
        if sum(self._sizes.values()) + self._segment_bytes <= self._cap:
            return
        head = self._head()
        for number in list(self._sizes):
            if number in head or number == self._segment.number:
                continue
            remove_segment(self._log_dir, number)
            del self._sizes[number]
            self._unsynced.discard(number)
            self._digest = None
            if sum(self._sizes.values()) + self._segment_bytes <= self._cap:
                break

    def _head(self) -> set[int]:
        """The first segments, as far as they fit in the head's share of the cap."""
        head, size = set(), 0
        for place, (number, length) in enumerate(self._sizes.items()):
            size += length
            if number != place + 1 or size > self._cap // HEAD_SHARE:
                break
            head.add(number)
        return head

    def totals(self) -> LogTotals:
        """What the log comes to by now, without what waits to be written and incomplete last lines."""
        digest = self._digest
        if digest is None:
            digest = hashlib.sha256()
            for chunk in Snapshot(self._log_dir).content_chunks():
                digest.update(chunk)
        entries, counts = self._sequence, self._counts
        if self._queue:
            waiting, _ = self._queue[0]
            entries, counts = waiting.first_sequence - 1, waiting.before
        return LogTotals(entries, digest.hexdigest(), counts[WARN - 1], counts[ERROR - 1])

    def seal(self) -> None:
        """Makes durable what was written.

        Raises:
            OSError: it can't be made durable.
        """
        for number in sorted(self._unsynced | {self._segment.number}):
            segment = Segment(self._log_dir, number)
            try:
                segment.sync()
            finally:
                segment.close()
        self._unsynced.clear()
        _sync_directory(self._log_dir)

    def close(self) -> None:
        """Closes the files."""
        self._segment.close()


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
