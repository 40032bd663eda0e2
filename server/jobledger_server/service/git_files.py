"""Reads git's own files: those of a repository that somebody else may have written, to mislead or to hold us up."""

import os
import stat

from jobledger_server.core.beneath import open_beneath

MOST_BYTES = 16 * 1024 * 1024
# Of a path, in bytes: no system opens a longer one.
MOST_PATH = 4096
FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NONBLOCK


class UnreadableError(Exception):
    """Not something that can be made sense of here."""


def read_file(directory: int, path: str) -> bytes:
    """All of a file below an open directory; no link is followed.

    Raises:
        UnreadableError: it is not a regular file, or larger than MOST_BYTES.
        OSError: it can't be read.
    """
    descriptor = open_regular(directory, path)
    with os.fdopen(descriptor, "rb") as file:
        if os.fstat(descriptor).st_size > MOST_BYTES:
            raise UnreadableError
        return file.read(MOST_BYTES)


def open_regular(directory: int, path: str) -> int:
    """A descriptor of a regular file below an open directory. Raises as `read_file`."""
    descriptor = open_beneath(directory, path, FILE)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UnreadableError
    return descriptor
