"""What is taken from a job's output, and what is refused: a job is not trusted."""

import hashlib
import os
import re
import socket
import stat
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
from jobledger_server.blobs.files import FileBlobs
from jobledger_server.core.output_names import MAX_PATH
from jobledger_server.service import collecting
from jobledger_server.service.collecting import Collected, Collector

pytestmark = [pytest.mark.timeout(20), pytest.mark.usefixtures("opening")]


@pytest.fixture
def collector(tmp_path: Path) -> Collector:
    return Collector(blobs=FileBlobs(tmp_path / "blobs"))


def write(output: Path, files: Mapping[str, str]) -> None:
    for path, text in files.items():
        (output / path).parent.mkdir(parents=True, exist_ok=True)
        (output / path).write_text(text)


async def paths(collector: Collector, output: Path, globs: Sequence[str] = ()) -> list[str]:
    return [found.path for found in (await collector.collect(output, globs)).outputs]


def refusals(collected: Collected) -> dict[str, str]:
    return {refusal.path: refusal.reason for refusal in collected.refused}


async def test_every_file_is_collected_by_path_with_size_and_hash(collector: Collector, output: Path) -> None:
    write(output, {"b.txt": "two", "a/c.txt": "three", "empty": "", "a/a b.txt": "é"})
    collected = await collector.collect(output, [])
    assert [(found.path, found.size) for found in collected.outputs] == [
        ("a/a b.txt", 2),
        ("a/c.txt", 5),
        ("b.txt", 3),
        ("empty", 0),
    ]
    assert collected.outputs[2].sha256 == hashlib.sha256(b"two").hexdigest()
    assert not collected.refused


async def test_what_was_collected_can_be_read_from_the_store(output: Path, tmp_path: Path) -> None:
    blobs = FileBlobs(tmp_path / "blobs")
    write(output, {"a": "data"})
    [found] = (await Collector(blobs=blobs).collect(output, [])).outputs
    assert b"".join([chunk async for chunk in blobs.read(found.sha256, 0, found.size)]) == b"data"


async def test_globs_choose_what_is_collected_and_what_is_refused(collector: Collector, output: Path) -> None:
    write(output, {"a.csv": "", "a.txt": "", "d/b.csv": ""})
    (output / "link.csv").symlink_to("a.csv")
    (output / "link.txt").symlink_to("a.txt")
    assert await paths(collector, output, ["*.csv"]) == ["a.csv"]
    assert await paths(collector, output, ["**/*.csv"]) == ["a.csv", "d/b.csv"]
    assert await paths(collector, output, ["d/*", "a.txt"]) == ["a.txt", "d/b.csv"]
    assert list(refusals(await collector.collect(output, ["*.csv"]))) == ["link.csv"]


async def test_what_was_declared_is_collected_whatever_the_globs_name(
    collector: Collector, output: Path, tmp_path: Path
) -> None:
    """And refused where it is not a file of the job's own, by the path that was declared."""
    write(output, {"a.csv": "", "a.log": "", "b.log": "", "d/c.log": ""})
    write(tmp_path / "elsewhere", {"e.log": ""})
    (output / "link").symlink_to(tmp_path / "elsewhere")
    declared = ["a.csv", "b.log", "d", "link/e.log", "missing.log"]
    collected = await collector.collect(output, ["*.csv"], declared)
    assert [found.path for found in collected.outputs] == ["a.csv", "b.log"]
    assert refusals(collected) == dict.fromkeys(
        ["d", "link/e.log", "missing.log"], "declared, and there is no such file"
    )


async def test_links_are_refused_wherever_they_lead(collector: Collector, output: Path, tmp_path: Path) -> None:
    write(output, {"real/file": "data"})
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("secret")
    targets: dict[str, str | Path] = {
        "within": "real/file",
        "file": tmp_path / "outside" / "secret",
        "directory": tmp_path / "outside",
        "nowhere": "gone",
        "itself": "itself",
        "up": "..",
    }
    for name, target in targets.items():
        (output / name).symlink_to(target)
    collected = await collector.collect(output, [])
    assert [found.path for found in collected.outputs] == ["real/file"]
    assert refusals(collected) == dict.fromkeys(
        ("directory", "file", "itself", "nowhere", "up", "within"), "a symbolic link"
    )


async def test_a_file_with_another_name_is_refused(collector: Collector, output: Path, tmp_path: Path) -> None:
    """It may be a file of somebody else, which the job could not read itself."""
    (tmp_path / "secret").write_text("secret")
    os.link(tmp_path / "secret", output / "taken")
    assert refusals(await collector.collect(output, [])) == {"taken": "has more than one hard link"}


async def test_pipes_and_sockets_are_refused_without_waiting_for_them(collector: Collector, output: Path) -> None:
    os.mkfifo(output / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(output / "socket"))
        collected = await collector.collect(output, [])
    assert refusals(collected) == {"pipe": "not a regular file", "socket": "not a regular file"}


async def test_devices_are_refused(collector: Collector, output: Path) -> None:
    try:
        os.mknod(output / "zero", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("only root makes devices")
    assert refusals(await collector.collect(output, [])) == {"zero": "not a regular file"}


@pytest.mark.parametrize(
    "name",
    [
        "new\nline",
        "\x1b[2J",
        "right\u202eleft",
        "zero\u200bwidth",
        "back\\slash",
        "\x7f",
        "..\\x",
        "%2e%2e%2fx",
        "%2E%2e",
        "%252e%252e%252fx",
        "a%2fb",
        "a%5cb",
        "nul%00",
        "%0d%0aSet-Cookie: x",
        "CON",
        "nul.txt",
        "C:x",
        "a:b",
        "trail.",
        "sp ",
        "...",
    ],
)
async def test_names_that_would_deceive_a_reader_are_refused(collector: Collector, output: Path, name: str) -> None:
    write(output, {name: "", "plain": ""})
    collected = await collector.collect(output, [])
    assert [found.path for found in collected.outputs] == ["plain"]
    assert list(refusals(collected)) == [name]


async def test_a_directory_with_such_a_name_is_refused_with_all_that_is_in_it(
    collector: Collector, output: Path
) -> None:
    write(output, {"a\nb/c": "", "a\nb/d/e": "", "%2e%2e/f.csv": "", "g.csv": ""})
    collected = await collector.collect(output, ["**/*.csv"])
    assert [found.path for found in collected.outputs] == ["g.csv"]
    assert list(refusals(collected)) == ["%2e%2e", "a\nb"]


async def test_a_name_that_holds_a_secret_is_refused_and_not_repeated(collector: Collector, output: Path) -> None:
    """Files by their own number and directories with all that is in them; the globs still say what is told of."""
    write(output, {"hush.csv": "", "hush.log": "", "hushed/a.csv": "", "plain.csv": "", "plain/b.csv": ""})
    withheld = [(output / name).stat().st_ino for name in ("hush.csv", "hush.log", "hushed")]
    for globs in ([], ["**/*.csv"]):
        collected = await collector.collect(output, globs, ["***"], withheld=withheld)
        assert [found.path for found in collected.outputs] == ["plain.csv", "plain/b.csv"]
        assert [(it.path, it.reason) for it in collected.refused] == [("***", "its name holds a secret")]


async def test_names_in_any_script_are_fine(collector: Collector, output: Path) -> None:
    write(output, {"отчёт.csv": "", "报告/結果.txt": "", "naïve 🎉.md": "", "100%.txt": "", "50%20off": "", "-rf": ""})
    assert await paths(collector, output) == [
        "-rf", "100%.txt", "50%20off", "naïve 🎉.md", "отчёт.csv", "报告/結果.txt"
    ]  # fmt: skip


async def test_a_name_that_is_not_utf_8_is_refused_and_told_with_escapes(collector: Collector, output: Path) -> None:
    (output / os.fsdecode(b"caf\xe9")).touch()
    assert list(refusals(await collector.collect(output, []))) == ["caf\\xe9"]


async def test_a_path_that_is_too_long_is_refused(collector: Collector, output: Path) -> None:
    parts = "/".join(["d" * 200] * 5)
    write(output, {f"{parts}/{'f' * 19}": "", f"{parts}/{'f' * 20}": ""})
    collected = await collector.collect(output, [])
    assert [len(found.path) for found in collected.outputs] == [MAX_PATH]
    assert list(refusals(collected)) == [f"{parts}/{'f' * 20}"]


@pytest.fixture
def abyss() -> Iterator[Path]:
    """Directories in each other, deeper than a call stack; not in tmp_path, since pytest could not remove them."""
    top = Path(tempfile.mkdtemp())
    inner = os.open(top, os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("d", dir_fd=inner)
        outer, inner = inner, os.open("d", os.O_RDONLY, dir_fd=inner)
        os.close(outer)
    os.close(inner)
    yield top
    subprocess.run(["rm", "-rf", top], check=True)


async def test_directories_of_any_depth_do_not_stop_the_collection(collector: Collector, abyss: Path) -> None:
    write(abyss, {"a": ""})
    collected = await collector.collect(abyss, [])
    assert [found.path for found in collected.outputs] == ["a"]
    [reason] = refusals(collected).values()
    assert "longer than" in reason


async def test_a_job_may_have_removed_its_output_directory(collector: Collector, output: Path) -> None:
    """Its end must be stored all the same."""
    output.rmdir()
    collected = await collector.collect(output, [])
    assert not collected.outputs
    assert refusals(collected) == {"": "output/ is not a directory any more"}


@pytest.mark.parametrize("kind", ["link", "file"])
async def test_something_else_in_place_of_the_output_directory_is_refused(
    collector: Collector, output: Path, tmp_path: Path, kind: str
) -> None:
    output.rmdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "secret").write_text("secret")
    output.symlink_to(tmp_path / "elsewhere") if kind == "link" else output.touch()
    collected = await collector.collect(output, [])
    assert not collected.outputs
    assert refusals(collected) == {"": "output/ is not a directory any more"}


async def test_what_holes_feign_counts_for_the_limit_of_the_disk(collector: Collector, output: Path) -> None:
    """While the job ran they took no room; in the hands of others they might."""
    write(output, {"a": "12345", "c": "1234", "d": "123"})
    with (output / "b").open("wb") as file:
        file.truncate(150_000_000)
    collected = await collector.collect(output, [], most_bytes=10)
    assert [found.path for found in collected.outputs] == ["a", "c"]
    assert refusals(collected) == {
        "b": "its 150000000 bytes are past the limit of the job (limits.disk_bytes), of which 5 are left",
        "d": "its 3 bytes are past the limit of the job (limits.disk_bytes), of which 1 are left",
    }


async def test_holes_that_are_more_than_the_disk_has_room_for_are_refused(collector: Collector, output: Path) -> None:
    disk = os.statvfs(output)
    with (output / "big").open("wb") as file:
        file.truncate(disk.f_bavail * disk.f_frsize + 2**30)
    (reason,) = refusals(await collector.collect(output, [])).values()
    assert "holes included, are more than the disk has room for" in reason


async def test_holes_of_all_files_together_are_bounded(
    collector: Collector, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They cost a job nothing, and the server the time to read and hash them. What was written is no hole."""
    monkeypatch.setattr(collecting, "MOST_IN_HOLES", 5_000_000)
    for name, size in (("a", 3_000_000), ("b", 3_000_000), ("c", 1_500_000), ("huge", 10**11)):
        with (output / name).open("wb") as file:
            file.truncate(size)
            file.write(b"x")
    (output / "solid").write_bytes(b"x" * 6_000_000)
    disk = os.statvfs(output)
    monkeypatch.setattr(os, "fstatvfs", lambda _: SimpleNamespace(f_bavail=10**12, f_frsize=disk.f_frsize))
    collected = await collector.collect(output, [])
    assert [found.path for found in collected.outputs] == ["a", "c", "solid"]
    said = refusals(collected)
    assert said.keys() == {"b", "huge"}
    for name, size in (("b", 3_000_000), ("huge", 10**11)):
        assert re.fullmatch(rf"sparse: \d+ of its {size} bytes are holes; .* 5000000 together", said[name])


async def test_holes_stay_holes(output: Path, tmp_path: Path) -> None:
    data = bytes(5_000_000) + b"x" + bytes(3_000_000)
    with (output / "holes").open("wb") as file:
        file.seek(5_000_000)
        file.write(b"x")
        file.truncate(len(data))
    blobs = FileBlobs(tmp_path / "blobs")
    [found] = (await Collector(blobs=blobs).collect(output, [])).outputs
    assert (found.size, found.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert b"".join([chunk async for chunk in blobs.read(found.sha256, 0, found.size)]) == data
    taken = sum(path.stat().st_blocks * 512 for path in (tmp_path / "blobs").rglob("*") if path.is_file())
    assert taken < 3_000_000
