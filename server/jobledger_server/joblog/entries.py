"""Entries that are collected for an answer, as many as it takes."""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from jobledger_server.joblog.pieces import Lines, Piece, gap_piece, lone_piece, piece_of
from jobledger_server.joblog.plain_json import json_items
from jobledger_server.joblog.segments import Run
from jobledger_server.joblog.wire import wire_entries

# The most that bytes of a log grow by as a message (`[0,0,0]`, as values of a Struct), and what an entry has beside.
MOST_GROWTH, MOST_FRAME = 8, 512
# Of a plain line: what its entry has beside the message as JSON, at most; and the bytes that take up to six there.
JSON_FRAME, JSON_ESCAPE = 256, 6
ESCAPED = bytes(range(32)) + b'"\\'
# JSON may be as many times as long as a message. REST has no limit of its own, and shows more around each entry.
JSON_SHARE = 2


class EntryList:
    """Entries within a number of them, of bytes as a message, and of twice as many as JSON.

    Both are held whatever is asked for: the same page goes out at either door.

    Attributes:
        pieces: what is collected.
        room: how many more it takes.
    """

    def __init__(self, job_number: int, *, limit: int, max_bytes: int) -> None:
        self.pieces: list[Piece] = []
        self._job_number = job_number
        self.room = limit
        self._max_bytes = max_bytes
        # Measuring takes time: until this bound passes `max_bytes` there is no need.
        self._bound = 0
        self._measured_pieces = self._measured_bytes = self._measured_json = 0

    @property
    def is_full(self) -> bool:
        return self.room <= 0

    def add(self, run: Run, data: bytes, places: Sequence[int]) -> None:
        """Adds entries of a run.

        Args:
            data: the bytes of the run.
            places: which of its entries, from 0, in the order of the answer.

        Raises:
            MisfitError: the bytes are not what the run says.
        """
        places = places[: self.room]
        self._add(piece_of(run, data, places), len(places), run.length)

    def add_lone(self, runs: Sequence[Run], lines: Sequence[bytes]) -> None:
        """Adds structured entries that are the only ones of their runs; `lines` has the bytes of each.

        Raises:
            MisfitError: the bytes are not what the runs say.
        """
        self._add(lone_piece(runs, lines), len(runs), sum(map(len, lines)))

    def add_gap(self, run: Run, first_sequence: int, dropped: int) -> None:
        """Adds the entry that stands for `dropped` ones from `first_sequence` on."""
        self._add(gap_piece(run, first_sequence, dropped), 1, 0)

    def _add(self, piece: Piece, count: int, length: int) -> None:
        self.pieces.append(piece)
        self.room -= count
        self._bound += length * MOST_GROWTH + count * MOST_FRAME
        if self._bound > self._max_bytes:
            self._hold_limit()

    def _hold_limit(self) -> None:
        """Takes back what passes `max_bytes`, but for the first entry."""
        for place in range(self._measured_pieces, len(self.pieces)):
            piece = self.pieces[place]
            sizes = list(accumulate(map(len, wire_entries(self._job_number, [piece]))))
            plain = list(accumulate(_json_sizes(self._job_number, piece)))
            kept = bisect_right(sizes, self._max_bytes - self._measured_bytes)
            kept = min(kept, bisect_right(plain, self._max_bytes * JSON_SHARE - self._measured_json)) or int(place == 0)
            if kept < len(sizes):
                self.pieces[place:] = [piece.first(kept)] if kept else []
                self.room = 0
                return
            self._measured_bytes += sizes[-1]
            self._measured_json += plain[-1]
        self._measured_pieces = len(self.pieces)
        self._bound = max(self._measured_bytes, self._measured_json // JSON_SHARE)


def _json_sizes(job_number: int, piece: Piece) -> list[int]:
    """Bytes of each entry as JSON; of plain lines, at most."""
    if not isinstance(piece, Lines):
        return [len(item) + 1 for item in json_items(job_number, [piece])]
    return [
        JSON_FRAME + JSON_ESCAPE * len(message) - (JSON_ESCAPE - 1) * len(message.translate(None, ESCAPED))
        for message in piece.messages
    ]
