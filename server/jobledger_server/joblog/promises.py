"""What a job's receipt says of its log, and whether the log is still that. Standard library only."""

import hashlib
from pathlib import Path
from typing import NamedTuple

from jobledger_server.joblog.checked import Remembered, fingerprint
from jobledger_server.joblog.segments import DamagedLogError
from jobledger_server.joblog.snapshot import Snapshot

# The output of a log up to this is hashed anew whenever its files have changed: that takes some milliseconds. In a
# longer one each segment is held against its seal as it is read, and the seals themselves against nothing.
MOST_HASHED = 4 * 1024 * 1024

_HELD: Remembered[object, bool] = Remembered(4096)


class LostLogError(DamagedLogError):
    """All of a log is gone."""


class Promise(NamedTuple):
    """Number of the last entry, and SHA-256 (hex) of the output that was kept: empty where it was damaged by then."""

    entries: int
    sha256: str


def hold(log_dir: Path, snapshot: Snapshot, promise: Promise) -> None:
    """Holds a final log, which nobody has removed, against its receipt.

    Raises:
        LostLogError: there is nothing of it.
        DamagedLogError: it is another one, or has lost its end.
    """
    last = snapshot.last_sequence()
    if last == 0 and promise.entries:
        raise LostLogError(f"{log_dir} has no log, but its receipt says {promise.entries}: restore it from a backup")
    if not promise.sha256:
        return
    if last != promise.entries:
        text = f"{log_dir} ends with entry {last}, but its receipt says {promise.entries}: restore it from a backup"
        raise DamagedLogError(text)
    if snapshot.content_size() <= MOST_HASHED and not _is_what_was_signed(log_dir, snapshot, promise):
        raise DamagedLogError(
            f"{log_dir} has not the output of which its receipt has the hash: restore it from a backup"
        )


def _is_what_was_signed(log_dir: Path, snapshot: Snapshot, promise: Promise) -> bool:
    key = (str(log_dir), fingerprint(log_dir), promise.sha256)
    held = _HELD.get(key)
    if held is None:
        digest = hashlib.sha256()
        try:
            for chunk in snapshot.content_chunks():
                digest.update(chunk)
        except DamagedLogError:
            # Whoever reads the part that is damaged is told so; the rest can be read.
            return True
        held = digest.hexdigest() == promise.sha256
        if fingerprint(log_dir) == key[1]:
            _HELD.put(key, held)
    return held
