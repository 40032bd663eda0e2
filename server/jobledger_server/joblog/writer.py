"""Appends to a job's log. One writer at a time; it goes on where the one before it stopped. Standard library only.

What was taken is with the kernel before `write` returns: it outlives the death of every process. What a power failure
costs is another matter: a segment is hashed when the next one begins, but nothing is forced to disk before `seal`, at
the end of an attempt, since waiting for the disk would hold up the job. Until then the last half minute or so, what
the kernel had not yet written back, may go; once a job is told to have ended, all of its log is on disk.
"""

import contextlib
import errno
import hashlib
import os
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from jobledger_server.core.durable import sync_path
from jobledger_server.joblog.appending import Segment
from jobledger_server.joblog.resuming import Place, mark, open_end, reached
from jobledger_server.joblog.seals import Ending, is_sealed, last_run, seal_bytes, write_seal
from jobledger_server.joblog.segments import (
    DATA,
    INDEX,
    RECORD,
    SEAL,
    DamagedLogError,
    Kind,
    Run,
    Stream,
    open_regular,
    remove_segment,
    segment_files,
    segment_path,
)
from jobledger_server.joblog.snapshot import Snapshot
from jobledger_server.joblog.splitter import Cut, LineSplitter
from jobledger_server.joblog.structured import ERROR, WARN, structured_level

DEFAULT_CAP = 256 * 1024 * 1024
LARGEST_SEGMENT, SMALLEST_SEGMENT = 8 * 1024 * 1024, 4 * 1024
HEAD_SHARE = 8
EMPTY = hashlib.sha256()


class LogTotals(NamedTuple):
    """What a log came to: entries ever written, SHA-256 (hex) of the output that is kept, warnings and errors.

    Where a part of that output is damaged there is no hash of it: an empty text.
    """

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
        """Opens the log in `log_dir`, which is made when there is something to write: a log may have no files.

        Args:
            cap_bytes: the most that data and index may take together, give or take a segment. Past it the middle is
                dropped: up to an eighth from the start, and the tail, stay. A line that is longer than that is neither
                cut nor kept for its place: it may cost the start.
            now: the time, microseconds since the epoch.
        """
        self._log_dir = log_dir
        self._cap = cap_bytes
        self._segment_bytes = min(LARGEST_SEGMENT, max(SMALLEST_SEGMENT, cap_bytes // 16))
        self._now = now
        self._splitters = {stream: LineSplitter(stream) for stream in (Stream.STDOUT, Stream.STDERR)}
        self._queue: deque[tuple[Run, bytes]] = deque()
        place = open_end(log_dir)
        self._segment, self._sealed = place.segment, False
        self._sizes = place.sizes
        self._unsynced = {number for number, size in self._sizes.items() if size}
        self._resume(place)

    def _resume(self, place: Place) -> None:
        """Takes up numbers and counts where the log ended."""
        self._sequence, self._time, self._content, self._counts = place.ending
        # Of what is written, where all of it was: made when there is something.
        self._digest: hashlib._Hash | None = None
        self._is_hashed = not self._sizes
        self._dropped, self._unmarked = place.dropped, place.unmarked

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

    def holds_back(self, stream: Stream) -> bool:
        """Whether there is a part of a line that `show` would write: none of one that may become a structured entry."""
        return self._splitters[stream].held > 0

    def show(self, stream: Stream) -> None:
        """Writes what there is of the stream's incomplete last line, as a piece of a line that goes on.

        Raises:
            OSError: it could not be written just now.
        """
        for cut in self._splitters[stream].piece():
            self._add(stream, cut)
        self.flush()

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
            self._sequence + 1,
            self._time,
            self._content,
            cut.entries,
            0,
            len(cut.data),
            cut.level,
            stream,
            cut.kind,
            *self._counts,
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
            batch = [] if self._sealed else self._fitting()
            if not batch:
                self._roll()
                continue
            self._segment.append(batch)
            self._sizes[self._segment.number] = self._segment.size
            self._unsynced.add(self._segment.number)
            self._hash(batch)
            for _ in batch:
                self._queue.popleft()
            self._make_room()

    def _fitting(self) -> list[tuple[Run, bytes]]:
        """Waiting runs that the segment takes; at least one entry where it is empty."""
        room = self._segment_bytes - self._segment.size
        self._cut_first(room - RECORD.size)
        batch: list[tuple[Run, bytes]] = []
        for run, data in self._queue:
            room -= RECORD.size + run.length
            if room < 0 and (batch or self._segment.last):
                break
            batch.append((run, data))
        return batch

    def _cut_first(self, room: int) -> None:
        """Cuts the first waiting run between entries where it has more than `room` bytes.

        Segments have their size so, and the head, which is made of whole ones, has its share of a small cap too.
        """
        run, data = self._queue[0]
        if run.length <= room or run.entries == 1:
            return
        end = data.rfind(b"\n", 0, max(room, 0)) + 1
        if not end and not self._segment.last:
            end = data.find(b"\n") + 1
        if 0 < end < run.length:
            first, second = run.cut(end, data.count(b"\n", 0, end))
            self._queue[0] = (second, data[end:])
            self._queue.appendleft((first, data[:end]))

    def _hash(self, batch: list[tuple[Run, bytes]]) -> None:
        if not self._is_hashed:
            return
        self._digest = self._digest or hashlib.sha256()
        for run, data in batch:
            if run.content_length:
                self._digest.update(data)

    def _roll(self) -> None:
        """Goes on in the next segment; this one is final."""
        self._seal_segment()
        try:
            following = Segment(self._log_dir, self._segment.number + 1)
        except DamagedLogError as error:
            raise OSError(errno.EEXIST, str(error)) from error
        self._segment.close()
        self._segment, self._sealed = following, False

    def _seal_segment(self) -> None:
        number = self._segment.number
        if self._segment.last and not self._sealed:
            # Where a job has taken away or replaced our files, that must not hold it up.
            with contextlib.suppress(DamagedLogError, FileNotFoundError):
                write_seal(self._log_dir, number, self._dropped)
            self._sizes[number] += seal_bytes(number)
            self._sealed = True

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
            self._is_hashed = False
            # Under a cap that has become smaller, the end of the head goes too: what was dropped stays one stretch.
            joins = number + 1 >= self._dropped.start
            first = min(number, self._dropped.start or number)
            self._dropped = range(first, max(number + 1, self._dropped.stop))
            if joins and sum(self._sizes.values()) + self._segment_bytes <= self._cap:
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
        entries, counts = self._sequence, self._counts
        if self._queue:
            waiting, _ = self._queue[0]
            entries, counts = waiting.first_sequence - 1, waiting.before
        return LogTotals(entries, self._content_hash(), counts[WARN - 1], counts[ERROR - 1])

    def _content_hash(self) -> str:
        """Hash of the output that is kept: none of one whose files somebody has taken away."""
        files = segment_files(self._log_dir)
        if not all({DATA, INDEX} <= files.get(number, set()) for number, size in self._sizes.items() if size):
            return ""
        return (self._digest or EMPTY).hexdigest() if self._is_hashed else content_hash(self._log_dir)

    def seal(self) -> None:
        """Makes final and durable what was written; what is written after it goes to another segment.

        Raises:
            OSError: it can't be made durable.
        """
        self.flush()
        if not self._sizes:
            # Nothing was ever written, and there may be no directory.
            return
        self._seal_segment()
        for number in sorted(self._unsynced):
            self._make_final(number)
        for number in self._unmarked:
            mark(self._log_dir, number)
        self._unmarked = []
        self._unsynced.clear()
        sync_path(self._log_dir)

    def _make_final(self, number: int) -> None:
        """Has it sealed and on disk, as far as it is there: what is damaged stays as it is."""
        with contextlib.suppress(DamagedLogError, FileNotFoundError):
            if not is_sealed(self._log_dir, number):
                write_seal(self._log_dir, number, self._dropped)
        for suffix in (DATA, INDEX, SEAL):
            path = segment_path(self._log_dir, number, suffix)
            with contextlib.suppress(DamagedLogError, FileNotFoundError):
                os.close(open_regular(path, os.O_RDONLY))
                sync_path(path)

    def close(self) -> None:
        """Closes the files."""
        self._segment.close()


def log_totals(log_dir: Path) -> LogTotals:
    """What a log comes to that somebody may write to, as far as it is stored.

    Raises:
        OSError: it can't be read.
    """
    files = segment_files(log_dir)
    last = max(files, default=0)
    run = None if is_sealed(log_dir, last) else last_run(log_dir, last)
    ending = Ending.of(run) if run else reached(log_dir, last, files)
    return LogTotals(ending.sequence, content_hash(log_dir), ending.counts[WARN - 1], ending.counts[ERROR - 1])


def content_hash(log_dir: Path) -> str:
    """SHA-256 (hex) of the output that a log keeps; an empty text where some of it is damaged."""
    digest = hashlib.sha256()
    try:
        with Snapshot(log_dir) as snapshot:
            for chunk in snapshot.content_chunks():
                digest.update(chunk)
    except (DamagedLogError, FileNotFoundError):
        return ""
    return digest.hexdigest()
