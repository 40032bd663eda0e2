"""Bytes by their hash."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """A blob that is there: its hash, and its size in bytes."""

    sha256: str
    size: int


class Blobs(Protocol):
    """Bytes by their SHA-256 (lower-case hex)."""

    async def put(self, descriptor: int) -> tuple[str, int]:
        """Copies what an open file holds, durably. Returns its hash and size in bytes."""

    def read(self, sha256: str, offset: int, length: int) -> AsyncIterator[bytes]:
        """The bytes in chunks of at most 256 KiB.

        Raises:
            BlobDamagedError: before the last chunk of a whole read, where the bytes don't match the hash.
            FileNotFoundError: there is no such blob.
        """

    async def verify(self, sha256: str) -> bool:
        """Whether the bytes are there and match."""

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
