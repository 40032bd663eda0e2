"""Copies of logs in two passes, so that what goes in between is there all the same.

The first is made before the database is copied, of all logs that are there; the second after it, of those that have
changed since. A log that a sweep or DeleteJob removes meanwhile is there from the first pass.
"""

import os
import shutil
import stat
from collections.abc import Collection
from pathlib import Path
from typing import TypeAlias

from jobledger_server.core.ids import is_job_id
from jobledger_server.offline.copying import copy_tree

# Attempts to copy a log that changes meanwhile: one that is being sealed is quiet the next moment.
ATTEMPTS = 3
# What can be seen of the files of a log without reading them.
State: TypeAlias = int


class LogCopies:
    """The logs of an installation in the directory of a copy.

    Attributes:
        bytes: of what was copied, and is there.
    """

    def __init__(self, source: Path, target: Path) -> None:
        self._source = source
        self._target = target
        self._copied: dict[str, State] = {}
        self._bytes: dict[str, int] = {}

    @property
    def bytes(self) -> int:
        return sum(self._bytes.values())

    def copy_all(self) -> None:
        """Copies every log that is there."""
        with os.scandir(self._source) as entries:
            names = [entry.name for entry in entries if is_job_id(entry.name)]
        for job_id in names:
            self.copy(job_id)

    def copy(self, job_id: str) -> bool:
        """Copies a log, unless it has been copied as it is now. Whether the copy is now as it was at one moment.

        What grows all the time, or is removed, is left as the pass before had it, or as far as it was seen.
        """
        source, target, fresh = self._source / job_id, self._target / job_id, self._target / f".{job_id}"
        for _ in range(ATTEMPTS):
            before = _state(source)
            if before is None:
                return False
            if self._copied.get(job_id) == before:
                return True
            size = copy_tree(source, fresh)
            if _state(source) == before:
                self._replace(job_id, fresh, target, size)
                self._copied[job_id] = before
                return True
            if not target.exists():
                self._replace(job_id, fresh, target, size)
            shutil.rmtree(fresh, ignore_errors=True)
        return False

    def is_there(self, job_id: str) -> bool:
        """Whether it was copied as it was at one moment."""
        return job_id in self._copied

    def keep(self, job_ids: Collection[str]) -> None:
        """Removes the copies of all others: their jobs, or their logs, were gone when the database was copied."""
        for job_id in self._bytes.keys() - set(job_ids):
            shutil.rmtree(self._target / job_id)
            del self._bytes[job_id]
            self._copied.pop(job_id, None)

    def _replace(self, job_id: str, fresh: Path, target: Path, size: int) -> None:
        shutil.rmtree(target, ignore_errors=True)
        fresh.rename(target)
        self._bytes[job_id] = size


def _state(source: Path) -> State | None:
    """None where there is no such directory, or a link is in its place."""
    found = []
    try:
        if source.is_symlink():
            return None
        for directory, _, names in os.walk(source, onerror=_raise):
            for name in names:
                status = os.lstat(f"{directory}/{name}")
                if stat.S_ISREG(status.st_mode):
                    found.append((directory, name, status.st_size, status.st_mtime_ns, status.st_ino))
    except FileNotFoundError:
        return _state(source) if source.exists() else None
    return hash(tuple(sorted(found)))


def _raise(error: OSError) -> None:
    raise error
