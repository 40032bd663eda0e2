"""A data directory with an old state of an installation, until its first start is over: a copy that `jobledger backup`
made, or one whose database was accepted as it is.

What it is a copy of may have gone on, or may run beside it. So at its first start it begins a log of its own, under a
new key - two histories under one would contradict each other -, and its jobs that had not ended are lost: whether they
ran since, or run there now, nobody knows here.
"""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jobledger.tlog import NoteKey

from jobledger_server.service import key_files

MARKER, SETTLED = "backup.json", "backup.restored.json"
LOST = "What the server was restored from is older than the end of this job: whether it ran since is not known here"


def is_restored(data_dir: Path) -> bool:
    """Whether this is a copy that no server has come to the end of a start on."""
    return (data_dir / MARKER).exists()


def mark(data_dir: Path, facts: Mapping[str, Any]) -> None:
    """Says of a directory that it is a copy."""
    (data_dir / MARKER).write_text(f"{json.dumps(facts, indent=2)}\n")


def settle(data_dir: Path) -> None:
    """From now on it is an installation like any other."""
    (data_dir / MARKER).rename(data_dir / SETTLED)


def begin_new_log(keys: Path) -> NoteKey:
    """Gives the log a new key. The old one is moved aside, where nothing finds it; its public half too.

    Raises:
        KeyRingError, PrivateFileError: others may have read the directory.
        OSError: the disk.
    """
    for name in (key_files.LOG_KEY, key_files.LOG_VKEY):
        if (keys / name).exists():
            (keys / name).rename(keys / f"{name}.before-{time.time_ns() // 1000}")
    return key_files.new_log(keys)
