"""Files that only this user may read: made so, and refused where they are not."""

import errno
import logging
import os
import stat
from collections.abc import Callable
from pathlib import Path

from jobledger_server.core.durable import sync_path

log = logging.getLogger(__name__)


class PrivateFileError(Exception):
    """A file or directory that others may have read or made; the message names it and the fix."""


def open_directory(path: Path) -> None:
    """Makes the directory (0700) where it is missing.

    Raises:
        PrivateFileError: it is a link, no directory, someone else's, or open to others.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    _refuse_unless_private(path, path.lstat(), stat.S_ISDIR, "directory", "700")


def read_private(path: Path) -> bytes | None:
    """What the file holds; None where there is none.

    Raises:
        PrivateFileError: it is a link, no regular file, someone else's, open to others, or can't be read.
    """
    try:
        # Without O_NONBLOCK a FIFO in its place would hang the start.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise PrivateFileError(f"{path} is a symbolic link: put the file itself there") from error
        raise PrivateFileError(f"{path} can't be read ({error.strerror}): mend it, or move it away") from error
    try:
        _refuse_unless_private(path, os.fstat(descriptor), stat.S_ISREG, "regular file", "600")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read()
    finally:
        os.close(descriptor)


def read_guarded(path: Path) -> bytes:
    """What a file holds that may be read by anybody, but whose writers rule the server. A warning where a group may.

    Raises:
        PrivateFileError: every user can write to it.
        OSError: it can't be read.
    """
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        if stat.S_ISREG(status.st_mode) and status.st_mode & stat.S_IWOTH:
            raise PrivateFileError(
                f"every user of this machine can write to {path}, and whoever does has the server: check what it says,"
                f" then chmod go-w {path}"
            )
        if stat.S_ISREG(status.st_mode) and status.st_mode & stat.S_IWGRP:
            log.warning("group %d can write to %s, and so has the server: chmod g-w %s", status.st_gid, path, path)
        return file.read()


def create_private(path: Path, data: bytes) -> None:
    """Makes the file with what it holds, durably, never over another one.

    Raises:
        PrivateFileError: something is there already.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileExistsError as error:
        raise PrivateFileError(f"{path} exists already: remove it and start again") from error
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(descriptor)
    sync_path(path.parent)


def replace_file(path: Path, data: bytes, *, mode: int) -> None:
    """Puts a file in place, durably: a reader sees the old bytes or the new ones, after a crash too."""
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        # Exactly this one, whatever the process masks.
        os.fchmod(descriptor, mode)
        file.write(data)
        file.flush()
        os.fsync(descriptor)
    partial.replace(path)
    sync_path(path.parent)


def _refuse_unless_private(
    path: Path, status: os.stat_result, is_kind: Callable[[int], bool], kind: str, mode: str
) -> None:
    if not is_kind(status.st_mode):
        raise PrivateFileError(f"{path} is not a {kind}: move it away")
    if is_kind is stat.S_ISREG and status.st_nlink > 1:
        raise PrivateFileError(f"{path} has {status.st_nlink} names (hard links): copy it and replace it by the copy")
    if status.st_uid != os.geteuid():
        raise PrivateFileError(f"{path} belongs to user {status.st_uid}: chown it to {os.geteuid()}, or move it away")
    if status.st_mode & 0o077:
        raise PrivateFileError(f"{path} is open to other users: check who may have read it, then chmod {mode} {path}")
