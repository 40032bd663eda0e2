"""Downloads on the client's side: where files come to lie, what is replaced, and going on after a cut."""

import asyncio
import hashlib
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import jobledger
import pytest
from google.api.httpbody_pb2 import HttpBody
from jobledger import Client, partial_files
from jobledger.partial_files import PartialFile
from jobledger.v1.job_pb2 import Artifact
from sdk.fake_server import FakeServer, Refusal

CONTENT = b"one two three"
GONE = Refusal(reason="ENGINE_SHUTTING_DOWN")
LOST = Refusal(reason="ARTIFACT_QUARANTINED")


def an_artifact(name: str = "a.txt") -> Artifact:
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    return Artifact(id=4, name=name, path=f"sub/{name}", sha256=sha256, size_bytes=len(CONTENT))


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


async def test_a_download_that_was_cut_goes_on_when_it_is_asked_for_again(
    server: FakeServer, client: Client, tmp_path: Path
) -> None:
    server.on("DownloadArtifact", [HttpBody(data=CONTENT[:4]), GONE], GONE)
    with pytest.raises(jobledger.UnavailableError):
        await client.download_artifact("job_1", an_artifact(), tmp_path)
    [part] = names(tmp_path)
    assert part.startswith(".jobledger-")
    asked = len(server.requests["DownloadArtifact"])
    server.on("DownloadArtifact", [HttpBody(data=CONTENT[4:])])
    written = await client.download_artifact("job_1", an_artifact(), tmp_path)
    assert (written.read_bytes(), names(tmp_path)) == (CONTENT, ["a.txt"])
    assert [request.offset for request in server.requests["DownloadArtifact"][asked:]] == [4]


async def test_a_part_that_is_not_of_the_artifact_is_fetched_again(
    server: FakeServer, client: Client, tmp_path: Path
) -> None:
    part = tmp_path / f".jobledger-{an_artifact().sha256[:32]}.part"
    part.write_bytes(b"XXX")
    server.on("DownloadArtifact", [HttpBody(data=CONTENT[3:])], [HttpBody(data=CONTENT)])
    written = await client.download_artifact("job_1", an_artifact(), tmp_path)
    assert (written.read_bytes(), names(tmp_path)) == (CONTENT, ["a.txt"])
    assert [request.offset for request in server.requests["DownloadArtifact"]] == [3, 0]


async def test_a_link_in_place_of_a_part_is_not_written_through(
    server: FakeServer, client: Client, tmp_path: Path
) -> None:
    (tmp_path / "mine").write_text("precious")
    (tmp_path / f".jobledger-{an_artifact().sha256[:32]}.part").symlink_to("mine")
    server.on("DownloadArtifact", [HttpBody(data=CONTENT)])
    await client.download_artifact("job_1", an_artifact(), tmp_path / "f")
    assert ((tmp_path / "mine").read_text(), (tmp_path / "f").read_bytes()) == ("precious", CONTENT)


async def test_bytes_that_the_server_lost_leave_no_part(server: FakeServer, client: Client, tmp_path: Path) -> None:
    server.on("DownloadArtifact", [HttpBody(data=CONTENT[:4]), LOST])
    with pytest.raises(jobledger.DataLossError):
        await client.download_artifact("job_1", an_artifact(), tmp_path)
    assert names(tmp_path) == []


async def test_a_cancelled_download_keeps_what_came(server: FakeServer, client: Client, tmp_path: Path) -> None:
    sent = asyncio.Event()

    async def stall() -> AsyncIterator[HttpBody]:
        yield HttpBody(data=CONTENT[:4])
        sent.set()
        await asyncio.Event().wait()

    server.on("DownloadArtifact", lambda _: stall())
    download = asyncio.create_task(client.download_artifact("job_1", an_artifact(), tmp_path))
    await sent.wait()
    while not any(path.stat().st_size for path in tmp_path.iterdir()):
        await asyncio.sleep(0)
    download.cancel()
    with pytest.raises(asyncio.CancelledError):
        await download
    [part] = tmp_path.iterdir()
    assert (part.name, part.read_bytes()) == (f".jobledger-{an_artifact().sha256[:32]}.part", CONTENT[:4])


async def test_a_cut_after_the_last_byte_is_no_failure(server: FakeServer, client: Client, tmp_path: Path) -> None:
    outside = Refusal(reason="RANGE_NOT_SATISFIABLE", metadata={"size": str(len(CONTENT))})
    server.on("DownloadArtifact", [HttpBody(data=CONTENT), GONE], outside)
    written = await client.download_artifact("job_1", an_artifact(), tmp_path)
    assert written.read_bytes() == CONTENT


class HashedWithPauses:
    """Holds up whoever hashes, until the event loop has been at work meanwhile and says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.go_on, self.sizes = asyncio.Event(), threading.Event(), list[int]()
        hashed, loop = PartialFile._count, asyncio.get_running_loop()

        def count(file: PartialFile, chunk: bytes) -> None:
            loop.call_soon_threadsafe(self.begun.set)
            assert self.go_on.wait(10), "the event loop stands still"
            self.sizes.append(len(chunk))
            hashed(file, chunk)

        monkeypatch.setattr(PartialFile, "_count", count)


@pytest.mark.parametrize("kept", [0, 4])
async def test_a_caller_goes_on_while_files_are_read_written_and_hashed(
    server: FakeServer, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    if kept:
        (tmp_path / f".jobledger-{an_artifact().sha256[:32]}.part").write_bytes(CONTENT[:kept])
    server.on("DownloadArtifact", [HttpBody(data=CONTENT[kept:])])
    pauses = HashedWithPauses(monkeypatch)
    download = asyncio.create_task(client.download_artifact("job_1", an_artifact(), tmp_path))
    await pauses.begun.wait()
    pauses.go_on.set()
    assert (await download).read_bytes() == CONTENT


@pytest.mark.parametrize("kept", [0, 4])
async def test_a_download_that_is_cancelled_ends_after_its_thread(
    server: FakeServer, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    """Else the thread would write to a file that is kept already, or make one that nobody removes. It makes haste."""
    monkeypatch.setattr(partial_files, "CHUNK", 1)
    part = tmp_path / f".jobledger-{an_artifact().sha256[:32]}.part"
    if kept:
        part.write_bytes(CONTENT[:kept])
    server.on("DownloadArtifact", [HttpBody(data=CONTENT)])
    pauses = HashedWithPauses(monkeypatch)
    download = asyncio.create_task(client.download_artifact("job_1", an_artifact(), tmp_path))
    await pauses.begun.wait()
    for _ in range(2):
        download.cancel()
        for _ in range(10):
            await asyncio.sleep(0)
        assert not download.done()
    pauses.go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await download
    assert (names(tmp_path), part.read_bytes()) == ([part.name], CONTENT[: kept or None])
    assert pauses.sizes == [1 if kept else len(CONTENT)]


@pytest.mark.parametrize("kind", ["file", "link", "dangling"])
async def test_nothing_is_replaced_without_being_told(
    server: FakeServer, client: Client, tmp_path: Path, kind: str
) -> None:
    target, mine = tmp_path / "f", tmp_path / "mine"
    mine.write_text("mine")
    target.write_text("mine") if kind == "file" else target.symlink_to("mine" if kind == "link" else "nowhere")
    server.on("DownloadArtifact", [HttpBody(data=CONTENT)])
    with pytest.raises(FileExistsError):
        await client.download_artifact("job_1", an_artifact(), target)
    assert "DownloadArtifact" not in server.requests
    await client.download_artifact("job_1", an_artifact(), target, overwrite=True)
    assert (target.read_bytes(), target.is_symlink(), mine.read_text()) == (CONTENT, False, "mine")


async def test_a_file_that_comes_meanwhile_is_not_replaced(server: FakeServer, client: Client, tmp_path: Path) -> None:
    def late(_: object) -> list[HttpBody]:
        (tmp_path / "f").write_text("mine")
        return [HttpBody(data=CONTENT)]

    server.on("DownloadArtifact", late)
    with pytest.raises(FileExistsError):
        await client.download_artifact("job_1", an_artifact(), tmp_path / "f")
    assert ((tmp_path / "f").read_text(), names(tmp_path)) == ("mine", ["f"])


async def test_a_file_system_without_hard_links_will_do(
    server: FakeServer, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_link(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_link)
    server.on("DownloadArtifact", [HttpBody(data=CONTENT)])
    written = await client.download_artifact("job_1", an_artifact(), tmp_path)
    assert (written.read_bytes(), names(tmp_path)) == (CONTENT, ["a.txt"])


async def test_a_name_like_an_option_is_a_file_as_any_other(
    server: FakeServer, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    server.on("DownloadArtifact", [HttpBody(data=CONTENT)])
    written = await client.download_artifact("job_1", an_artifact("-rf"), ".")
    assert (names(tmp_path), written.read_bytes()) == (["-rf"], CONTENT)


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "/etc/x", "a\\b", "a\0b"])
async def test_a_name_of_the_servers_never_leads_out(
    server: FakeServer, client: Client, tmp_path: Path, name: str
) -> None:
    server.on("DownloadArtifact", [HttpBody(data=CONTENT)])
    with pytest.raises(jobledger.SetupError):
        await client.download_artifact("job_1", an_artifact(name), tmp_path)
    assert names(tmp_path) == []
    assert "DownloadArtifact" not in server.requests


async def test_two_downloads_of_the_same_do_not_share_a_part(
    server: FakeServer, client: Client, tmp_path: Path
) -> None:
    server.on("DownloadArtifact", [HttpBody(data=CONTENT)])
    targets = [tmp_path / str(number) for number in range(5)]
    await asyncio.gather(*(client.download_artifact("job_1", an_artifact(), target) for target in targets))
    assert {target.read_bytes() for target in targets} == {CONTENT}
    assert len(names(tmp_path)) == 5
