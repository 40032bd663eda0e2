"""Removes directories that a job has made, however deep they are."""

import os
import secrets
import stat
from pathlib import Path


def remove_tree(top: Path) -> None:
    """Removes a directory and all in it; nothing happens where there is none. No link is followed.

    What lies deeper is moved up before it is emptied: neither the call stack nor the length of a path sets a limit.

    Raises:
        OSError: something can't be removed.
    """
    if not top.exists():
        return
    while directories := _empty_of_files(top):
        for directory in directories:
            for inner in _empty_of_files(directory):
                inner.rename(top / secrets.token_hex(16))
            directory.rmdir()
    top.rmdir()


def _empty_of_files(directory: Path) -> list[Path]:
    """Removes whatever is no directory; returns the directories."""
    directory.chmod(stat.S_IRWXU)
    with os.scandir(directory) as entries:
        found = [(Path(entry.path), entry.is_dir(follow_symlinks=False)) for entry in entries]
    for path, is_directory in found:
        if not is_directory:
            path.unlink()
    return [path for path, is_directory in found if is_directory]
