"""Finds what a job left under `output/`: every path, and why it is refused where its name or kind says so."""

import errno
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from jobledger_server.core.beneath import open_beneath
from jobledger_server.core.globs import matches
from jobledger_server.core.output_names import reason_to_refuse_name

# What is looked at in all: a job may leave millions of names, which must not fill the server's memory.
MOST_ENTRIES = 50_000
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NONBLOCK
# In place of a name that holds a secret, however many there are.
HIDDEN, SECRET = "***", "its name holds a secret"
NO_OUTPUT = "output/ is not a directory any more"
TOO_MANY = f"there are more than {MOST_ENTRIES} entries: only those that were found first are looked at"


class Asked(NamedTuple):
    """What of a job's output is asked for.

    Attributes:
        globs: everything where there are none.
        declared: paths that are asked for whatever the globs name.
        withheld: inodes of what has a secret in its name: refused, and not by that name.
    """

    globs: Sequence[str]
    declared: Collection[str] = ()
    withheld: Collection[int] = ()

    def names(self, path: str) -> bool:
        return not self.globs or path in self.declared or any(matches(path, glob) for glob in self.globs)


class Found(NamedTuple):
    """A path relative to `output/`, and the reason to refuse it; empty where it may be an artifact."""

    path: str
    reason: str


def open_output(output_dir: Path) -> int:
    """`output/` as a descriptor, for `found_below`.

    Raises:
        OSError: it is not a directory, or a link.
    """
    return os.open(output_dir, DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def leaves_nothing(output_dir: Path) -> bool:
    """Whether `output/` is there and empty. A look that costs less than asking a thread for it."""
    try:
        directory = open_output(output_dir)
    except OSError:
        return False
    try:
        with os.scandir(directory) as entries:
            return next(entries, None) is None
    except OSError:
        return False
    finally:
        os.close(directory)


def found_below(top: int, asked: Asked) -> list[Found]:
    """By path. Directories are entered, links never.

    Iterative, since the job says how deep its directories are.

    Args:
        top: `output/`, open.
    """
    found: list[Found] = []
    pending, entries_left, more = [""], MOST_ENTRIES, False
    while pending and entries_left and not more:
        inside = pending.pop()
        try:
            entries, more = _entries(top, inside, entries_left, asked.withheld)
        except OSError as error:
            found.append(Found(_readable(inside.rstrip("/")), f"the directory can't be read: {_why(error)}"))
            continue
        entries_left -= len(entries)
        for raw, is_directory, reason in entries:
            path = _readable(raw)
            if is_directory and not reason:
                pending.append(f"{raw}/")
            elif is_directory or asked.names(path):
                found.append(Found(HIDDEN if reason == SECRET else path, reason))
    if pending or more:
        found.append(Found("", TOO_MANY))
    missing = set(asked.declared).difference(it.path for it in found)
    return sorted({*found, *(Found(path, "declared, and there is no such file") for path in missing)})


def _entries(top: int, inside: str, most: int, withheld: Collection[int]) -> tuple[list[tuple[str, bool, str]], bool]:
    """Path, whether it is a directory, reason to refuse it; and whether there are more than asked for."""
    directory = open_beneath(top, inside or ".", DIRECTORY)
    try:
        with os.scandir(directory) as entries:
            found = [_look_at(entry, inside, withheld) for _, entry in zip(range(most), entries, strict=False)]
            return found, next(entries, None) is not None
    finally:
        os.close(directory)


def _look_at(entry: os.DirEntry[str], inside: str, withheld: Collection[int]) -> tuple[str, bool, str]:
    raw = inside + entry.name
    if entry.inode() in withheld:
        return raw, entry.is_dir(follow_symlinks=False), SECRET
    if entry.is_symlink():
        return raw, False, "a symbolic link"
    is_directory = entry.is_dir(follow_symlinks=False)
    if not is_directory and not entry.is_file(follow_symlinks=False):
        return raw, False, "not a regular file"
    return raw, is_directory, reason_to_refuse_name(_readable(raw))


def _readable(path: str) -> str:
    """The path as text, with an escape for each byte that is not UTF-8."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _why(error: OSError) -> str:
    return "it became a link" if error.errno == errno.ELOOP else str(error.strerror)
