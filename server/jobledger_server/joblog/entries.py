"""Entries that are collected for an answer, as many as it takes."""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from jobledger_server.joblog.pieces import Piece, gap_piece, lone_piece, piece_of
from jobledger_server.joblog.segments import Run
from jobledger_server.joblog.wire import wire_entries

# The most that bytes of a log grow by as a message (`[0,0,0]`, as values of a Struct), and what an entry has beside.
MOST_GROWTH, MOST_FRAME = 8, 512


class EntryList:
    """Entries within a number of them, and of bytes as a message.

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
        self._measured_pieces = self._measured_bytes = 0

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
            kept = bisect_right(sizes, self._max_bytes - self._measured_bytes) or int(place == 0)
            if kept < len(sizes):
                self.pieces[place:] = [piece.first(kept)] if kept else []
                self.room = 0
                return
            self._measured_bytes += sizes[-1]
        self._measured_pieces, self._bound = len(self.pieces), self._measured_bytes
