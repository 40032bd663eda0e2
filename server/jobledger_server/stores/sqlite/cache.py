"""Jobs as the last commit left them, in memory, so that what is asked of a job that lives costs no thread.

An entry is what a reader would find in the file, or it is not there. That holds because this process alone writes, and
because of the order in which its one writer goes about a job: it takes the entry out before it changes the row, and
puts the new one in after the commit. Who finds none reads the file.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jobledger.v1.job_pb2 import Artifact

from jobledger_server.core.ports import JobRecord
from jobledger_server.stores.sqlite.rows import record_of

# A job takes about a kilobyte, one with a long command up to the size of a message: that one is read from the file.
MOST_BYTES, MOST_BYTES_OF_JOB = 16 * 1024 * 1024, 64 * 1024
OVERHEAD = 1024


@dataclass(frozen=True, slots=True)
class Entry:
    """A job's row, as `rows.SELECT_RECORDS` has it, and its artifacts by path; None where they are not known here."""

    row: Sequence[Any]
    artifacts: Sequence[bytes] | None

    @property
    def has_no_artifacts(self) -> bool:
        """Whether the job is known to have none."""
        return self.artifacts is not None and not self.artifacts

    @property
    def size(self) -> int:
        """Bytes that it takes, roughly."""
        columns = sum(len(column) for column in self.row if isinstance(column, bytes | str))
        return OVERHEAD + columns + sum(map(len, self.artifacts or ()))


class JobCache:
    """Entries by job_id: the latest to change, as many as there is room for.

    Only the writer's thread changes it; any thread may read.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most = most_bytes
        self._entries: dict[str, Entry] = {}
        self._size = 0

    def record(self, job_id: str) -> JobRecord | None:
        """The record, the caller's own; None: not known here."""
        entry = self._entries.get(job_id)
        return None if entry is None else record_of(entry.row)

    def artifacts(self, job_id: str) -> Sequence[Artifact] | None:
        """The artifacts by path; None: not known here."""
        entry = self._entries.get(job_id)
        if entry is None or entry.artifacts is None:
            return None
        return [Artifact.FromString(data) for data in entry.artifacts]

    def take(self, job_id: str) -> Entry | None:
        """Takes an entry out: its row is about to change."""
        entry = self._entries.pop(job_id, None)
        if entry is not None:
            self._size -= entry.size
        return entry

    def put(self, job_id: str, entry: Entry) -> None:
        """Puts in what was committed. The entries that changed longest ago make room for it."""
        self.take(job_id)
        if entry.size > MOST_BYTES_OF_JOB:
            return
        self._entries[job_id] = entry
        self._size += entry.size
        while self._size > self._most:
            self.take(next(iter(self._entries)))
