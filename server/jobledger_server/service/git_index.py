"""What git's index says: the tracked files, and the tree that they make."""

import os
import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from jobledger_server.service.git_files import MOST_PATH, UnreadableError
from jobledger_server.service.git_objects import new_hash

MOST_ENTRIES = 20_000
LINK, SUBMODULE, EXECUTABLE = 0o120000, 0o160000, 0o100755
MODES = frozenset({0o100644, EXECUTABLE, LINK, SUBMODULE})
TREE = b"40000"
# Flags of an entry: a second word of them follows, and which side of a conflict it is. In the second word: it is not in
# the working directory on purpose; it is to be added some day.
EXTENDED, SIDES = 0x4000, 0x3000
SKIPPED, INTENDED = 0x4000, 0x2000


class Entry(NamedTuple):
    """A tracked file as the index has it.

    Attributes:
        modified: seconds and nanoseconds.
        size: of the file when it was added, modulo 2^32; 0 where git does not trust what it noted.
        unsettled: one side of a conflict, or only announced: no commit has it so.
        skipped: it need not be in the working directory.
    """

    name: str
    mode: int
    modified: tuple[int, int]
    size: int
    hash: bytes
    unsettled: bool
    skipped: bool


def read_index(data: bytes, width: int) -> Sequence[Entry]:
    """The tracked files.

    Args:
        data: of version 2 or 3, with nothing that has to be read beside it.
        width: bytes of a name.

    Raises:
        UnreadableError: it is none of these, has more than MOST_ENTRIES entries, or makes no sense.
    """
    try:
        signature, version, count = struct.unpack_from(">4sII", data)
        if signature != b"DIRC" or version not in (2, 3) or count > MOST_ENTRIES:
            raise UnreadableError
        entries, offset = [], 12
        for _ in range(count):
            entry, offset = _entry(data, offset, width)
            entries.append(entry)
        # At the end stands the hash of all of it.
        if any(not b"A" <= name[:1] <= b"Z" for name in _extensions(data[: len(data) - width], offset)):
            # Not to be passed over: there are entries elsewhere, as in an index that is split.
            raise UnreadableError
    except (struct.error, ValueError):
        raise UnreadableError from None
    return entries


def tree_of(entries: Sequence[Entry], width: int) -> bytes:
    """The name of the tree that the entries make.

    Raises:
        UnreadableError: it has more than MOST_ENTRIES directories.
    """
    directories: dict[bytes, list[tuple[bytes, bytes]]] = {b"": []}
    for entry in entries:
        parent, _, name = os.fsencode(entry.name).rpartition(b"/")
        _make(directories, parent)
        directories[parent].append((name, b"%o %b\0%b" % (entry.mode, name, entry.hash)))
    hashed, made = new_hash(width), b""
    # The deepest first, the root last.
    for path in sorted(directories, key=lambda path: path.count(b"/") + bool(path), reverse=True):
        content = b"".join(line for _, line in sorted(directories[path]))
        made = hashed(b"tree %d\0" % len(content) + content).digest()
        if path:
            parent, _, name = path.rpartition(b"/")
            # Among its neighbours a directory stands as if its name ended in a slash.
            directories[parent].append((name + b"/", b"%b %b\0%b" % (TREE, name, made)))
    return made


def _make(directories: dict[bytes, list[tuple[bytes, bytes]]], path: bytes) -> None:
    while path not in directories:
        if len(directories) >= MOST_ENTRIES:
            raise UnreadableError
        directories[path] = []
        path = path.rpartition(b"/")[0]


def _entry(data: bytes, offset: int, width: int) -> tuple[Entry, int]:
    """The entry at an offset, and where the next one is. Names are filled up to eight bytes."""
    # Times of change and of modification, place, mode, owner, size; then name of the object, flags.
    fields = struct.unpack_from(f">10I{width}sH", data, offset)
    begin = offset + 40 + width + 2
    more = 0
    if fields[11] & EXTENDED:
        (more,) = struct.unpack_from(">H", data, begin)
        begin += 2
    end = data.index(b"\0", begin)
    if fields[6] not in MODES or end - begin > MOST_PATH:
        # Each directory on the way to a file is kept by its whole path.
        raise UnreadableError
    entry = Entry(
        name=os.fsdecode(data[begin:end]),
        mode=fields[6],
        modified=fields[2:4],
        size=fields[9],
        hash=fields[10],
        unsettled=bool(fields[11] & SIDES or more & INTENDED),
        skipped=bool(more & SKIPPED),
    )
    return entry, offset + (end - offset + 8) // 8 * 8


def _extensions(data: bytes, offset: int) -> Iterator[bytes]:
    while offset < len(data):
        name, size = struct.unpack_from(">4sI", data, offset)
        yield name
        offset += 8 + size
    if offset != len(data):
        raise UnreadableError
