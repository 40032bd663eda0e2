"""What is known of blobs whose bytes were held against their hash: so the next reader need not read them twice."""

import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

CHUNK = 1024 * 1024
TAG, NONCE = 16, bytes(12)
# Memory that is spent on tags (for 250 GiB), and blobs that are remembered.
MOST_TAG_BYTES, MOST_BLOBS = 4 * 1024 * 1024, 20_000


class Look(NamedTuple):
    """How a file looked: whoever writes to it changes that."""

    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int


def look_at(file: int | Path) -> Look:
    """How a file looks now.

    Raises:
        OSError: there is none.
    """
    status = os.fstat(file) if isinstance(file, int) else file.stat()
    return Look(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def read_chunk(descriptor: int, offset: int, count: int = CHUNK) -> bytes:
    """So many bytes from an offset on, fewer only where the file ends."""
    chunk = os.pread(descriptor, count, offset)
    while chunk and len(chunk) < count and (more := os.pread(descriptor, count - len(chunk), offset + len(chunk))):
        chunk += more
    return chunk


class Tagger:
    """Hashes bytes that come in chunks of CHUNK, and gives each a tag by which it is known again.

    A tag is as good as a hash for that, and takes a quarter of the time: see `Seen`.
    """

    def __init__(self, tag: Callable[[bytes], bytes]) -> None:
        self._tag = tag
        self._digest = hashlib.sha256()
        self._tags = bytearray()

    def update(self, chunk: bytes) -> None:
        self._digest.update(chunk)
        self._tags += self._tag(chunk)

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    @property
    def tags(self) -> bytes:
        return bytes(self._tags)


class Seen:
    """The blobs that were whole when they were last looked at, the latest of them."""

    def __init__(self, *, most_tag_bytes: int = MOST_TAG_BYTES, most_blobs: int = MOST_BLOBS) -> None:
        self._cipher = AESGCM(AESGCM.generate_key(128))
        self._known: OrderedDict[str, tuple[Look, bytes]] = OrderedDict()
        self._tag_bytes = 0
        self._most_tag_bytes, self._most_blobs = most_tag_bytes, most_blobs
        self._lock = threading.Lock()

    def tagger(self) -> Tagger:
        return Tagger(self._tag)

    def note(self, sha256: str, look: Look, tags: bytes) -> None:
        """A blob is whole: it looked like this when it was read."""
        self.forget(sha256)
        with self._lock:
            self._known[sha256] = look, tags
            self._tag_bytes += len(tags)
            while len(self._known) > self._most_blobs or self._tag_bytes > self._most_tag_bytes:
                _, (_, dropped) = self._known.popitem(last=False)
                self._tag_bytes -= len(dropped)

    def forget(self, sha256: str) -> None:
        """It is gone, or no longer whole."""
        with self._lock:
            _, tags = self._known.pop(sha256, (None, b""))
            self._tag_bytes -= len(tags)

    def tags(self, sha256: str, look: Look) -> bytes | None:
        """The tags of a blob; None where it is not known, or looks otherwise than it did."""
        with self._lock:
            seen = self._known.get(sha256)
            if seen is None or seen[0] != look:
                return None
            self._known.move_to_end(sha256)
            return seen[1]

    def is_chunk(self, tags: bytes, number: int, chunk: bytes | memoryview) -> bool:
        """Whether these are the bytes of the chunk with that number, counted from 0."""
        return self._tag(chunk) == tags[number * TAG : (number + 1) * TAG]

    def _tag(self, chunk: bytes | memoryview) -> bytes:
        # GMAC, which lets other threads run meanwhile. Neither the key nor a tag ever leaves this process: who would
        # put other bytes in place has nothing to go by, so that the nonce need not be another one each time.
        return self._cipher.encrypt(NONCE, b"", chunk)
