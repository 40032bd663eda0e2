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
    """One stream of a process. Holds back the incomplete last line, up to 64 KiB of it, unless it is asked for."""

    def __init__(self, stream: Stream) -> None:
        self._level = STREAM_LEVELS[stream]
        self._held = b""
        self._inside_long_line = False

    @property
    def held(self) -> int:
        """Bytes of the incomplete last line that `piece` would give; 0 too where they may become a structured entry."""
        may_be_structured = not self._inside_long_line and self._held.startswith(b"{")
        return 0 if may_be_structured else _whole(self._held)

    def piece(self) -> Iterator[Cut]:
        """What there is of the incomplete last line, as a piece of a line that goes on."""
        size = self.held
        if size:
            piece, self._held = self._held[:size], self._held[size:]
            self._inside_long_line = True
            yield Cut(piece, 1, self._level, Kind.CONTINUED)

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
        """The incomplete last line, if there is one; where all of it was told in pieces, an empty last one."""
        held, self._held = self._held, b""
        if not held and not self._inside_long_line:
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
        end -= _bytes_cut_off(block, end)
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


def _bytes_cut_off(block: bytes, end: int) -> int:
    """How many bytes before `end`, which is inside of `block`, belong to a character that goes on there."""
    return next((back for back in range(4) if block[end - back] & 0xC0 != 0x80), 0)


def _whole(data: bytes) -> int:
    """How many bytes of it there are before a character that its end may have cut off."""
    for back in range(1, min(3, len(data)) + 1):
        byte = data[-back]
        if byte & 0xC0 != 0x80:
            needed = 4 if byte >= 0xF0 else 3 if byte >= 0xE0 else 2 if byte >= 0xC0 else 1
            return len(data) - back if needed > back else len(data)
    return len(data)


def _plain_end(block: bytes, start: int, end: int) -> int:
    """Where the plain lines end that go on from `start`: only lines that begin with a brace are looked at."""
    brace = block.find(b"\n{", start - 1, end)
    while brace >= 0:
        line_end = block.find(b"\n", brace + 1, end)
        if structured_level(block[brace + 1 : line_end]) is not None:
            return brace + 1
        brace = block.find(b"\n{", brace + 1, end)
    return end
