"""A segment that is appended to: the last one of a log, which has no seal yet. Standard library only."""

import errno
import os
from collections.abc import Sequence
from pathlib import Path

from jobledger_server.joblog.segments import (
    DATA,
    INDEX,
    RECORD,
    DamagedLogError,
    Run,
    are_sound,
    open_regular,
    segment_path,
    unpack_run,
)

CLOSED = -1


class Segment:
    """A segment to append to, repaired to what its index covers. Where it has no files yet, the first run makes them.

    Never to be opened for a segment that is sealed.

    Attributes:
        last: its last run, None while it is empty.
    """

    def __init__(self, log_dir: Path, number: int) -> None:
        self.number = number
        self._log_dir = log_dir
        self._data = self._index = CLOSED
        self._data_size = self._index_size = 0
        self.last: Run | None = None
        if segment_path(log_dir, number, INDEX).exists():
            self._open()
            self.last = self._repair()

    def _open(self) -> None:
        self._data = _open_to_write(segment_path(self._log_dir, self.number, DATA))
        try:
            self._index = _open_to_write(segment_path(self._log_dir, self.number, INDEX))
        except (OSError, DamagedLogError):
            self.close()
            raise

    def _make(self) -> None:
        """What an interrupted removal has left in the place of its data is none of it: that is in no index."""
        self._log_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            self._open()
        except DamagedLogError as error:
            raise OSError(errno.EEXIST, str(error)) from error
        self._cut()

    def _repair(self) -> Run | None:
        """Cuts off what an interrupted write left. Returns the last whole run."""
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
        if (data_size, index_size) != (self._data_size, self._index_size):
            self._cut()
        return last

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
    return open_regular(path, os.O_RDWR | os.O_CREAT)


def _write_all(descriptor: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written
