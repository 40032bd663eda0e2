"""Which commit of a git repository a job's working directory is at, and whether its tracked files are as it has them.

Read from git's files alone. To ask git itself would run what the repository's configuration says, as the server.
"""

import hashlib
import os
import re
import stat
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from jobledger_server.core.beneath import open_beneath

COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
REF = re.compile(r"refs/[\w./@{}+-]{1,250}", re.ASCII)
# What is read at most of one of git's files, and of all files of the working directory together.
MOST_BYTES, MOST_COMPARED = 16 * 1024 * 1024, 64 * 1024 * 1024
MOST_ENTRIES = 20_000
# An entry of the index: times, place, mode, owner, size, SHA-1, flags; then the name, filled up to eight bytes.
ENTRY = struct.Struct(">10I20sH")
EXTENDED = 0x4000
REGULAR = 0o100000


class Entry(NamedTuple):
    """A tracked file as the index has it."""

    name: str
    mode: int
    modified: tuple[int, int]
    size: int
    sha1: bytes


class UnreadableError(Exception):
    """Not something that can be made sense of here."""


def git_pins(directory: Path, roots: Sequence[Path]) -> Mapping[str, str]:
    """`git_commit`, and `git_dirty`: `yes`, `no` or `unknown`; empty where it is not in a repository within the roots.

    Files that git does not track are not looked at. Links are not followed, and worktrees whose repository lies
    elsewhere are not looked into.
    """
    for place in (directory, *directory.parents):
        if not any(place.is_relative_to(root.resolve()) for root in roots):
            return {}
        if (place / ".git").is_dir() and not (place / ".git").is_symlink():
            return _pins(place)
    return {}


def _pins(place: Path) -> Mapping[str, str]:
    try:
        top = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return {}
    try:
        return {"git_commit": _commit(top), "git_dirty": _dirty(top)}
    except (OSError, UnreadableError, UnicodeError):
        return {}
    finally:
        os.close(top)


def _commit(top: int) -> str:
    head = _read(top, ".git/HEAD").decode().strip()
    name = head.removeprefix("ref: ")
    if name == head:
        return _checked(head)
    if REF.fullmatch(name) is None:
        raise UnreadableError
    try:
        return _checked(_read(top, f".git/{name}").decode().strip())
    except FileNotFoundError:
        packed = (line.split(" ", 1) for line in _read(top, ".git/packed-refs").decode().splitlines() if " " in line)
        return _checked(next((commit for commit, ref in packed if ref == name), ""))


def _checked(commit: str) -> str:
    if COMMIT.fullmatch(commit) is None:
        raise UnreadableError
    return commit


def _dirty(top: int) -> str:
    try:
        index = _read(top, ".git/index")
        entries, rest = _entries(index)
        compared = 0
        for entry in entries:
            same, size = _compare(top, entry)
            if not same:
                return "yes"
            compared += size
            if compared > MOST_COMPARED:
                return "unknown"
        return "no" if _has_whole_tree(rest) else "unknown"
    except (OSError, UnreadableError, ValueError, struct.error):
        return "unknown"


def _entries(index: bytes) -> tuple[list[Entry], bytes]:
    """The tracked files, and what follows them in the index."""
    signature, version, count = struct.unpack_from(">4sII", index)
    if signature != b"DIRC" or version not in (2, 3) or count > MOST_ENTRIES:
        raise UnreadableError
    found, offset = [], 12
    for _ in range(count):
        fields = ENTRY.unpack_from(index, offset)
        begin = offset + ENTRY.size + (2 if fields[11] & EXTENDED else 0)
        end = index.index(b"\0", begin)
        if fields[6] >> 12 not in (0o10, 0o12, 0o16):
            raise UnreadableError
        found.append(Entry(os.fsdecode(index[begin:end]), fields[6], fields[2:4], fields[9], fields[10]))
        offset += (end - offset + 8) // 8 * 8
    return found, index[offset:]


def _compare(top: int, entry: Entry) -> tuple[bool, int]:
    """Whether a file is as the index has it, and how many bytes were read to tell."""
    if entry.mode & 0o170000 != REGULAR:
        # Links and submodules are not looked into.
        return True, 0
    try:
        descriptor = open_beneath(top, entry.name, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return False, 0
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size & 0xFFFFFFFF != entry.size:
            return False, 0
        if divmod(status.st_mtime_ns, 10**9) == entry.modified:
            return True, 0
        if status.st_size > MOST_BYTES:
            raise UnreadableError
        with os.fdopen(os.dup(descriptor), "rb") as file:
            data = file.read(status.st_size)
        named = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False)
        return named.digest() == entry.sha1, len(data)
    finally:
        os.close(descriptor)


def _has_whole_tree(extensions: bytes) -> bool:
    """Whether the index is a tree that git has written: what was added since the last commit takes that away."""
    for name, data in _extensions(extensions):
        if name == b"TREE":
            # The root has no name, then the number of its entries: -1 where it is no tree yet.
            count = data[1:].split(b" ", 1)[0]
            return data[:1] == b"\0" and count.isdigit()
    return False


def _extensions(rest: bytes) -> Iterator[tuple[bytes, bytes]]:
    offset = 0
    # At the end stands the hash of the index.
    while offset + 8 <= len(rest) - 20:
        name, size = struct.unpack_from(">4sI", rest, offset)
        yield name, rest[offset + 8 : offset + 8 + size]
        offset += 8 + size


def _read(top: int, path: str) -> bytes:
    descriptor = open_beneath(top, path, os.O_RDONLY | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_size > MOST_BYTES:
            raise UnreadableError
        return file.read(MOST_BYTES)
