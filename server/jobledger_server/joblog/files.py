"""Reading parts of a log's files, with few system calls. Standard library only."""

import os
import stat
from collections.abc import Sequence
from itertools import repeat
from pathlib import Path
from types import TracebackType
from typing import Self

from jobledger_server.joblog.seals import damaged
from jobledger_server.joblog.segments import DATA, INDEX, DamagedLogError, segment_path

# Who reads on where the last read ended is given from memory what comes next: runs may be as short as a line.
AHEAD = 32 * 1024


class SegmentFiles:
    """The files of a log, open for reading: of data and indexes the one read last stays open until the end."""

    def __init__(self, log_dir: Path) -> None:
        self._log_dir = log_dir
        self._open: dict[str, tuple[int, int]] = {}
        self._held = (0, 0, b"")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for _, descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()

    def index(self, number: int, offset: int, size: int) -> bytes:
        """Bytes of a segment's index.

        Raises:
            FileNotFoundError: the segment was removed.
            DamagedLogError: there are fewer.
        """
        part = self._part(number, INDEX, offset, size)
        if len(part) != size:
            raise damaged(self._log_dir, number, "its index is shorter than it was")
        return part

    def data(self, number: int, offset: int, size: int) -> bytes:
        """Bytes of a segment's data.

        Raises:
            FileNotFoundError: the segment was removed.
            DamagedLogError: there are fewer.
        """
        segment, start, held = self._held
        if segment != number:
            start, held = offset, b""
        at = offset - start
        if at < 0 or at + size > len(held):
            first, last = offset, offset + size
            if held and at == len(held):
                last = max(last, offset + AHEAD)
            elif held and last == start:
                first = max(0, min(first, last - AHEAD))
            held, at = self._part(number, DATA, first, last - first), offset - first
            self._held = (number, first, held)
        part = held[at : at + size]
        if len(part) != size:
            raise damaged(self._log_dir, number, "its data ends before what its index covers")
        return part

    def pieces(self, number: int, offsets: Sequence[int], sizes: Sequence[int]) -> list[bytes]:
        """Bytes of a segment's data at each of these offsets, so many at each: few, and far from each other.

        Raises:
            FileNotFoundError: the segment was removed.
            DamagedLogError: there are fewer.
        """
        parts = list(map(os.pread, repeat(self._descriptor(number, DATA)), sizes, offsets))
        if sum(map(len, parts)) != sum(sizes):
            raise damaged(self._log_dir, number, "its data ends before what its index covers")
        return parts

    def _part(self, number: int, suffix: str, offset: int, size: int) -> bytes:
        """What there is of these bytes. Not more is asked for than there is: a damaged index may ask for anything."""
        descriptor = self._descriptor(number, suffix)
        if size > AHEAD or size < 0:
            size = max(0, min(size, os.fstat(descriptor).st_size - offset))
        return os.pread(descriptor, size, offset)

    def _descriptor(self, number: int, suffix: str) -> int:
        opened, descriptor = self._open.get(suffix, (0, -1))
        if opened != number:
            following = _open(segment_path(self._log_dir, number, suffix))
            if opened:
                os.close(descriptor)
            self._open[suffix] = (number, descriptor := following)
        return descriptor


def _open(path: Path) -> int:
    """Opens a file without waiting for anybody: where nothing isolates a job it may have put a FIFO in its place."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise DamagedLogError(f"{path} is not a file any more: restore it from a backup")
    return descriptor
