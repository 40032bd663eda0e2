"""Bytes by their hash."""

import asyncio
import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from jobledger_server.blobs import files
from jobledger_server.blobs.files import FileBlobs
from jobledger_server.core.ports import BlobDamagedError, Blobs
from support.blobs import put as put_file

CHUNK = 1024 * 1024
CONTENT = bytes(range(256)) * (CHUNK // 256) + bytes(range(255, -1, -1)) * (CHUNK // 256) + b"the end"
UNKNOWN = hashlib.sha256(b"never put").hexdigest()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "blobs"


@pytest.fixture(params=["files"])
def blobs(root: Path) -> Blobs:
    return FileBlobs(root)


@contextmanager
def a_file(directory: Path, content: bytes) -> Iterator[int]:
    path = directory / "source"
    path.write_bytes(content)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


async def put(blobs: Blobs, directory: Path, content: bytes) -> str:
    with a_file(directory, content) as descriptor:
        sha256, _ = put_file(blobs, descriptor)
    return sha256


async def read(blobs: Blobs, sha256: str, offset: int = 0, length: int = 2**62) -> bytes:
    return b"".join([chunk async for chunk in blobs.read(sha256, offset, length)])


def stored(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]


def modes(root: Path) -> set[tuple[str, int]]:
    paths = [root, *root.rglob("*")]
    return {("directory" if path.is_dir() else "file", path.stat().st_mode & 0o777) for path in paths}


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 3 * CHUNK + 1])
async def test_what_is_put_is_read_back_under_its_hash(blobs: Blobs, tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    with a_file(tmp_path, content) as descriptor:
        assert put_file(blobs, descriptor) == (hashlib.sha256(content).hexdigest(), size)
    sha256 = hashlib.sha256(content).hexdigest()
    chunks = [chunk async for chunk in blobs.read(sha256, 0, size)]
    assert b"".join(chunks) == content
    assert all(0 < len(chunk) <= CHUNK // 2 for chunk in chunks)
    assert await blobs.verify(sha256)


@pytest.mark.parametrize("in_memory", ["all", "none", "unknown"])
async def test_bytes_are_read_whether_they_are_in_memory_or_not(
    blobs: Blobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_memory: str
) -> None:
    sha256 = await put(blobs, tmp_path, CONTENT)
    if in_memory == "unknown":
        monkeypatch.setattr(files, "NO_WAIT", None)
    if in_memory == "none":
        with next(tmp_path.rglob(sha256[2:])).open("rb") as stored:
            os.fsync(stored.fileno())
            os.posix_fadvise(stored.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    assert await read(blobs, sha256) == CONTENT
    assert await read(blobs, sha256, CHUNK - 1, 2) == CONTENT[CHUNK - 1 : CHUNK + 1]


async def test_the_whole_file_is_put_wherever_its_position_is_and_that_stays(blobs: Blobs, tmp_path: Path) -> None:
    with a_file(tmp_path, CONTENT) as descriptor:
        os.lseek(descriptor, 10, os.SEEK_SET)
        assert put_file(blobs, descriptor) == (hashlib.sha256(CONTENT).hexdigest(), len(CONTENT))
        assert os.lseek(descriptor, 0, os.SEEK_CUR) == 10


@pytest.mark.parametrize(
    "offset", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, len(CONTENT) - 1, len(CONTENT), len(CONTENT) + 5]
)
async def test_a_part_is_those_bytes_and_no_others(blobs: Blobs, tmp_path: Path, offset: int) -> None:
    sha256 = await put(blobs, tmp_path, CONTENT)
    for length in (1, 2, CHUNK - 1, CHUNK, CHUNK + 1, len(CONTENT) + 5):
        assert await read(blobs, sha256, offset, length) == CONTENT[offset : offset + length]


async def test_the_same_bytes_are_kept_once(blobs: Blobs, tmp_path: Path, root: Path) -> None:
    assert await put(blobs, tmp_path, CONTENT) == await put(blobs, tmp_path, CONTENT)
    assert len(stored(root)) == 1


async def test_concurrent_puts_of_the_same_bytes_agree(blobs: Blobs, tmp_path: Path, root: Path) -> None:
    with a_file(tmp_path, CONTENT) as descriptor:
        answers = await asyncio.gather(*(asyncio.to_thread(put_file, blobs, descriptor) for _ in range(8)))
    assert len(set(answers)) == len(stored(root)) == 1
    assert await read(blobs, answers[0][0]) == CONTENT


@pytest.mark.parametrize("sha256", [UNKNOWN, "", "../../etc/passwd", "AB" * 32, "é" * 64])
async def test_a_blob_that_is_not_there_is_not_found(blobs: Blobs, sha256: str) -> None:
    with pytest.raises(FileNotFoundError):
        await read(blobs, sha256)
    assert not await blobs.verify(sha256)
    await blobs.delete(sha256)


async def test_a_deleted_blob_is_gone_and_can_be_put_again(blobs: Blobs, tmp_path: Path) -> None:
    sha256 = await put(blobs, tmp_path, CONTENT)
    await blobs.delete(sha256)
    with pytest.raises(FileNotFoundError):
        await read(blobs, sha256)
    assert await put(blobs, tmp_path, CONTENT) == sha256
    assert await read(blobs, sha256) == CONTENT


def flip_first(content: bytes) -> bytes:
    return b"\xff" + content[1:]


def truncate(content: bytes) -> bytes:
    return content[:-1]


def extend(content: bytes) -> bytes:
    return content + b"!"


def empty(content: bytes) -> bytes:
    return b""


@pytest.mark.parametrize("damage", [flip_first, truncate, extend, empty])
async def test_damage_is_told_before_the_last_chunk_of_a_whole_read(
    blobs: Blobs, tmp_path: Path, root: Path, damage: Callable[[bytes], bytes]
) -> None:
    """A reader that takes the bytes as they come never holds all of a damaged blob without knowing."""
    sha256 = await put(blobs, tmp_path, CONTENT)
    [path] = stored(root)
    damaged = damage(CONTENT)
    path.write_bytes(damaged)
    received = bytearray()

    async def receive() -> None:
        async for chunk in blobs.read(sha256, 0, 2**62):
            received.extend(chunk)

    with pytest.raises(BlobDamagedError, match=sha256):
        await receive()
    assert len(received) < len(damaged) or not damaged
    assert not await blobs.verify(sha256)


async def test_damage_is_told_in_every_part_and_before_a_byte_of_its_chunk(
    blobs: Blobs, tmp_path: Path, root: Path
) -> None:
    """What was read before does not count where the file was touched since; what is intact no longer counts either."""
    sha256 = await put(blobs, tmp_path, CONTENT)
    [path] = stored(root)
    with path.open("r+b") as file:
        file.seek(CHUNK + 7)
        file.write(b"!!")
    for offset, length in ((CHUNK + 7, 1), (CHUNK + 8, 5), (0, 10), (0, 2**62)):
        with pytest.raises(BlobDamagedError, match=sha256):
            await read(blobs, sha256, offset, length)


async def test_damage_in_the_middle_of_a_read_ends_it_before_the_damaged_chunk(
    blobs: Blobs, tmp_path: Path, root: Path
) -> None:
    """Not even where it can't be told by the file's times."""
    content = os.urandom(4 * CHUNK)
    sha256 = await put(blobs, tmp_path, content)
    [path] = stored(root)
    times, received = path.stat(), bytearray()

    async def receive() -> None:
        async for chunk in blobs.read(sha256, 0, 2**62):
            received.extend(chunk)
            if len(received) == CHUNK:
                with path.open("r+b") as file:
                    file.seek(3 * CHUNK)
                    file.write(b"!" if content[3 * CHUNK] != ord("!") else b"?")
                os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))

    with pytest.raises(BlobDamagedError, match=sha256):
        await receive()
    assert bytes(received) == content[: 3 * CHUNK]
    assert not await blobs.verify(sha256)


async def test_what_is_intact_is_found_so_by_a_store_that_has_not_seen_it(
    blobs: Blobs, tmp_path: Path, root: Path
) -> None:
    sha256 = await put(blobs, tmp_path, CONTENT)
    again = FileBlobs(root)
    assert await read(again, sha256, CHUNK + 1, 5) == CONTENT[CHUNK + 1 : CHUNK + 6]
    stored(root)[0].write_bytes(b"damaged")
    assert not await FileBlobs(root).verify(sha256)


async def test_an_intact_blob_that_was_touched_is_still_served(blobs: Blobs, tmp_path: Path, root: Path) -> None:
    sha256 = await put(blobs, tmp_path, CONTENT)
    os.utime(stored(root)[0])
    assert await blobs.verify(sha256)
    assert await read(blobs, sha256) == CONTENT


async def test_a_batch_is_stored_when_it_is_kept_and_not_before(blobs: Blobs, tmp_path: Path, root: Path) -> None:
    with blobs.batch() as batch:
        with a_file(tmp_path, CONTENT) as descriptor:
            sha256, size = batch.add(descriptor)
        assert size == len(CONTENT)
        assert not await blobs.verify(sha256)
        batch.keep()
        assert await read(blobs, sha256) == CONTENT
    assert len(stored(root)) == 1


async def test_a_batch_that_is_not_kept_leaves_nothing(blobs: Blobs, tmp_path: Path, root: Path) -> None:
    with blobs.batch() as batch, a_file(tmp_path, CONTENT) as descriptor:
        sha256, _ = batch.add(descriptor)
    assert stored(root) == []
    assert not await blobs.verify(sha256)


async def test_putting_the_bytes_again_heals_a_damaged_blob(blobs: Blobs, tmp_path: Path, root: Path) -> None:
    sha256 = await put(blobs, tmp_path, CONTENT)
    stored(root)[0].write_bytes(b"damaged")
    await put(blobs, tmp_path, CONTENT)
    assert await read(blobs, sha256) == CONTENT


async def test_only_the_owner_can_read_blobs(blobs: Blobs, tmp_path: Path, root: Path) -> None:
    await put(blobs, tmp_path, CONTENT)
    assert modes(root) == {("directory", 0o700), ("file", 0o600)}


async def test_a_put_that_fails_leaves_nothing(
    blobs: Blobs, tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="No space left"):
        await put(blobs, tmp_path, CONTENT)
    assert stored(root) == []


async def test_what_a_crash_left_of_a_put_is_discarded_and_blobs_are_kept(tmp_path: Path, root: Path) -> None:
    blobs = FileBlobs(root)
    sha256 = await put(blobs, tmp_path, CONTENT)
    (root / "incoming" / "0123").write_bytes(CONTENT[:100])
    blobs.discard_unfinished()
    assert len(stored(root)) == 1
    assert await read(FileBlobs(root), sha256) == CONTENT
