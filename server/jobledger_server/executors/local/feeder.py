"""Feeds a job's standard input: what it starts with, then follow-ups in order. Standard library only."""

import fcntl
import os
import sys
import termios
from collections import deque
from typing import NamedTuple

from jobledger_server.executors.local.control_dir import ControlDir


class Portion(NamedTuple):
    """Bytes to write. `follow_up`: counts among the follow-ups; `close`: the input ends after them."""

    data: memoryview
    follow_up: bool
    close: bool


class Feeder:
    """The write end of a job's standard input, without ever waiting for the job to read.

    Attributes:
        descriptor: the pipe; None once it is closed.
    """

    def __init__(self, control: ControlDir, descriptor: int, initial: bytes, *, keep_open: bool) -> None:
        os.set_blocking(descriptor, False)
        self._control = control
        self._keep_open = keep_open
        self._offset = 0
        self._taken = self._written = 0
        # Follow-ups that are in the pipe: where each one ends, in bytes written so far.
        self._given: deque[int] = deque()
        self._waiting = deque([Portion(memoryview(initial), follow_up=False, close=not keep_open)])
        self.descriptor: int | None = descriptor
        if keep_open:
            # Made now, so that it can be changed on a full disk.
            control.acknowledge(0)

    @property
    def wants_write(self) -> bool:
        """Whether there is something to write."""
        return self.descriptor is not None and bool(self._waiting)

    def look(self) -> None:
        """Takes up follow-ups that came since the last look."""
        if not self._keep_open or self.descriptor is None:
            return
        for end, data, close in self._control.inputs(self._offset):
            self._offset = end
            self._waiting.append(Portion(memoryview(data), follow_up=True, close=close))

    @property
    def unread(self) -> bool:
        """Whether there are follow-ups in the pipe."""
        return bool(self._given)

    def write(self) -> None:
        """Writes what the pipe takes."""
        try:
            while self.descriptor is not None and self._waiting:
                self._write_portion(self.descriptor)
        except BlockingIOError:
            pass
        except BrokenPipeError:
            self.close()
            self._control.close_input()

    def count_read(self) -> bool:
        """Returns whether the process has taken follow-ups since the last call: read them, or had them as its last."""
        read = self._written - self._in_pipe()
        taken = self._taken
        while self._given and self._given[0] <= read:
            self._given.popleft()
            self._taken += 1
        if self._taken > taken:
            self._control.acknowledge(self._taken)
        return self._taken > taken

    def _in_pipe(self) -> int:
        """Bytes that nobody has read yet. Of a pipe that was closed that can't be told any more: none."""
        if self.descriptor is None or not self._given:
            return 0
        count = bytearray(4)
        fcntl.ioctl(self.descriptor, termios.FIONREAD, count)
        return int.from_bytes(count, sys.byteorder)

    def _write_portion(self, descriptor: int) -> None:
        portion = self._waiting[0]
        rest = portion.data
        while rest:
            written = os.write(descriptor, rest)
            self._written += written
            rest = rest[written:]
            self._waiting[0] = portion._replace(data=rest)
        self._waiting.popleft()
        if portion.follow_up:
            self._given.append(self._written)
        if portion.close:
            self.close()

    def close(self) -> None:
        """Ends the input."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None
