"""Getting files on to the disk: each by itself, or all of a file system at once."""

import ctypes
import os
from collections.abc import Callable
from functools import cache


def can_sync_all() -> bool:
    """Whether there is `sync_all`: on Linux, from the version on in which it tells of errors (5.8)."""
    return _syncfs() is not None


def sync_all(descriptor: int) -> None:
    """Makes durable all that is written to the file system of an open file.

    Raises:
        OSError: something that was written since it was opened can't be.
    """
    syncfs = _syncfs()
    if syncfs is None:
        raise NotImplementedError("there is no syncfs here")
    if syncfs(descriptor):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


@cache
def _syncfs() -> Callable[[int], int] | None:
    system = os.uname()
    if system.sysname != "Linux" or _version(system.release) < (5, 8):
        return None
    return getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)


def _version(release: str) -> tuple[int, ...]:
    return tuple(int(part) for part in release.split("-", maxsplit=1)[0].split(".")[:2] if part.isdecimal())
