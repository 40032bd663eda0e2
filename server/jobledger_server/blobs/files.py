"""Blobs as files, each named by its hash: `ab/cdef...` under one directory."""

import asyncio
import os
import re
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

from jobledger_server.blobs.incoming import LARGE, Incoming
from jobledger_server.blobs.seen import CHUNK, Look, Seen, look_at, read_chunk
from jobledger_server.core.durable import sync_path
from jobledger_server.core.ports import BlobDamagedError, StoredBlob

SHA256 = re.compile(r"[0-9a-f]{64}")
# What is handed out at a time. Larger ones are given back to the system and asked of it again, page by page.
PIECE = 512 * 1024
# Of reads on Linux: only what takes no wait for a disk.
NO_WAIT: int | None = getattr(os, "RWF_NOWAIT", None)
PREFIX = re.compile(r"[0-9a-f]{2}")


class FileBlobs:
    """`core.ports.Blobs` in a directory of its own, readable by its owner alone.

    A blob is written under `incoming/` and renamed when it is whole and on the disk, so a crash leaves none half done.

    No byte is served that was not held against the hash: all of a blob is, when it is put or first read, and each chunk
    again by the tag that was taken then (`seen`). A file that looks otherwise than it did is read again from the start.

    Args:
        root: the directory; made where there is none. Its parent must exist.

    Raises:
        OSError: it can't be made.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._incoming = root / "incoming"
        self._seen = Seen()
        # Large blobs are read one at a time: their readers must not take all threads.
        self._reading = asyncio.Lock()
        # Guards the sets, one for each open block of `protecting`, against the threads that put and delete.
        self._lock = threading.Lock()
        self._protected: list[set[str]] = []
        # Directories whose own names are durable.
        self._durable: set[Path] = set()
        root.mkdir(mode=0o700, exist_ok=True)
        self._incoming.mkdir(mode=0o700, exist_ok=True)
        sync_path(root.parent)

    def discard_unfinished(self) -> None:
        """Deletes what a crash left of copies that it cut short. For the start, while nobody else writes here."""
        for leftover in self._incoming.iterdir():
            leftover.unlink()

    @contextmanager
    def batch(self) -> Iterator[Incoming]:
        """As `Blobs.batch`."""
        incoming = Incoming(self._incoming, self._seen, publish=self._publish, synced=self._durable.update)
        try:
            yield incoming
        finally:
            incoming.discard()

    async def read(self, sha256: str, offset: int, length: int) -> AsyncIterator[bytes]:
        """As `Blobs.read`. A part that reaches past the end is cut there."""
        path = self._path(sha256)
        look, tags = await self._whole(sha256)
        end = min(look.size, offset + length)
        buffer = memoryview(bytearray(min(CHUNK, look.size)))
        while offset < end:
            number, within = divmod(offset, CHUNK)
            chunk = buffer[: look.size - number * CHUNK]
            if not _read_at_once(chunk, path, number):
                await asyncio.to_thread(_read_into, chunk, path, number)
            if not self._seen.is_chunk(tags, number, chunk):
                self._seen.forget(sha256)
                raise _damaged(sha256)
            asked = chunk[within : within + end - offset]
            offset += len(asked)
            for at in range(0, len(asked), PIECE):
                yield bytes(asked[at : at + PIECE])

    async def verify(self, sha256: str) -> bool:
        """As `Blobs.verify`: bytes that were read since the start are read again only where the file was touched."""
        try:
            await self._whole(sha256)
        except (FileNotFoundError, BlobDamagedError):
            return False
        return True

    @contextmanager
    def protecting(self) -> Iterator[None]:
        """As `Blobs.protecting`."""
        with self._lock:
            mine = set().union(*self._protected)
            self._protected.append(mine)
        try:
            yield
        finally:
            with self._lock:
                # By identity: sets that are equal are not the same block's.
                self._protected = [other for other in self._protected if other is not mine]

    async def delete(self, sha256: str) -> bool:
        """As `Blobs.delete`."""
        return await asyncio.to_thread(self._delete, sha256)

    async def stored(self) -> AsyncIterator[Sequence[StoredBlob]]:
        """As `Blobs.stored`."""
        for directory in sorted(await asyncio.to_thread(os.listdir, self._root)):
            if PREFIX.fullmatch(directory):
                yield await asyncio.to_thread(_list, self._root / directory)

    def _path(self, sha256: str) -> Path:
        if SHA256.fullmatch(sha256) is None:
            raise FileNotFoundError(f"{sha256!r} is not a SHA-256 in lower-case hex")
        return self._root / sha256[:2] / sha256[2:]

    def _delete(self, sha256: str) -> bool:
        with self._lock:
            if any(sha256 in protected for protected in self._protected):
                return False
            try:
                self._path(sha256).unlink()
            except FileNotFoundError:
                return False
        self._seen.forget(sha256)
        return True

    def _publish(self, copy: Path, sha256: str) -> set[Path]:
        path = self._path(sha256)
        directory = path.parent
        with self._lock:
            for protected in self._protected:
                protected.add(sha256)
            # Over one that is there, too: its bytes are the same, unless it was damaged.
            try:
                copy.replace(path)
            except FileNotFoundError:
                directory.mkdir(mode=0o700, exist_ok=True)
                copy.replace(path)
        return {directory} if directory in self._durable else {directory, self._root}

    async def _whole(self, sha256: str) -> tuple[Look, bytes]:
        """How a blob looks whose bytes match, and its tags.

        Raises:
            BlobDamagedError, FileNotFoundError: as for `read`.
        """
        path = self._path(sha256)
        look = await asyncio.to_thread(look_at, path)
        tags = self._seen.tags(sha256, look)
        if tags is not None:
            return look, tags
        async with self._reading if look.size >= LARGE else nullcontext():
            # Somebody else may have read it meanwhile.
            tags = self._seen.tags(sha256, look)
            return (look, tags) if tags is not None else await asyncio.to_thread(self._read_all, path, sha256)

    def _read_all(self, path: Path, sha256: str) -> tuple[Look, bytes]:
        tagger = self._seen.tagger()
        with path.open("rb", buffering=0) as file:
            look, offset = look_at(file.fileno()), 0
            while chunk := read_chunk(file.fileno(), offset):
                tagger.update(chunk)
                offset += len(chunk)
        if tagger.sha256 != sha256:
            raise _damaged(sha256)
        self._seen.note(sha256, look, tagger.tags)
        return look, tagger.tags


def _damaged(sha256: str) -> BlobDamagedError:
    return BlobDamagedError(f"The bytes of blob {sha256} no longer match it")


def _list(directory: Path) -> Sequence[StoredBlob]:
    """The blobs of one directory; what is deleted meanwhile is left out."""
    found = []
    for path in directory.iterdir():
        sha256 = directory.name + path.name
        try:
            if SHA256.fullmatch(sha256):
                found.append(StoredBlob(sha256, path.stat().st_size))
        except FileNotFoundError:
            continue
    return found


def _read_at_once(chunk: memoryview, path: Path, number: int) -> bool:
    """Fills a chunk from what is in memory, which takes less time than a thread takes to wake; False: it is not."""
    if NO_WAIT is None:
        return False
    try:
        with path.open("rb", buffering=0) as file:
            return os.preadv(file.fileno(), [chunk], number * CHUNK, NO_WAIT) == len(chunk)
    except OSError:
        return False


def _read_into(chunk: memoryview, path: Path, number: int) -> None:
    # Opened for each chunk: a descriptor kept over an await would be closed under a thread that still reads.
    with path.open("rb") as file:
        file.seek(number * CHUNK)
        file.readinto(chunk)
