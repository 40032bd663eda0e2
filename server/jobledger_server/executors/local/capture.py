"""What a process says on stdout and stderr, taken into its log. Standard library and `joblog` alone."""

import os
import selectors
import time
from collections.abc import Callable
from functools import partial

from jobledger_server.executors.local.reports import NEVER
from jobledger_server.joblog.segments import Stream
from jobledger_server.joblog.writer import LogTotals, LogWriter

READ_SIZE = 256 * 1024
RETRY_SECONDS, PATIENCE = 0.5, 3.0
# How long the beginning of a line waits for its end before it is shown: a question to a person has none.
SHOW_SECONDS = 1.0
# Programs that think nobody looks write whole blocks of their buffer: a line that one cuts is waited for.
BLOCK = 4096


class Capture:
    """Reads as long as the log takes what is read. Where the disk is full, the job waits.

    Attributes:
        retry_due: when the log is to be tried again, by the monotonic clock; NEVER while it takes what it is given.
        trouble: why the log could not be written, in words; empty while it can.
    """

    def __init__(
        self,
        *,
        stdout: int,
        stderr: int,
        selector: selectors.BaseSelector,
        log: LogWriter,
        grown: Callable[[], None],
    ) -> None:
        """Capture of the descriptors `stdout` and `stderr`, which never block. `grown` hears when the log has more."""
        self._sources = {stdout: Stream.STDOUT, stderr: Stream.STDERR}
        self._selector = selector
        self._log = log
        self._grown = grown
        self._shown_at: dict[Stream, float] = {}
        self.retry_due = NEVER
        self.trouble = ""

    @property
    def open(self) -> bool:
        """Whether the process, or something of it, may still say something."""
        return bool(self._sources)

    def watch(self) -> None:
        """Has the selector tell of what can be read: `data` of its keys is to be called."""
        for source in self._sources:
            self._selector.register(source, selectors.EVENT_READ, lambda source=source: self._read(source))

    def take_line(self, line: bytes) -> bool:
        """Takes a structured line that came another way; False if it is none."""
        taken = True

        def write() -> None:
            nonlocal taken
            taken = self._log.write_control(line)

        self._write(write)
        return taken

    def retry(self, now: float) -> None:
        """Tries again what could not be written, if that is due."""
        if now >= self.retry_due:
            self._write(self._log.flush)

    @property
    def show_due(self) -> float:
        """When an incomplete line is to be shown, by the monotonic clock; NEVER while there is none."""
        return min(self._shown_at.values(), default=NEVER) if self.retry_due == NEVER else NEVER

    def show(self, now: float) -> None:
        """Writes what there is of incomplete lines, where that is due."""
        if now < self.show_due:
            return
        for stream in [stream for stream, due in self._shown_at.items() if now >= due]:
            del self._shown_at[stream]
            self._write(partial(self._log.show, stream))

    def close(self) -> None:
        """Makes all of the log durable, in at most PATIENCE seconds; else `trouble` says why it is not."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                self._log.end()
                self._log.seal()
                return
            except OSError as error:
                self.trouble = f"The end of the log could not be written: {error.strerror}"
                if time.monotonic() > deadline:
                    return
            time.sleep(RETRY_SECONDS)

    def totals(self) -> LogTotals:
        """What the log comes to."""
        return self._log.totals()

    def _read(self, source: int) -> None:
        try:
            chunk = os.read(source, READ_SIZE)
        except BlockingIOError:
            return
        if chunk:
            self._write(lambda: self._log.write(self._sources[source], chunk))
            self._mind_rest(self._sources[source], chunk)
            return
        if source in self._selector.get_map():
            self._selector.unregister(source)
        del self._sources[source]

    def _mind_rest(self, stream: Stream, chunk: bytes) -> None:
        """Settles when the line that `chunk` has not ended is shown: counted from what came first of what is not."""
        if not self._log.holds_back(stream) or len(chunk) % BLOCK == 0:
            self._shown_at.pop(stream, None)
        elif stream not in self._shown_at or b"\n" in chunk:
            self._shown_at[stream] = time.monotonic() + SHOW_SECONDS

    def _write(self, write: Callable[[], object]) -> None:
        """Nothing more is read until the log takes what it was given."""
        try:
            write()
        except OSError as error:
            self.trouble = f"The log could not be written: {error.strerror}"
            if self.retry_due == NEVER:
                for source in self._sources:
                    self._selector.unregister(source)
            self.retry_due = time.monotonic() + RETRY_SECONDS
            return
        if self.retry_due != NEVER:
            self.retry_due, self.trouble = NEVER, ""
            self.watch()
        self._grown()
