"""Cuts a stream of bytes into runs of entries, without a step for each line. Standard library only."""

from collections.abc import Iterator
from typing import NamedTuple

from jobledger_server.joblog.segments import STREAM_LEVELS, Kind, Stream
from jobledger_server.joblog.structured import structured_level

# Longest line that is one entry, without its newline; and the most that a run holds.
MAX_LINE = 64 * 1024


class Cut(NamedTuple):
    """Bytes of whole entries that belong together."""

    data: bytes
    entries: int
    level: int
    kind: Kind


class LineSplitter:
    """One stream of a process. Holds back the incomplete last line, up to 64 KiB of it."""

    def __init__(self, stream: Stream) -> None:
        self._level = STREAM_LEVELS[stream]
        self._held = b""
        self._inside_long_line = False

    def feed(self, chunk: bytes) -> Iterator[Cut]:
        """The entries that `chunk` completes. To be used up before the next call."""
        block = self._held + chunk
        end = block.rfind(b"\n") + 1
        self._held = block[end:]
        position = 0
        while position < end:
            cut = self._next(block, position, end)
            position += len(cut.data)
            yield cut
        while len(self._held) > MAX_LINE:
            cut = self._piece(self._held, 0)
            self._held = self._held[len(cut.data) :]
            yield cut

    def end(self) -> Iterator[Cut]:
        """The incomplete last line, if there is one."""
        held, self._held = self._held, b""
        if not held:
            return
        level = None if self._inside_long_line else structured_level(held)
        kind = Kind.LAST_PIECE if self._inside_long_line else Kind.STRUCTURED if level else Kind.PLAIN
        self._inside_long_line = False
        yield Cut(held, 1, level or self._level, kind)

    def _next(self, block: bytes, start: int, end: int) -> Cut:
        """The run that begins at `start`; `block` has whole lines up to `end`."""
        line_end = block.find(b"\n", start, min(end, start + MAX_LINE + 1)) + 1
        if not line_end:
            return self._piece(block, start)
        if self._inside_long_line:
            self._inside_long_line = False
            return Cut(block[start:line_end], 1, self._level, Kind.LAST_PIECE)
        level = structured_level(block[start : line_end - 1])
        if level is not None:
            line_end = self._same_level(block, line_end, min(end, start + MAX_LINE), level)
            return self._cut(block, start, line_end, level, Kind.STRUCTURED)
        limit = block.rfind(b"\n", start, min(end, max(line_end, start + MAX_LINE))) + 1
        return self._cut(block, start, _plain_end(block, line_end, limit), self._level, Kind.PLAIN)

    def _piece(self, block: bytes, start: int) -> Cut:
        """The next 64 KiB of a line that is longer, cut between characters where that can be."""
        self._inside_long_line = True
        end = start + MAX_LINE
        for back in range(4):
            if block[end - back] & 0xC0 != 0x80:
                end -= back
                break
        return Cut(block[start:end], 1, self._level, Kind.CONTINUED)

    @staticmethod
    def _same_level(block: bytes, start: int, end: int, level: int) -> int:
        """End of the structured lines of that level from `start`."""
        line_end = block.find(b"\n", start, end) + 1
        while line_end and structured_level(block[start : line_end - 1]) == level:
            start, line_end = line_end, block.find(b"\n", line_end, end) + 1
        return start

    @staticmethod
    def _cut(block: bytes, start: int, end: int, level: int, kind: Kind) -> Cut:
        return Cut(block[start:end], block.count(b"\n", start, end), level, kind)


def _plain_end(block: bytes, start: int, end: int) -> int:
    """Where the plain lines end that go on from `start`: only lines that begin with a brace are looked at."""
    brace = block.find(b"\n{", start - 1, end)
    while brace >= 0:
        line_end = block.find(b"\n", brace + 1, end)
        if structured_level(block[brace + 1 : line_end]) is not None:
            return brace + 1
        brace = block.find(b"\n{", brace + 1, end)
    return end
