"""Attempts that no database knows of any more: found, and ended, without a server."""

import time
from collections.abc import Iterator
from pathlib import Path

from jobledger_server.executors.local.control_dir import ControlDir
from jobledger_server.executors.local.remains import Traces, end_remains, holders

PATIENCE_SECONDS, INTERVAL_SECONDS = 10.0, 0.05


def attempts(control_root: Path) -> Iterator[tuple[str, ControlDir]]:
    """The control directories, with the ids of their jobs."""
    try:
        directories = sorted(control_root.iterdir())
    except FileNotFoundError:
        return
    for directory in directories:
        job_id, _, number = directory.name.rpartition(".")
        if number.isdecimal():
            yield job_id, ControlDir(directory)


def lives(control: ControlDir) -> bool:
    """Whether something of the attempt runs."""
    return control.lock_is_held() or any(holder.supervises for holder in holders(control))


def end(control: ControlDir) -> bool:
    """Kills all of the attempt that can be found. Returns whether nothing is left; waits some seconds for that."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while end_remains(Traces.read(control)):
        if time.monotonic() > deadline:
            return False
        time.sleep(INTERVAL_SECONDS)
    return True
