"""Blobs on their way into the store: copied under `incoming/`, on to the disk, then renamed, all of a batch at once."""

import errno
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from jobledger_server.blobs.seen import CHUNK, Look, Seen, look_at, read_chunk
from jobledger_server.blobs.syncing import can_sync_all, sync_all
from jobledger_server.core.durable import sync_path
from jobledger_server.core.ports import FileChangedError

HOLE = bytes(CHUNK)
# So many files of a batch, and whatever is larger, are synced one by one; the others all together.
FEW, LARGE = 8, 16 * 1024 * 1024


class Copy(NamedTuple):
    """A file under `incoming/`, how it looked when it was whole, and the tags of its chunks."""

    path: Path
    look: Look
    tags: bytes


class Incoming:
    """`core.ports.BlobBatch` of a `FileBlobs`.

    Args:
        publish: moves a copy to where blobs are. Returns the directories that are to be synced for that.
        synced: is told of directories that were.
    """

    def __init__(
        self,
        directory: Path,
        seen: Seen,
        *,
        publish: Callable[[Path, str], set[Path]],
        synced: Callable[[set[Path]], None],
    ) -> None:
        self._directory = directory
        self._seen = seen
        self._publish = publish
        self._synced = synced
        # Opened before anything is written: it hears of every error from here on.
        self._descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        self._copies: dict[str, Copy] = {}
        self._unsynced = False

    def add(self, descriptor: int, *, check: Callable[[], None] | None = None) -> tuple[str, int]:
        """As `BlobBatch.add`."""
        path, before = self._directory / secrets.token_hex(16), look_at(descriptor)
        tagger, added = self._seen.tagger(), False
        at_once = len(self._copies) < FEW or before.size >= LARGE or not can_sync_all()
        try:
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb", buffering=0) as file:
                for offset, chunk in _chunks(descriptor, before.size, check):
                    tagger.update(chunk)
                    if chunk != HOLE:
                        _write(file.fileno(), chunk, offset)
                file.truncate(before.size)
                if at_once:
                    os.fsync(file.fileno())
                copy = Copy(path, look_at(file.fileno()), tagger.tags)
            if look_at(descriptor) != before:
                raise FileChangedError("it changed while it was read")
            added = self._copies.setdefault(tagger.sha256, copy) is copy
            self._unsynced |= added and not at_once
        finally:
            if not added:
                path.unlink(missing_ok=True)
        return tagger.sha256, before.size

    def keep(self) -> None:
        """As `BlobBatch.keep`."""
        if self._unsynced:
            sync_all(self._descriptor)
        directories: set[Path] = set()
        while self._copies:
            sha256, copy = next(iter(self._copies.items()))
            directories |= self._publish(copy.path, sha256)
            del self._copies[sha256]
            self._note(sha256, copy)
        if len(directories) > FEW and can_sync_all():
            sync_all(self._descriptor)
        else:
            for directory in directories:
                sync_path(directory)
        self._synced(directories)

    def _note(self, sha256: str, copy: Copy) -> None:
        """Renaming has changed how it looks, in one point."""
        with suppress(FileNotFoundError):
            now = look_at(self._directory.parent / sha256[:2] / sha256[2:])
            if now[:-1] == copy.look[:-1]:
                self._seen.note(sha256, now, copy.tags)

    def discard(self) -> None:
        """Removes what was not kept, and ends the batch."""
        os.close(self._descriptor)
        for copy in self._copies.values():
            copy.path.unlink(missing_ok=True)


def _chunks(descriptor: int, size: int, check: Callable[[], None] | None) -> Iterator[tuple[int, bytes]]:
    """Offset and bytes of each chunk, of so many bytes in all: a file that grows is not followed."""
    for offset in range(0, size, CHUNK):
        if check is not None:
            check()
        count = min(CHUNK, size - offset)
        chunk = read_chunk(descriptor, offset, count)
        if len(chunk) < count:
            raise FileChangedError("it shrank while it was read")
        yield offset, chunk


def _write(descriptor: int, chunk: bytes, offset: int) -> None:
    view = memoryview(chunk)
    while view:
        written = os.pwrite(descriptor, view, offset)
        if not written:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        view, offset = view[written:], offset + written
