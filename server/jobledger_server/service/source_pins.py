"""Which commit of a git repository a job's working directory is at, and whether its tracked files are as that has them.

Read from git's files alone. To ask git itself would run what the repository's configuration says, as the server.
Nothing there is taken at its word either: what is called clean was compared byte for byte, by names that are hashes.
"""

import hashlib
import logging
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from jobledger_server.core.beneath import open_beneath
from jobledger_server.core.real_paths import open_real
from jobledger_server.service.git_files import DIRECTORY, FILE, MOST_PATH, UnreadableError, read_file
from jobledger_server.service.git_index import EXECUTABLE, LINK, SUBMODULE, Entry, read_index, tree_of
from jobledger_server.service.git_objects import new_hash, tree_of_commit

log = logging.getLogger(__name__)
COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
REF = re.compile(r"refs/[\w./@{}+-]{1,250}", re.ASCII)
# What is read at most of all files of the working directory together.
MOST_COMPARED = 64 * 1024 * 1024
CHUNK = 1024 * 1024
CLEAN, DIRTY, UNKNOWN = "no", "yes", "unknown"


class Repository(NamedTuple):
    """Open directories: the working one; git's for it; git's for all that share a history, mostly the same."""

    top: int
    git: int
    common: int


def git_pins(directory: Path, roots: Sequence[Path]) -> Mapping[str, str]:
    """`git_commit`, and `git_dirty`: `yes`, `no` or `unknown`; empty where it is not in a repository within the roots.

    `yes`: `git status` would name a tracked file. `no`: each is, byte for byte, what the commit has. Files that git
    does not track are not looked at, links not followed.

    Args:
        directory: without links.
        roots: all that is read lies below one of them, git's own files included.
    """
    allowed = [root.resolve() for root in roots]
    for place in (directory, *directory.parents):
        if not _is_within(place, allowed):
            return {}
        if os.path.lexists(place / ".git"):
            # Whatever it is: the repository further up does not have what is in this one.
            return _pins(place, allowed)
    return {}


def _is_within(path: Path, roots: Sequence[Path]) -> bool:
    return any(path.is_relative_to(root) for root in roots)


def _pins(place: Path, roots: Sequence[Path]) -> Mapping[str, str]:
    try:
        with _opened(place, roots) as repository:
            commit = _commit(repository)
            return {"git_commit": commit, "git_dirty": _dirty(repository, bytes.fromhex(commit))}
    except (OSError, UnreadableError, ValueError):
        return {}
    except Exception:
        # Somebody else may have written all of it: whatever it makes us meet, the job starts without a pin.
        log.exception("what git has in %s can't be read, and no receipt tells of it", place)
        return {}


@contextmanager
def _opened(place: Path, roots: Sequence[Path]) -> Iterator[Repository]:
    opened: list[int] = []
    try:
        opened.append(open_real(place, DIRECTORY))
        (top,) = opened
        if stat.S_ISREG(os.stat(".git", dir_fd=top, follow_symlinks=False).st_mode):
            # A linked worktree, or a submodule.
            git_dir = _named(read_file(top, ".git"), b"gitdir: ", place, roots)
            opened.append(open_real(git_dir, DIRECTORY))
        else:
            git_dir = place / ".git"
            opened.append(open_beneath(top, ".git", DIRECTORY))
        try:
            named = read_file(opened[1], "commondir")
        except FileNotFoundError:
            opened.append(os.dup(opened[1]))
        else:
            opened.append(open_real(_named(named, b"", git_dir, roots), DIRECTORY))
        yield Repository(*opened)
    finally:
        for descriptor in opened:
            os.close(descriptor)


def _named(content: bytes, word: bytes, base: Path, roots: Sequence[Path]) -> Path:
    """The directory that one of git's files names."""
    name = content[len(word) :].removesuffix(b"\n")
    if not content.startswith(word) or not name.strip() or len(name) > MOST_PATH:
        raise UnreadableError
    try:
        # Not Path.resolve, which raises where links lead in a circle.
        path = Path(os.path.realpath(base / os.fsdecode(name)))
    except RecursionError:
        # Of a long row of links: some versions of Python take a call within a call for each.
        raise UnreadableError from None
    if not _is_within(path, roots):
        raise UnreadableError
    return path


def _commit(repository: Repository) -> str:
    head = read_file(repository.git, "HEAD").decode().strip()
    name = head.removeprefix("ref: ")
    if name == head:
        return _checked(head)
    if REF.fullmatch(name) is None:
        raise UnreadableError
    try:
        return _checked(read_file(repository.common, name).decode().strip())
    except FileNotFoundError:
        packed = read_file(repository.common, "packed-refs").decode().splitlines()
        refs = (line.split(" ", 1) for line in packed if " " in line)
        return _checked(next((commit for commit, ref in refs if ref == name), ""))


def _checked(commit: str) -> str:
    if COMMIT.fullmatch(commit) is None:
        raise UnreadableError
    return commit


def _dirty(repository: Repository, commit: bytes) -> str:
    try:
        entries = read_index(read_file(repository.git, "index"), len(commit))
        if any(entry.unsettled for entry in entries):
            return DIRTY
        if tree_of(entries, len(commit)) != tree_of_commit(repository.common, commit):
            return DIRTY
        return Comparison(repository.top, entries).result()
    except (OSError, UnreadableError, ValueError):
        return UNKNOWN


class Comparison:
    """Of files in the working directory with the index."""

    def __init__(self, top: int, entries: Sequence[Entry]) -> None:
        self._top = top
        self._entries = entries
        self._left = MOST_COMPARED

    def result(self) -> str:
        """DIRTY as soon as that is certain, CLEAN where every file is the same."""
        found = CLEAN
        for entry in self._entries:
            one = self._compare(entry)
            if one == DIRTY:
                return DIRTY
            if one == UNKNOWN:
                found = UNKNOWN
        return found

    def _compare(self, entry: Entry) -> str:
        if entry.mode == SUBMODULE or entry.skipped:
            return UNKNOWN
        try:
            if entry.mode == LINK:
                return self._compare_link(entry)
            descriptor = open_beneath(self._top, entry.name, FILE)
        except PermissionError:
            return UNKNOWN
        except OSError:
            return DIRTY
        try:
            return self._compare_file(descriptor, entry)
        finally:
            os.close(descriptor)

    def _compare_link(self, entry: Entry) -> str:
        parent, _, name = entry.name.rpartition("/")
        directory = open_beneath(self._top, parent or ".", DIRECTORY)
        try:
            target = os.fsencode(os.readlink(name, dir_fd=directory))
        finally:
            os.close(directory)
        return CLEAN if _blob(len(target), target, entry).digest() == entry.hash else DIRTY

    def _compare_file(self, descriptor: int, entry: Entry) -> str:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or bool(status.st_mode & stat.S_IXUSR) != (entry.mode == EXECUTABLE):
            return DIRTY
        if entry.size and status.st_size & 0xFFFFFFFF != entry.size:
            return DIRTY
        if status.st_size > self._left:
            return UNKNOWN
        self._left -= status.st_size
        digest, left = _blob(status.st_size, b"", entry), status.st_size
        while left and (chunk := os.read(descriptor, min(left, CHUNK))):
            digest.update(chunk)
            left -= len(chunk)
        if digest.digest() == entry.hash:
            return CLEAN
        # Where git takes it for unchanged a filter may have made it from what was committed; or somebody set its time.
        looks_the_same = entry.size and divmod(status.st_mtime_ns, 10**9) == entry.modified
        return UNKNOWN if looks_the_same else DIRTY


def _blob(size: int, data: bytes, entry: Entry) -> "hashlib._Hash":
    """What names a blob of so many bytes, which begins with these."""
    return new_hash(len(entry.hash))(b"blob %d\0" % size + data)
