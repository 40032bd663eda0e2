"""Bytes by their hash."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """A blob that is there: its hash, and its size in bytes."""

    sha256: str
    size: int


class BlobBatch(Protocol):
    """Blobs that are stored together, or not at all: the many small ones of a job cost little more than one."""

    def add(self, descriptor: int, *, check: Callable[[], None] | None = None) -> tuple[str, int]:
        """Copies what an open regular file holds, from its beginning; its position stays. Returns hash and size.

        Args:
            check: called before each chunk; what it raises ends the copy, and the batch is as before.

        Raises:
            FileChangedError: it grew, shrank or changed while it was copied; the batch is as before.
            OSError: it could not be read or stored; the batch is to be left.
        """

    def keep(self) -> None:
        """Stores what was added. It is durable, and can be read, when this returns.

        Raises:
            OSError: it could not be stored, though some of it may be: nobody needs that yet.
        """


class Blobs(Protocol):
    """Bytes by their SHA-256 (lower-case hex)."""

    def batch(self) -> AbstractContextManager[BlobBatch]:
        """A batch, for a thread: what was not kept when the block is left takes no room any more."""

    def read(self, sha256: str, offset: int, length: int) -> AsyncIterator[bytes]:
        """The bytes in chunks of at most 512 KiB, each of which was held against the hash of the whole.

        Raises:
            BlobDamagedError: in place of the first chunk that is not as it was put.
            FileNotFoundError: there is no such blob.
        """

    async def verify(self, sha256: str) -> bool:
        """Whether the bytes are there and match, as far as can be told without reading all of them again."""

    def protecting(self) -> AbstractContextManager[None]:
        """Until the block is left nothing is deleted that was put in it, or in another one that overlaps with it.

        Whoever puts blobs does so, and notes in the store that they are needed, within one block; whoever deletes what
        the store does not need asks the store within one. So what is put meanwhile, again perhaps, is never lost.
        """

    async def delete(self, sha256: str) -> bool:
        """Deletes a blob. False: there is none, or it is protected."""

    def stored(self) -> AsyncIterator[Sequence[StoredBlob]]:
        """All that was there from the beginning to the end, in batches, each read when it is asked for."""


class BlobDamagedError(Exception):
    """The bytes no longer match their hash."""


class FileChangedError(Exception):
    """A file did not stay as it was while it was copied."""
