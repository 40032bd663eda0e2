"""Deleting blobs that nobody needs, while others put the very same bytes."""

import asyncio
import random
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest
from contracts.test_blobs import CONTENT, UNKNOWN, put
from jobledger_server.blobs.files import FileBlobs
from jobledger_server.core.ports import Blobs


@pytest.fixture(params=["files"])
def blobs(tmp_path: Path) -> Blobs:
    return FileBlobs(tmp_path / "blobs")


async def listed(blobs: Blobs) -> dict[str, int]:
    return {blob.sha256: blob.size async for batch in blobs.stored() for blob in batch}


async def test_all_that_is_stored_is_listed_with_its_size(blobs: Blobs, tmp_path: Path) -> None:
    assert await listed(blobs) == {}
    contents = [bytes([number]) * number for number in range(20)]
    hashes = [await put(blobs, tmp_path, content) for content in contents]
    assert await listed(blobs) == {sha256: len(content) for sha256, content in zip(hashes, contents, strict=True)}


async def test_deleting_tells_whether_there_was_one(blobs: Blobs, tmp_path: Path) -> None:
    sha256 = await put(blobs, tmp_path, CONTENT)
    assert await blobs.delete(sha256)
    assert not await blobs.delete(sha256)
    assert not await blobs.delete(UNKNOWN)
    assert await listed(blobs) == {}


async def test_what_was_put_in_a_block_is_not_deleted_before_it_is_left(blobs: Blobs, tmp_path: Path) -> None:
    with blobs.protecting():
        sha256 = await put(blobs, tmp_path, CONTENT)
        assert not await blobs.delete(sha256)
        assert await blobs.verify(sha256)
    assert await blobs.delete(sha256)


async def test_what_was_put_before_can_be_deleted_in_a_block(blobs: Blobs, tmp_path: Path) -> None:
    sha256 = await put(blobs, tmp_path, CONTENT)
    with blobs.protecting():
        assert await blobs.delete(sha256)


async def test_a_block_protects_what_was_put_in_one_that_was_open_when_it_began(blobs: Blobs, tmp_path: Path) -> None:
    """Whoever deletes may have asked what is needed before the other one noted it."""
    with ExitStack() as collecting:
        collecting.enter_context(blobs.protecting())
        sha256 = await put(blobs, tmp_path, CONTENT)
        with blobs.protecting():
            collecting.close()
            assert not await blobs.delete(sha256)
        assert await blobs.delete(sha256)


async def test_putting_anew_what_is_about_to_be_deleted_saves_it(blobs: Blobs, tmp_path: Path) -> None:
    sha256 = await put(blobs, tmp_path, CONTENT)
    with blobs.protecting():
        # Found to be needed by nobody here; then somebody leaves the same bytes.
        with blobs.protecting():
            assert await put(blobs, tmp_path, CONTENT) == sha256
        assert not await blobs.delete(sha256)
    assert await blobs.verify(sha256)


@pytest.mark.parametrize("seed", range(5))
async def test_no_interleaving_loses_what_is_needed(blobs: Blobs, tmp_path: Path, seed: int) -> None:
    """Those who put and note, those who stop needing, and one who deletes what nobody needs, in any order."""
    choose, needed = random.Random(seed), Counter[str]()
    contents = [b"one", b"two", b"three"]

    async def somewhat() -> None:
        for _ in range(choose.randrange(4)):
            await asyncio.sleep(0)

    async def work(number: int) -> None:
        directory = tmp_path / str(number)
        directory.mkdir()
        for _ in range(20):
            with blobs.protecting():
                sha256 = await put(blobs, directory, choose.choice(contents))
                await somewhat()
                needed[sha256] += 1
            await somewhat()
            assert await blobs.verify(sha256)
            needed[sha256] -= 1

    async def collect() -> None:
        while True:
            async for batch in blobs.stored():
                with blobs.protecting():
                    unneeded = [blob.sha256 for blob in batch if not needed[blob.sha256]]
                    await somewhat()
                    for sha256 in unneeded:
                        await blobs.delete(sha256)

    collector = asyncio.create_task(collect())
    try:
        await asyncio.gather(*(work(number) for number in range(3)))
    finally:
        collector.cancel()
        await asyncio.gather(collector, return_exceptions=True)
