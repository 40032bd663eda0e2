"""Getting what was written on to the disk. Standard library only: supervisors use it."""

import os
from pathlib import Path


def sync_path(path: Path) -> None:
    """Makes a file, or which names are in a directory, durable.

    Raises:
        OSError: it is not there, or can't be made durable.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
