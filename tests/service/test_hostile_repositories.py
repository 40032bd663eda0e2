"""Whatever stands in git's files, a start neither fails for it nor is held up: there is a pin, or there is none."""

import os
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jobledger_server.service.git_files import UnreadableError
from jobledger_server.service.git_index import read_index
from jobledger_server.service.git_objects import tree_of_commit
from support.repositories import Repository

# Put in place of any that stand there.
NUMBERS = (b"\0" * 8, b"\xff" * 8, b"\x7f" + b"\xff" * 7, b"\x80" + b"\0" * 7, b"\xff" * 64)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "repository")


@pytest.fixture
def packed(repository: Repository) -> Repository:
    """Its commits are told as differences from others."""
    for number in range(5):
        repository.commit(f"{number} {'long enough that a difference is shorter ' * 5}")
    repository.git("checkout", "--quiet", "HEAD~2")
    repository.git("repack", "-adfq", "--depth=50", "--window=50")
    repository.git("prune-packed")
    return repository


@pytest.fixture(autouse=True)
def _nothing_unforeseen(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """What nobody thought of is caught, too, and logged: here it is a failure."""
    yield
    assert not [record.getMessage() for record in caplog.records if record.exc_info]


def link_to_itself(place: Path) -> str:
    (place / "named").symlink_to("named")
    return "named"


def links_in_a_row(place: Path) -> str:
    for number in range(2000):
        (place / f"link{number}").symlink_to(f"link{number + 1}")
    return "link0"


def more_than_a_path(place: Path) -> str:
    return "a/" * (8 * 1024 * 1024 - 64)


def with_nul(place: Path) -> str:
    return f"{place}/a\0b"


@pytest.mark.parametrize("named", [link_to_itself, links_in_a_row, more_than_a_path, with_nul])
@pytest.mark.parametrize("file", [".git", ".git/commondir"])
def test_a_directory_that_can_not_be_followed_gives_no_pins(
    repository: Repository, tmp_path: Path, named: Callable[[Path], str], file: str
) -> None:
    if file == ".git":
        (repository.place / ".git").rename(tmp_path / "moved")
        (repository.place / ".git").write_text(f"gitdir: {named(repository.place)}\n")
    else:
        (repository.place / file).write_text(f"{named(repository.place / '.git')}\n")
    assert repository.pins() == {}


@pytest.mark.parametrize("offset", [2**63 - 1, 2**63, 2**64 - 1])
def test_a_pack_that_no_file_can_be_large_enough_for_tells_nothing(packed: Repository, offset: int) -> None:
    (index,) = packed.place.glob(".git/objects/pack/*.idx")
    content = bytearray(index.read_bytes())
    (count,) = struct.unpack_from(">I", content, 8 + 255 * 4)
    offsets = 8 + 256 * 4 + count * 24
    content[offsets : offsets + 4 * count] = struct.pack(">I", 2**31) * count
    content[offsets + 4 * count : -40] = struct.pack(">Q", offset)
    index.chmod(0o600)
    index.write_bytes(content)
    assert packed.pins() == {"git_commit": packed.head, "git_dirty": "unknown"}


def index_of(name: bytes) -> bytes:
    entry = struct.pack(">10I20sH", *[0] * 6, 0o100644, *[0] * 3, bytes(20), 0) + name
    return b"DIRC" + struct.pack(">II", 2, 1) + entry + bytes(8 - len(entry) % 8) + bytes(20)


def test_a_name_that_no_path_is_long_enough_for_is_refused() -> None:
    """Each directory on the way to it is kept by its whole path: of 16 MiB they would take hundreds of gigabytes."""
    assert [entry.name for entry in read_index(index_of(b"a/" * 2000 + b"b"), 20)] == ["a/" * 2000 + "b"]
    with pytest.raises(UnreadableError):
        read_index(index_of(b"a/" * 2048 + b"b"), 20)


def pack_of_bombs(place: Path, deltas: int) -> bytes:
    """A pack in which a commit is told by differences, each a kilobyte here and a megabyte of orders."""
    body = zlib.compress(b"\1x" * (512 * 1024 - 8), 9)
    content = b"PACK" + struct.pack(">II", 2, deltas + 1) + b"\x10" + zlib.compress(b"tree")
    last, back = 12, len(content) - 12
    for _ in range(deltas):
        last = len(content)
        content += b"\x60" + (bytes([back]) if back < 128 else bytes([0x80 | (back >> 7) - 1, back & 0x7F])) + body
        back = len(content) - last
    name = b"\xab" * 20
    fanout = struct.pack(">256I", *(int(number >= 0xAB) for number in range(256)))
    place.mkdir(parents=True)
    (place / "x.pack").write_bytes(content)
    (place / "x.idx").write_bytes(b"\xfftOc\0\0\0\2" + fanout + name + bytes(4) + struct.pack(">I", last) + bytes(40))
    return name


def test_a_commit_that_is_a_bomb_takes_neither_memory_nor_time(tmp_path: Path) -> None:
    """Unpacked, its differences are 200 megabytes, and 100 million orders."""
    name = pack_of_bombs(tmp_path / "objects" / "pack", 200)
    before = time.process_time()
    with opened(tmp_path) as directory, pytest.raises(UnreadableError):
        tree_of_commit(directory, name)
    assert time.process_time() - before < 5


@contextmanager
def opened(directory: Path) -> Iterator[int]:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@given(st.data())
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_whatever_stands_in_gits_files_there_is_an_answer(packed: Repository, data: st.DataObject) -> None:
    git = packed.place / ".git"
    names = ("HEAD", "index", "packed-refs", "commondir", "objects/pack/*.idx", "objects/pack/*.pack")
    file = next(git.glob(data.draw(st.sampled_from(names))), git / "commondir")
    kept = file.read_bytes() if file.exists() else b""
    content = bytearray(kept)
    for _ in range(data.draw(st.integers(1, 4))):
        put = data.draw(st.sampled_from(NUMBERS) | st.binary(min_size=1, max_size=8))
        at = data.draw(st.integers(0, len(content)))
        content[at : at + len(put)] = put
    del content[data.draw(st.none() | st.integers(0, len(content))) or len(content) :]
    file.unlink(missing_ok=True)
    file.write_bytes(content)
    try:
        pins = packed.pins()
    finally:
        file.unlink()
        if kept:
            file.write_bytes(kept)
    assert set(pins) in ({"git_commit", "git_dirty"}, set())
