"""Hints that something of an attempt has changed, as they come through the server's FIFO."""

import os

# What is longer than any wake is none, however it goes on.
LONGEST_WAKE = 256


class Wakes:
    """Reads hints from a FIFO: lines of a job's id and the number of an attempt. Anybody may write there.

    Attributes:
        rest: the beginning of a line that has not ended yet.
    """

    def __init__(self, fifo: int) -> None:
        """Reads from a descriptor that has something to read whenever `read` is called."""
        self._fifo = fifo
        self.rest = b""

    def read(self) -> set[tuple[str, int]]:
        """The attempts, (job_id, attempt), that there are new hints of."""
        *lines, rest = (self.rest + os.read(self._fifo, 65536)).split(b"\n")
        self.rest = rest[:LONGEST_WAKE]
        named = (line[:LONGEST_WAKE].decode("ascii", "replace").partition(" ") for line in set(lines))
        return {(job_id, int(number)) for job_id, _, number in named if number.isdigit()}
