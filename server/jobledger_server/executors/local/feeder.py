"""Feeds a job's standard input: what it starts with, then follow-ups in order. Standard library only."""

import fcntl
import os
import sys
import termios
from collections import deque

from jobledger_server.executors.local.control_dir import ControlDir, FollowUp

# As much as a pipe takes, mostly.
CHUNK = 64 * 1024


class Feeder:
    """The write end of a job's standard input, without ever waiting for the job to read.

    Of the follow-ups it has in memory what it writes next, and no more: the others are read when the pipe takes them.

    Attributes:
        descriptor: the pipe; None once it is closed.
    """

    def __init__(self, control: ControlDir, descriptor: int, initial: bytes, *, keep_open: bool) -> None:
        os.set_blocking(descriptor, False)
        self._control = control
        self._keep_open = keep_open
        # What is written next. What comes then is at `_offset` of the queue: the rest of a follow-up, or another one.
        self._next = memoryview(initial)
        self._offset = 0
        self._follow_up: FollowUp | None = None
        self._taken = self._told = self._written = 0
        # Follow-ups that are in the pipe: where each one ends, in bytes written so far.
        self._given: deque[int] = deque()
        self.descriptor: int | None = descriptor
        if keep_open:
            # Made now, so that it can be changed on a full disk.
            control.acknowledge(0)

    @property
    def wants_write(self) -> bool:
        """Whether there is something to write that the pipe did not take."""
        return self.descriptor is not None and bool(self._next)

    @property
    def unread(self) -> bool:
        """Whether there are follow-ups in the pipe, or it could not be told that there are none."""
        return bool(self._given) or self._told < self._taken

    def write(self) -> None:
        """Writes what there is by now, and the pipe takes."""
        try:
            while self.descriptor is not None and (self._next or self._read_on()):
                written = os.write(self.descriptor, self._next)
                self._written += written
                self._next = self._next[written:]
        except BlockingIOError:
            pass
        except BrokenPipeError:
            self.close()
            self._control.close_input()

    def count_read(self) -> bool:
        """Returns whether the process has taken follow-ups since the last call: read them, or had them as its last.

        Where that can't be told just now, the next call tries again.
        """
        read = self._written - self._in_pipe()
        while self._given and self._given[0] <= read:
            self._given.popleft()
            self._taken += 1
        if self._told == self._taken:
            return False
        try:
            self._control.acknowledge(self._taken)
        except OSError:
            return False
        self._told = self._taken
        return True

    def _in_pipe(self) -> int:
        """Bytes that nobody has read yet. Of a pipe that was closed that can't be told any more: none."""
        if self.descriptor is None or not self._given:
            return 0
        count = bytearray(4)
        fcntl.ioctl(self.descriptor, termios.FIONREAD, count)
        return int.from_bytes(count, sys.byteorder)

    def _read_on(self) -> bool:
        """Reads what is written next. Returns False where there is nothing by now, or never more: then it is closed."""
        while self._follow_up is None or self._offset == self._follow_up.end:
            if not self._go_to_next():
                return False
        self._next = memoryview(self._control.read_input(self._offset, min(CHUNK, self._follow_up.end - self._offset)))
        self._offset += len(self._next)
        return bool(self._next)

    def _go_to_next(self) -> bool:
        """Goes to the follow-up that comes next. Returns False where there is none."""
        if self._follow_up is not None:
            self._given.append(self._written)
            self._keep_open = not self._follow_up.close
            self._follow_up = None
        if not self._keep_open:
            self.close()
            return False
        self._follow_up = next(self._control.follow_ups(self._offset), None)
        if self._follow_up is not None:
            self._offset = self._follow_up.start
        return self._follow_up is not None

    def close(self) -> None:
        """Ends the input."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None
