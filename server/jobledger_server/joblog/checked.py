"""Which files were found to be what their seals say, so that each is hashed once. Standard library only."""

import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Hashable
from pathlib import Path
from typing import Generic, TypeVar

from jobledger_server.joblog.segments import DATA, INDEX, SEAL

MOST_FILES = 16_384

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
# Of a file, what changes when its bytes do: device, inode, bytes, and the times of the last changes, nanoseconds.
Identity = tuple[int, int, int, int, int]


class Remembered(Generic[K, V]):
    """The values used last, by their keys. Safe to use from several threads."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._values: OrderedDict[K, V] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: K) -> V | None:
        """The value, where it is kept."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def put(self, key: K, value: V) -> None:
        """Keeps a value, at the cost of the one that nobody has asked for the longest."""
        with self._lock:
            self._values[key] = value
            while len(self._values) > self._most:
                self._values.popitem(last=False)


class Checked:
    """What was found of files, as long as they stay as they are."""

    def __init__(self, most_files: int = MOST_FILES) -> None:
        self._found: Remembered[tuple[Identity, str], bool] = Remembered(most_files)

    def holds(self, descriptor: int, digest: str) -> bool:
        """Whether an open file has this SHA-256 (hex). Reads all of it the first time: 8 MiB take some 10 ms."""
        key = (identity(os.fstat(descriptor)), digest)
        found = self._found.get(key)
        if found is not None:
            return found
        with os.fdopen(os.dup(descriptor), "rb") as file:
            file.seek(0)
            holds = hashlib.file_digest(file, "sha256").hexdigest() == digest
        if identity(os.fstat(descriptor)) == key[0]:
            self._found.put(key, holds)
        return holds


def fingerprint(log_dir: Path) -> tuple[tuple[str, Identity], ...]:
    """Name and identity of each file of a log; none without such a directory. Takes 1 us a file or two."""
    try:
        with os.scandir(log_dir) as entries:
            files = [entry for entry in entries if entry.name.endswith((DATA, INDEX, SEAL))]
            return tuple(sorted((entry.name, identity(entry.stat(follow_symlinks=False))) for entry in files))
    except (FileNotFoundError, NotADirectoryError):
        return ()


def identity(status: os.stat_result) -> Identity:
    """What tells a file, and the state that it is in."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


# One for the process: a page, a tail and a search meet the same files.
CHECKED = Checked()
