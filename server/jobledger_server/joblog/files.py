"""Reading parts of a log's files, with few system calls. Standard library only."""

import os
from collections.abc import Sequence
from itertools import repeat
from pathlib import Path
from types import TracebackType
from typing import Self

from jobledger_server.joblog.checked import CHECKED
from jobledger_server.joblog.seals import Seal, damaged, read_seal
from jobledger_server.joblog.segments import DATA, INDEX, DamagedIndexError, DamagedLogError, open_regular, segment_path

# Who reads on where the last read ended is given from memory what comes next: runs may be as short as a line.
AHEAD = 32 * 1024


class SegmentFiles:
    """The files of a log, open for reading: of data and indexes the one read last stays open until the end.

    A file of a sealed segment is held against its seal before anything of it is read: all of it, once as long as it
    stays as it is. So a page costs the hashes of the segments that it touches, and not of the whole log.
    """

    def __init__(self, log_dir: Path) -> None:
        self._log_dir = log_dir
        self._open: dict[str, tuple[int, int]] = {}
        self._seals: dict[int, Seal | None] = {}
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

    def seal(self, number: int) -> Seal | None:
        """A segment's seal, as it was when it was asked for first."""
        if number not in self._seals:
            self._seals[number] = read_seal(self._log_dir, number)
        return self._seals[number]

    def _descriptor(self, number: int, suffix: str) -> int:
        opened, descriptor = self._open.get(suffix, (0, -1))
        if opened != number:
            following = self._checked(number, suffix)
            if opened:
                os.close(descriptor)
            self._open[suffix] = (number, descriptor := following)
        return descriptor

    def _checked(self, number: int, suffix: str) -> int:
        seal = self.seal(number)
        try:
            descriptor = open_regular(segment_path(self._log_dir, number, suffix), os.O_RDONLY)
            if seal is None or CHECKED.holds(descriptor, seal.hashes[suffix]):
                return descriptor
            os.close(descriptor)
            raise damaged(self._log_dir, number, f"its {suffix.removeprefix('.')} is not what was sealed")
        except DamagedLogError as error:
            if suffix == INDEX and seal:
                raise DamagedIndexError(str(error), number) from error
            raise
