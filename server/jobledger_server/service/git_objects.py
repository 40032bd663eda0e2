"""Finds the tree of a commit in a git repository: a loose object, or one in a pack. Believed by its hash alone."""

import hashlib
import os
import struct
import zlib
from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from jobledger_server.core.beneath import open_beneath
from jobledger_server.service.git_files import DIRECTORY, UnreadableError, open_regular, read_file

# Bytes of an object; of all differences that it is told by together.
MOST_PACKS, MOST_DELTAS, MOST_OBJECT = 200, 250, 1024 * 1024
# More than any file has; what is added to it is still a place that the system takes.
MOST_OFFSET = 2**62
PACK_INDEX = b"\xfftOc\0\0\0\2"
# In an index of a pack: where the table of 256 numbers stands, and what comes behind it.
FANOUT, NAMES = 8, 8 + 256 * 4
COMMIT, OFFSET_DELTA, NAMED_DELTA = 1, 6, 7


def new_hash(width: int) -> Callable[[bytes], "hashlib._Hash"]:
    """What a repository names its objects by: SHA-1 where names have 20 bytes, SHA-256 where they have 32."""
    return (lambda data: hashlib.sha1(data, usedforsecurity=False)) if width == 20 else hashlib.sha256


def tree_of_commit(repository: int, commit: bytes) -> bytes:
    """The name of the tree that a commit has.

    Args:
        repository: the git directory that has the objects, open.
        commit: its name, 20 or 32 bytes.

    Raises:
        UnreadableError: there is no such commit here, or it is not what its name says.
        OSError: it can't be read.
    """
    try:
        content = _loose(repository, commit)
    except FileNotFoundError:
        content = _packed(repository, commit)
    except zlib.error:
        raise UnreadableError from None
    named = new_hash(len(commit))(b"commit %d\0" % len(content) + content)
    word, _, tree = content.partition(b"\n")[0].partition(b" ")
    if named.digest() != commit or word != b"tree":
        raise UnreadableError
    return bytes.fromhex(tree.decode("ascii"))


def _loose(repository: int, name: bytes) -> bytes:
    path = name.hex()
    inflating = zlib.decompressobj()
    data = inflating.decompress(read_file(repository, f"objects/{path[:2]}/{path[2:]}"), MOST_OBJECT)
    return data.partition(b"\0")[2]


def _packed(repository: int, name: bytes) -> bytes:
    try:
        for index, pack in _packs(repository):
            offset = _offset(index, name)
            if offset is not None:
                return _object(index, pack, offset, len(name))
    except (IndexError, struct.error, zlib.error):
        pass
    raise UnreadableError


def _packs(repository: int) -> Iterator[tuple[int, int]]:
    """Index and pack, open while they are looked at."""
    directory = open_beneath(repository, "objects/pack", DIRECTORY)
    try:
        with os.scandir(directory) as entries:
            names = [entry.name for entry in entries if entry.name.endswith(".idx")]
        for name in sorted(names)[:MOST_PACKS]:
            with _opened(directory, name) as index, _opened(directory, f"{name[:-4]}.pack") as pack:
                yield index, pack
    finally:
        os.close(directory)


@contextmanager
def _opened(directory: int, name: str) -> Iterator[int]:
    descriptor = open_regular(directory, name)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _offset(index: int, name: bytes) -> int | None:
    """Where in its pack an object begins; None where the pack does not have it."""
    if os.pread(index, FANOUT, 0) != PACK_INDEX:
        raise UnreadableError
    width = len(name)
    first = _number(index, FANOUT + 4 * (name[0] - 1)) if name[0] else 0
    behind, count = _number(index, FANOUT + 4 * name[0]), _number(index, NAMES - 4)

    def named(place: int) -> bytes:
        return os.pread(index, width, NAMES + place * width)

    place = first + bisect_left(range(first, behind), name, key=named)
    if place >= behind or named(place) != name:
        return None
    offset = _number(index, NAMES + count * (width + 4) + 4 * place)
    if offset < 2**31:
        return offset
    (large,) = struct.unpack(">Q", os.pread(index, 8, NAMES + count * (width + 8) + 8 * (offset - 2**31)))
    if large > MOST_OFFSET:
        raise UnreadableError
    return int(large)


def _number(index: int, at: int) -> int:
    (number,) = struct.unpack(">I", os.pread(index, 4, at))
    return int(number)


def _object(index: int, pack: int, offset: int, width: int) -> bytes:
    """A commit; most are told by what they differ in from others."""
    deltas: list[bytes] = []
    while len(deltas) < MOST_DELTAS and sum(map(len, deltas)) <= MOST_OBJECT:
        # What it is, its size, and of what it is a difference.
        head = os.pread(pack, 64, offset)
        kind, at = head[0] >> 4 & 7, _behind_number(head, 0)
        if kind == COMMIT:
            content = _inflated(pack, offset + at)
            for delta in reversed(deltas):
                content = _changed(content, delta)
            return content
        if kind == OFFSET_DELTA:
            back, at = _distance(head, at)
            base: int | None = offset - back
        elif kind == NAMED_DELTA:
            base, at = _offset(index, head[at : at + width]), at + width
        else:
            base = None
        if base is None or base < 0:
            break
        deltas.append(_inflated(pack, offset + at))
        offset = base
    raise UnreadableError


def _behind_number(data: bytes, at: int) -> int:
    while data[at] & 0x80:
        at += 1
    return at + 1


def _distance(head: bytes, at: int) -> tuple[int, int]:
    """How far back the base of a difference is, and what comes behind that."""
    back = head[at] & 0x7F
    while head[at] & 0x80:
        at += 1
        back = (back + 1 << 7) | head[at] & 0x7F
    return back, at + 1


def _inflated(pack: int, offset: int) -> bytes:
    inflating = zlib.decompressobj()
    data = inflating.decompress(os.pread(pack, MOST_OBJECT, offset), MOST_OBJECT)
    if not inflating.eof:
        raise UnreadableError
    return data


def _changed(base: bytes, delta: bytes) -> bytes:
    """What a difference makes of its base: parts of that, and what is new."""
    made, at = bytearray(), _behind_number(delta, _behind_number(delta, 0))
    while at < len(delta) and len(made) <= MOST_OBJECT:
        order, at = delta[at], at + 1
        if order & 0x80:
            numbers = []
            for bit in range(7):
                numbers.append(delta[at] if order >> bit & 1 else 0)
                at += order >> bit & 1
            start, size = int.from_bytes(numbers[:4], "little"), int.from_bytes(numbers[4:], "little")
            made += base[start : start + (size or 0x10000)]
        else:
            made += delta[at : at + order]
            at += order
    if len(made) > MOST_OBJECT:
        raise UnreadableError
    return bytes(made)
