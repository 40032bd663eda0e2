"""Blobs as files, each named by its hash: `ab/cdef...` under one directory."""

import asyncio
import hashlib
import os
import re
import secrets
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from jobledger_server.core.ports import BlobDamagedError, StoredBlob

SHA256 = re.compile(r"[0-9a-f]{64}")
PREFIX = re.compile(r"[0-9a-f]{2}")
COPY_CHUNK = 1024 * 1024
READ_CHUNK = 256 * 1024
HOLE = bytes(COPY_CHUNK)


class FileBlobs:
    """`core.ports.Blobs` in a directory of its own, readable by its owner alone.

    A blob is written under `incoming/` and renamed when it is whole and on the disk, so a crash leaves none half done.

    Args:
        root: the directory; made where there is none. Its parent must exist.

    Raises:
        OSError: it can't be made.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._incoming = root / "incoming"
        # Guards the sets, one for each open block of `protecting`, against the threads that put and delete.
        self._lock = threading.Lock()
        self._protected: list[set[str]] = []
        root.mkdir(mode=0o700, exist_ok=True)
        self._incoming.mkdir(mode=0o700, exist_ok=True)
        _sync_directory(root.parent)

    def discard_unfinished(self) -> None:
        """Deletes what a crash left of copies that it cut short. For the start, while nobody else writes here."""
        for leftover in self._incoming.iterdir():
            leftover.unlink()

    async def put(self, descriptor: int) -> tuple[str, int]:
        """As `Blobs.put`. The file is read from its beginning; its position stays.

        Raises:
            OSError: it could not be read or stored; nothing is left of it.
        """
        # A descriptor of its own, in a thread that is let finish: a cancelled caller may close theirs meanwhile.
        own = os.dup(descriptor)
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(None, self._put, own))

    async def read(self, sha256: str, offset: int, length: int) -> AsyncIterator[bytes]:
        """As `Blobs.read`. A part that reaches past the end is cut there."""
        path = self._path(sha256)
        size = (await asyncio.to_thread(path.stat)).st_size
        end = min(size, offset + length)
        whole = offset == 0 and end == size
        digest = hashlib.sha256()
        finished = False
        while not finished:
            chunk = await asyncio.to_thread(_read_chunk, path, offset, min(READ_CHUNK, end - offset))
            digest.update(chunk)
            offset += len(chunk)
            finished = not chunk or offset >= end
            if finished and whole and digest.hexdigest() != sha256:
                raise BlobDamagedError(f"The bytes of blob {sha256} no longer match it")
            if chunk:
                yield chunk

    async def verify(self, sha256: str) -> bool:
        """As `Blobs.verify`."""
        try:
            return await asyncio.to_thread(_hash, self._path(sha256)) == sha256
        except FileNotFoundError:
            return False

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
        return True

    def _put(self, descriptor: int) -> tuple[str, int]:
        incoming = self._incoming / secrets.token_hex(16)
        try:
            sha256, size = _copy(descriptor, incoming)
            self._publish(incoming, sha256)
        finally:
            os.close(descriptor)
            incoming.unlink(missing_ok=True)
        return sha256, size

    def _publish(self, incoming: Path, sha256: str) -> None:
        path = self._path(sha256)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        with self._lock:
            for protected in self._protected:
                protected.add(sha256)
            # Over one that is there, too: its bytes are the same, unless it was damaged.
            incoming.replace(path)
        _sync_directory(path.parent)
        _sync_directory(self._root)


def _copy(descriptor: int, target: Path) -> tuple[str, int]:
    """Copies into a new file and on to the disk, where holes take no room. Returns hash and size in bytes."""
    digest = hashlib.sha256()
    size = 0
    with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        while chunk := os.pread(descriptor, COPY_CHUNK, size):
            digest.update(chunk)
            size += len(chunk)
            if chunk == HOLE:
                file.seek(size)
            else:
                file.write(chunk)
        file.truncate(size)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest(), size


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


def _read_chunk(path: Path, offset: int, count: int) -> bytes:
    # Opened for each chunk: a descriptor kept over an await would be closed under a thread that still reads.
    with path.open("rb", buffering=0) as file:
        return os.pread(file.fileno(), max(count, 0), offset)


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
