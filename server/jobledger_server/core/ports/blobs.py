"""Bytes by their hash."""

from collections.abc import AsyncIterator
from typing import Protocol


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

    async def delete(self, sha256: str) -> None:
        """Nothing happens where there is none."""


class BlobDamagedError(Exception):
    """The bytes no longer match their hash."""
