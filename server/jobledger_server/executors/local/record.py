"""What a supervisor says in `started.json`: that it begins, what it has started, and at last how that ended.

All of its room is taken when it begins. What is said later is written in place, which takes no room and one flush; the
end has a checksum, so that one that is not whole counts as not said. Standard library only.
"""

import json
import os
import zlib
from pathlib import Path
from typing import Any

from jobledger_server.core.durable import sync_path

# The first part has all that is said at the start, the rest is for the end.
START_BYTES, BYTES = 1024, 4096
# Of the first part: what a control group's path may take, so that there is room for the rest.
MOST_NAMED = 640

# Nothing but the content changes.
SYNC = getattr(os, "fdatasync", os.fsync)


class Record:
    """The record of an attempt, open for writing."""

    def __init__(self, path: Path, group: Path | None) -> None:
        """Makes it, durably, with the control group that there is: from here on the attempt counts as started.

        Raises:
            FileExistsError: it was started before.
            OSError: there is no room, and nothing was started.
        """
        self._path = path
        self._said: dict[str, Any] = {"cgroup": str(group)} if group else {}
        if len(json.dumps(self._said)) > MOST_NAMED:
            self._said = {}
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(self._descriptor, json.dumps(self._said).encode().ljust(BYTES))
            os.fsync(self._descriptor)
            sync_path(path.parent)
        except OSError:
            self.withdraw()
            raise

    @property
    def names_group(self) -> bool:
        """Whether it tells of the control group."""
        return bool(self._said)

    def withdraw(self) -> None:
        """Nothing was started, and it can be tried again."""
        self._path.unlink()
        os.close(self._descriptor)

    def started(self, identity: dict[str, Any]) -> None:
        """Says what was started. That is for as long as it runs: it need not outlast the machine."""
        os.pwrite(self._descriptor, json.dumps(self._said | identity).encode().ljust(START_BYTES), 0)

    def ended(self, word: dict[str, Any]) -> bool:
        """Says how it ended, durably. False: it does not fit, or somebody has put something in the record's place.

        Raises:
            OSError: it could not be made durable.
        """
        text = json.dumps(word).encode()
        line = b"%08x %s" % (zlib.crc32(text), text)
        if len(line) > BYTES - START_BYTES or not self._in_place():
            return False
        os.pwrite(self._descriptor, line.ljust(BYTES - START_BYTES), START_BYTES)
        SYNC(self._descriptor)
        return True

    def _in_place(self) -> bool:
        ours = os.fstat(self._descriptor)
        try:
            there = os.lstat(self._path)
        except FileNotFoundError:
            return False
        return os.path.samestat(ours, there) and there.st_size == BYTES


def start_of(content: bytes) -> dict[str, Any]:
    """What the record says of the start; empty where that is not whole."""
    return _parsed(content[:START_BYTES])


def end_of(content: bytes) -> dict[str, Any]:
    """What the record says of the end; empty where that is not whole."""
    checksum, _, text = content[START_BYTES:BYTES].rstrip().partition(b" ")
    return _parsed(text) if checksum == b"%08x" % zlib.crc32(text) else {}


def _parsed(text: bytes) -> dict[str, Any]:
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}
