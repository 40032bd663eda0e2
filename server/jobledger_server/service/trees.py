"""Removes and measures directories that a job has made, however deep they are."""

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jobledger_server.core.real_paths import PASS


def remove_tree(top: Path) -> None:
    """Removes a directory and all in it; nothing happens where there is none. Links are not followed, `top` neither.

    What lies deeper is moved up before it is emptied: neither the call stack nor the length of a path sets a limit.

    Raises:
        OSError: something can't be removed.
    """
    if top.is_symlink():
        top.unlink()
    if not top.exists():
        return
    with _opened(top) as descriptor:
        while directories := _empty_of_files(descriptor):
            for directory in directories:
                _empty_into(descriptor, directory)
                os.rmdir(directory, dir_fd=descriptor)
    top.rmdir()


def tree_size(top: Path) -> int | None:
    """Bytes of the files in a directory, as far as they can be seen; None where there is no such thing."""
    if not top.exists():
        return None
    size = 0
    for directory, _, names in os.walk(top):
        for name in names:
            try:
                size += os.lstat(f"{directory}/{name}").st_size
            except OSError:
                continue
    return size


def _empty_into(top: int, name: str) -> None:
    """Empties a directory in `top`: what is a directory in it comes to lie in `top` itself."""
    with _opened(name, within=top) as directory:
        for inner in _empty_of_files(directory):
            os.rename(inner, secrets.token_hex(16), src_dir_fd=directory, dst_dir_fd=top)


def _empty_of_files(directory: int) -> list[str]:
    """Removes whatever is no directory; returns the names of the directories."""
    with os.scandir(directory) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_directory in found:
        if not is_directory:
            os.unlink(name, dir_fd=directory)
    return [name for name, is_directory in found if is_directory]


@contextmanager
def _opened(name: str | Path, within: int | None = None) -> Iterator[int]:
    """A directory, open and made ours to change: never what a link leads to."""
    _make_ours(name, within)
    directory = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=within)
    try:
        yield directory
    finally:
        os.close(directory)


def _make_ours(name: str | Path, within: int | None) -> None:
    if os.chmod in os.supports_follow_symlinks:
        os.chmod(name, stat.S_IRWXU, dir_fd=within, follow_symlinks=False)
        return
    # Linux changes no mode by a name without following it, but that of a directory which is open, if only in passing.
    place = os.open(name, PASS | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=within)
    try:
        Path(f"/proc/self/fd/{place}").chmod(stat.S_IRWXU)
    finally:
        os.close(place)
