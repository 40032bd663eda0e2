"""Collects what a job left in `output/` into the blob store.

A job is not trusted: nothing is followed that could lead out of its directory, and what is refused is named.
"""

import asyncio
import errno
import os
import stat
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from jobledger_server.core.artifacts import Output
from jobledger_server.core.globs import matches
from jobledger_server.core.ports import Blobs

MAX_PATH = 1024
# In which st_blocks counts.
BLOCK = 512

# What the machine lacks just now: worth another try, and no fault of the file.
SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EDQUOT})


@dataclass(frozen=True, slots=True)
class Refusal:
    """Something under `output/` that is not an artifact, and why."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Collected:
    """Everything that was found, by path."""

    outputs: Sequence[Output]
    refused: Sequence[Refusal]


class Collector:
    """Copies a job's output into the blob store."""

    def __init__(self, *, blobs: Blobs) -> None:
        self._blobs = blobs

    def protecting(self) -> AbstractContextManager[None]:
        """What is collected in this block is not deleted before it is left: store within it that it is needed."""
        return self._blobs.protecting()

    async def collect(
        self,
        output_dir: Path,
        globs: Sequence[str],
        declared: Collection[str] = (),
        *,
        most_bytes: int | None = None,
    ) -> Collected:
        """Collects the files that the globs name (all, where there are none). Called when the job's tree is dead.

        Args:
            declared: paths that are collected too, whatever the globs name; one that is not there is refused.
            most_bytes: of all of them together, holes included: a file is refused that would be past it.

        Raises:
            OSError: there is no room for them just now; nothing is lost by asking again.
        """
        outputs: list[Output] = []
        refused: list[Refusal] = []
        left = most_bytes
        for path, reason in await asyncio.to_thread(_walk, output_dir, globs, frozenset(declared)):
            found = Refusal(path, reason) if reason else await self._copy(output_dir, path, left)
            if isinstance(found, Refusal):
                refused.append(found)
                continue
            outputs.append(found)
            left = None if left is None else left - found.size
        return Collected(outputs, refused)

    async def _copy(self, output_dir: Path, path: str, left: int | None) -> Output | Refusal:
        try:
            return await self._open_and_copy(output_dir, path, left)
        except OSError as error:
            if error.errno in SHORTAGES:
                raise
            return Refusal(path, f"can't be read: {error.strerror}")

    async def _open_and_copy(self, output_dir: Path, path: str, left: int | None) -> Output | Refusal:
        descriptor = await asyncio.to_thread(_open_beneath, output_dir, path)
        try:
            if reason := _reason_to_refuse(descriptor, left):
                return Refusal(path, reason)
            sha256, size = await self._blobs.put(descriptor)
        finally:
            os.close(descriptor)
        return Output(path, size, sha256)


def _walk(top: Path, globs: Sequence[str], declared: frozenset[str]) -> list[tuple[str, str]]:
    """(path relative to top, reason to refuse it or ""), sorted by path. Directories are entered, links never.

    Iterative, since the job says how deep its directories are.
    """
    if top.is_symlink() or not top.is_dir():
        return [("", "output/ is not a directory any more")]
    found: list[tuple[str, str]] = []
    pending = [""]
    while pending:
        inside = pending.pop()
        try:
            with os.scandir(top / inside) as entries:
                for entry in entries:
                    path, reason = _look_at(entry, inside)
                    if reason is None:
                        pending.append(f"{inside}{entry.name}/")
                    elif not globs or path in declared or any(matches(path, glob) for glob in globs):
                        found.append((path, reason))
        except OSError as error:
            found.append((_readable(inside.rstrip("/")), f"the directory can't be read: {error.strerror}"))
    missing = declared - {path for path, _ in found}
    return sorted([*found, *((path, "declared, and there is no such file") for path in missing)])


def _look_at(entry: os.DirEntry[str], inside: str) -> tuple[str, str | None]:
    """An entry's path, and the reason to refuse it or ""; None for a directory to enter."""
    path = _readable(inside + entry.name)
    if entry.is_symlink():
        return path, "a symbolic link"
    if len(path) > MAX_PATH:
        return path, f"its path is longer than {MAX_PATH} characters"
    if entry.is_dir(follow_symlinks=False):
        return path, None
    if not entry.is_file(follow_symlinks=False):
        return path, "not a regular file"
    if "\\" in path or any(not character.isprintable() for character in path):
        return path, "its name has characters that no file system should see"
    return path, ""


def _reason_to_refuse(descriptor: int, left: int | None) -> str:
    """Why an open file is no artifact, though its name would do; empty where it is one.

    Args:
        left: bytes that may still be collected; None for as many as there is room for.
    """
    status, disk = os.fstat(descriptor), os.fstatvfs(descriptor)
    if not stat.S_ISREG(status.st_mode):
        return "not a regular file"
    if status.st_nlink > 1:
        return "has more than one hard link"
    if left is not None and status.st_size > left:
        return f"its {status.st_size} bytes are past the limit of the job (limits.disk_bytes), of which {left} are left"
    has_holes = status.st_blocks * BLOCK < status.st_size
    if has_holes and status.st_size > disk.f_bavail * disk.f_frsize:
        # What has none will find room one day, for it has found some once.
        return f"its {status.st_size} bytes, holes included, are more than the disk has room for"
    return ""


def _readable(path: str) -> str:
    """The path as text, with an escape for each byte that is not UTF-8."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _open_beneath(top: Path, path: str) -> int:
    """Opens a file below `top` without following a link in any component."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    directory = os.open(top, flags | os.O_DIRECTORY)
    *parents, name = PurePosixPath(path).parts
    try:
        for parent in parents:
            inner = os.open(parent, flags | os.O_DIRECTORY, dir_fd=directory)
            os.close(directory)
            directory = inner
        return os.open(name, flags, dir_fd=directory)
    finally:
        os.close(directory)
