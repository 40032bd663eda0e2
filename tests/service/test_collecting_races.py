"""Files that change while they are collected, and machines that lack something: nothing is taken that is not whole."""

import asyncio
import errno
import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jobledger_server.blobs import incoming
from jobledger_server.blobs.files import FileBlobs
from jobledger_server.blobs.seen import read_chunk
from jobledger_server.blobs.syncing import sync_all
from jobledger_server.core import beneath
from jobledger_server.service import collecting, outputs
from jobledger_server.service.collecting import Collected, Collector
from support.eventually import eventually

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("opening")]
CHUNK = 1024 * 1024
TOKEN = "jl_the_token_of_the_server"


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    secret = tmp_path / "secrets" / "token"
    secret.parent.mkdir()
    secret.write_text(TOKEN)
    return secret


@pytest.fixture
def blobs(tmp_path: Path) -> FileBlobs:
    return FileBlobs(tmp_path / "blobs")


@pytest.fixture
def collector(blobs: FileBlobs) -> Collector:
    return Collector(blobs=blobs)


def refusals(collected: Collected) -> dict[str, str]:
    return {refusal.path: refusal.reason for refusal in collected.refused}


def paths(collected: Collected) -> list[str]:
    return [found.path for found in collected.outputs]


def stored(blobs_dir: Path) -> list[Path]:
    return [path for path in blobs_dir.rglob("*") if path.is_file()]


def before_opening(monkeypatch: pytest.MonkeyPatch, path: str, change: Callable[[], object]) -> None:
    """Has `change` happen between the look at a file and its opening."""
    real = beneath.open_beneath

    def late(directory: int, name: str, flags: int) -> int:
        if name == path:
            change()
        return real(directory, name, flags)

    monkeypatch.setattr(collecting, "open_beneath", late)


def while_reading(monkeypatch: pytest.MonkeyPatch, change: Callable[[], object]) -> None:
    """Has `change` happen after each chunk that is read of a file of more than one."""
    real = read_chunk

    def slow(descriptor: int, offset: int, count: int = CHUNK) -> bytes:
        chunk = real(descriptor, offset, count)
        if count == CHUNK:
            change()
        return chunk

    monkeypatch.setattr("jobledger_server.blobs.incoming.read_chunk", slow)


async def test_a_file_that_vanishes_is_told_of(
    collector: Collector, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (output / "a").touch()
    (output / "b").touch()
    before_opening(monkeypatch, "a", (output / "a").unlink)
    collected = await collector.collect(output, [])
    assert paths(collected) == ["b"]
    assert refusals(collected) == {"a": "can't be read: No such file or directory"}


@pytest.mark.parametrize("kind", ["symbolic", "hard"])
async def test_a_file_that_becomes_a_link_to_the_token_is_refused(
    collector: Collector, output: Path, tmp_path: Path, secret: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    def swap() -> None:
        (output / "a").unlink()
        (output / "a").symlink_to(secret) if kind == "symbolic" else os.link(secret, output / "a")

    (output / "a").write_text("mine")
    before_opening(monkeypatch, "a", swap)
    collected = await collector.collect(output, [])
    assert not collected.outputs
    reason = "can't be read: Too many levels of symbolic links" if kind == "symbolic" else "has more than one hard link"
    assert refusals(collected) == {"a": reason}
    assert stored(tmp_path / "blobs") == []


async def test_a_directory_that_becomes_a_link_is_not_followed(
    collector: Collector, output: Path, tmp_path: Path, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def swap() -> None:
        (output / "d").rename(tmp_path / "moved")
        (output / "d").symlink_to(secret.parent)

    (output / "d").mkdir()
    (output / "d" / "token").write_text("mine")
    before_opening(monkeypatch, "d/token", swap)
    collected = await collector.collect(output, [])
    assert not collected.outputs
    assert refusals(collected) == {"d/token": "can't be read: Too many levels of symbolic links"}


async def test_a_directory_that_becomes_a_link_is_not_listed(
    collector: Collector, output: Path, tmp_path: Path, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even what is in it may be told."""
    real = beneath.open_beneath

    def late(directory: int, name: str, flags: int) -> int:
        if name == "d/":
            (output / "d").rename(tmp_path / "moved")
            (output / "d").symlink_to(secret.parent)
        return real(directory, name, flags)

    monkeypatch.setattr(outputs, "open_beneath", late)
    (output / "d").mkdir()
    collected = await collector.collect(output, [])
    assert not collected.outputs
    assert refusals(collected) == {"d": "the directory can't be read: it became a link"}


async def test_a_file_that_becomes_a_pipe_holds_nothing_up(
    collector: Collector, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def swap() -> None:
        (output / "a").unlink()
        os.mkfifo(output / "a")

    (output / "a").write_text("mine")
    before_opening(monkeypatch, "a", swap)
    assert refusals(await collector.collect(output, [])) == {"a": "not a regular file"}


async def test_a_directory_that_can_not_be_read_is_told_of(
    collector: Collector, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = beneath.open_beneath

    def closed(directory: int, name: str, flags: int) -> int:
        if name == "closed/":
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(directory, name, flags)

    monkeypatch.setattr(outputs, "open_beneath", closed)
    (output / "a").touch()
    (output / "closed").mkdir()
    collected = await collector.collect(output, [])
    assert paths(collected) == ["a"]
    assert refusals(collected) == {"closed": "the directory can't be read: Permission denied"}


@pytest.mark.parametrize(("change", "why"), [("grow", "changed"), ("shrink", "shrank"), ("rewrite", "changed")])
async def test_a_file_that_changes_while_it_is_read_is_refused_and_leaves_nothing(
    collector: Collector, output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str, why: str
) -> None:
    """A hash of bytes that never were there together would say nothing."""
    file = output / "big"
    file.write_bytes(os.urandom(3 * CHUNK))
    changes: dict[str, Callable[[], object]] = {
        "grow": lambda: os.truncate(file, 3 * CHUNK + 5),
        "shrink": lambda: os.truncate(file, CHUNK + 5),
        "rewrite": lambda: file.write_bytes(os.urandom(3 * CHUNK)),
    }
    while_reading(monkeypatch, changes[change])
    collected = await collector.collect(output, [])
    assert not collected.outputs
    assert refusals(collected) == {"big": f"it {why} while it was read"}
    assert stored(tmp_path / "blobs") == []


async def test_a_file_that_grows_for_ever_is_not_followed_for_ever(
    collector: Collector, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, chunks = output / "big", list[int]()
    file.write_bytes(bytes(2 * CHUNK))

    def grow() -> None:
        chunks.append(1)
        with file.open("ab") as end:
            end.write(bytes(4 * CHUNK))

    while_reading(monkeypatch, grow)
    assert list(refusals(await collector.collect(output, []))) == ["big"]
    assert len(chunks) == 2


async def test_a_file_that_vanishes_while_it_is_read_is_collected_whole_or_not_at_all(
    collector: Collector, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its link count tells; what is open can still be read, and yet nobody left it."""
    file = output / "big"
    file.write_bytes(os.urandom(2 * CHUNK))
    while_reading(monkeypatch, lambda: file.unlink(missing_ok=True))
    assert refusals(await collector.collect(output, [])) == {"big": "it changed while it was read"}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EMFILE, errno.EDQUOT])
async def test_what_the_machine_lacks_is_no_fault_of_a_file_and_nothing_is_half_stored(
    collector: Collector, output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """The end of the job waits: asked again, all of it is collected."""
    for name in "abc":
        (output / name).write_text(name)
    real, left = os.pwrite, [2]

    def full(descriptor: int, data: bytes, offset: int) -> int:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(number, os.strerror(number))
        return real(descriptor, data, offset)

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        with pytest.raises(OSError, match=os.strerror(number)):
            await collector.collect(output, [])
    assert stored(tmp_path / "blobs") == []
    assert paths(await collector.collect(output, [])) == ["a", "b", "c"]


async def test_many_files_are_synced_together_before_one_of_them_can_be_seen(
    collector: Collector, output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Durable first, then named: in between a crash leaves copies that the next start discards."""
    for number in range(300):
        (output / f"{number:04}").write_text(str(number))
    steps = list[str]()
    real_sync, real_replace = os.fsync, Path.replace

    def noting(step: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*arguments: Any) -> Any:
            if steps[-1:] != [step]:
                steps.append(step)
            return call(*arguments)

        return noted

    monkeypatch.setattr(os, "fsync", noting("one", real_sync))
    monkeypatch.setattr(incoming, "sync_all", noting("all", sync_all))
    monkeypatch.setattr(Path, "replace", noting("rename", real_replace))
    collected = await collector.collect(output, [])
    assert len(collected.outputs) == 300
    assert collected.outputs[7].sha256 == hashlib.sha256(b"7").hexdigest()
    assert steps == ["one", "all", "rename", "all"]
    assert len(stored(tmp_path / "blobs")) == 300


async def test_without_a_way_to_sync_all_each_file_is_synced(
    collector: Collector, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(50):
        (output / f"{number:04}").write_text(str(number))
    synced = list[int]()
    monkeypatch.setattr(incoming, "can_sync_all", lambda: False)
    monkeypatch.setattr(os, "fsync", synced.append)
    assert len((await collector.collect(output, [])).outputs) == 50
    assert len(synced) >= 50


async def test_a_batch_that_can_not_be_synced_stores_nothing(
    collector: Collector, output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    for number in range(50):
        (output / f"{number:04}").write_text(str(number))
    monkeypatch.setattr(incoming, "sync_all", broken)
    with pytest.raises(OSError, match="Input/output error"):
        await collector.collect(output, [])
    assert stored(tmp_path / "blobs") == []


async def test_the_same_bytes_in_many_files_are_stored_once(collector: Collector, output: Path, tmp_path: Path) -> None:
    for number in range(100):
        (output / f"{number:04}").write_text("the same")
    assert len((await collector.collect(output, [])).outputs) == 100
    assert len(stored(tmp_path / "blobs")) == 1


async def test_more_entries_than_are_looked_at_are_told_of(
    collector: Collector, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outputs, "MOST_ENTRIES", 10)
    for number in range(11):
        (output / f"{number:04}").touch()
    collected = await collector.collect(output, [])
    assert len(collected.outputs) == 10
    assert refusals(collected) == {"": outputs.TOO_MANY}


async def test_an_empty_directory_takes_no_thread(
    collector: Collector, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Most jobs leave nothing: their end must not wait for those that leave gigabytes."""
    monkeypatch.setattr("jobledger_server.service.collecting.ThreadPoolExecutor.submit", None)
    assert await collector.collect(output, []) == Collected((), ())


async def test_a_collection_that_nobody_waits_for_ends_after_the_chunk_that_it_is_at(
    collector: Collector, output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that ends must not go on through gigabytes; nor must what all threads are for wait for them."""
    monkeypatch.setattr("asyncio.to_thread", None)
    chunks, arrived, go_on = 0, asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def stop_at_the_second() -> None:
        nonlocal chunks
        chunks += 1
        if chunks == 2:
            loop.call_soon_threadsafe(arrived.set)
            go_on.wait(10)

    while_reading(monkeypatch, stop_at_the_second)
    with (output / "big").open("wb") as file:
        file.truncate(500 * CHUNK)
    collecting_it = asyncio.create_task(collector.collect(output, []))
    await arrived.wait()
    collecting_it.cancel()
    with pytest.raises(asyncio.CancelledError):
        await collecting_it
    go_on.set()
    await eventually(lambda: leftovers(tmp_path / "blobs"), until=lambda found: not found)
    assert chunks == 2


async def leftovers(blobs_dir: Path) -> list[Path]:
    return stored(blobs_dir)
