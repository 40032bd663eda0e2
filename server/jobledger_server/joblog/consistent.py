"""Reading a log while it is written: looked at anew where it has changed meanwhile. Standard library only."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from jobledger_server.joblog.segments import DamagedIndexError, DamagedLogError, segment_numbers
from jobledger_server.joblog.snapshot import Snapshot

T = TypeVar("T")


def consistently(log_dir: Path, read: Callable[[Snapshot], T]) -> T:
    """What `read` answers of a snapshot, taken anew whenever the writer has changed the log under it.

    Raises:
        DamagedLogError: the log does not fit together, and nobody writes to it.
    """
    seen: object = None
    without = set[int]()
    while True:
        found: object = None
        try:
            with Snapshot(log_dir, without) as snapshot:
                found = snapshot.extent
                return read(snapshot)
        except (DamagedLogError, FileNotFoundError) as error:
            if (found := found or segment_numbers(log_dir)) != seen:
                seen = found
            elif isinstance(error, DamagedIndexError) and error.segment not in without:
                # Positions in the segments around it are found without it.
                without.add(error.segment)
            elif isinstance(error, FileNotFoundError):
                raise DamagedLogError(f"{error.filename} is missing: restore it from a backup") from error
            else:
                raise
