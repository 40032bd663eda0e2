"""The data directory: what lies in it is believed, so nobody else may have put it there."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

from jobledger_server.access.private_files import PrivateFileError

DATABASE = "jobledger.db"
# A write-ahead log or a journal that lies beside a database becomes part of it when it is opened.
FILES = (DATABASE, *(f"{DATABASE}-{suffix}" for suffix in ("wal", "shm", "journal")), "lock", "token", "backup.json")
DIRECTORIES = ("audit", "blobs", "control", "jobs", "keys", "logs", "receipts", "run")
OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def check_data_dir(directory: Path, *, owner: int) -> None:
    """Holds the directory and what is ours in it to this user, who alone may have been able to put something there.

    That others can read it is no reason: whoever starts a server closes it to them. Below its first level nothing is
    looked at, since nobody gets there but through it.

    Raises:
        PrivateFileError: the directory is someone else's, or not empty and writable for others; something in it is of
            another kind, someone else's, writable for others, or a link other than the owner's to a directory of
            theirs. The message names it and what to do.
    """
    status = directory.stat()
    if status.st_uid != owner:
        raise PrivateFileError(f"the data directory {directory} belongs to someone else: choose another --data-dir")
    if status.st_mode & OTHERS_WRITE and any(directory.iterdir()):
        raise PrivateFileError(
            f"other users can write to the data directory {directory}, and may have put there what is in it: look"
            f" through it (ls -la {directory}), then chmod go-w {directory}; or choose another --data-dir"
        )
    for name in (*FILES, *DIRECTORIES):
        path = directory / name
        try:
            found = path.lstat()
        except FileNotFoundError:
            continue
        if name in DIRECTORIES and found.st_uid == owner and path.is_dir():
            # Its owner may keep a directory on another disk, by a link.
            found = path.stat()
        _check_entry(path, found, owner, stat.S_ISREG if name in FILES else stat.S_ISDIR)


def _check_entry(path: Path, status: os.stat_result, owner: int, is_kind: Callable[[int], bool]) -> None:
    kind = "regular file" if is_kind is stat.S_ISREG else "directory"
    if stat.S_ISLNK(status.st_mode):
        raise PrivateFileError(f"{path} is a symbolic link: put the {kind} itself there")
    if not is_kind(status.st_mode):
        raise PrivateFileError(f"{path} is not a {kind}: move it away")
    if status.st_uid != owner:
        raise PrivateFileError(
            f"{path} belongs to user {status.st_uid}, who may have made it: move it away, or chown it to {owner} if it"
            " is yours"
        )
    if status.st_mode & OTHERS_WRITE:
        raise PrivateFileError(f"other users can write to {path}: check what it holds, then chmod go-w {path}")
