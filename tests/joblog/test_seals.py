"""A segment that is final has a seal, and a log that is not as it was written is never shown as if it were."""

import hashlib
import itertools
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from jobledger_server.joblog.reader import LogQuery, LogReader
from jobledger_server.joblog.segments import RECORD, DamagedLogError, Stream
from jobledger_server.joblog.writer import LogWriter

CAP = 128 * 1024
Damage = Callable[[Path], object]


def write(log_dir: Path, lines: int = 400) -> LogWriter:
    """Three segments or so, of plain and structured lines."""
    clock = itertools.count(1_000_000, 10)
    writer = LogWriter(log_dir, CAP, now=clock.__next__)
    for number in range(lines):
        structured = b'{"level":"warn","message":"odd %d"}\n' % number if number % 10 == 0 else b""
        writer.write(Stream.STDOUT, b"line %d\nanother\n%s" % (number, structured))
    return writer


@pytest.fixture
def log_dir(tmp_path: Path) -> Path:
    return tmp_path / "log"


def seals(log_dir: Path) -> dict[str, str]:
    """Hash by name of file, as the seals say."""
    lines = [
        line.split("  ")
        for path in log_dir.glob("*.seal")
        for line in path.read_text().splitlines()
        if not line.startswith("#")
    ]
    return {name: digest for digest, name in lines}


def hashes(log_dir: Path) -> dict[str, str]:
    """Hash by name of file, as it is."""
    files = [path for path in log_dir.iterdir() if path.suffix != ".seal"]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_a_segment_is_sealed_when_the_next_one_begins_and_the_last_with_the_log(log_dir: Path) -> None:
    writer = write(log_dir)
    found, last = hashes(log_dir), max(log_dir.glob("*.data")).stem
    assert len(found) > 4
    assert seals(log_dir) == {name: digest for name, digest in found.items() if not name.startswith(last)}
    writer.seal()
    writer.seal()
    writer.close()
    assert seals(log_dir) == hashes(log_dir)


def test_what_is_written_after_the_seal_goes_to_another_segment(log_dir: Path) -> None:
    writer = write(log_dir)
    writer.seal()
    sealed = seals(log_dir)
    writer.write(Stream.STDOUT, b"more\n")
    writer.close()
    another = LogWriter(log_dir, CAP)
    another.write(Stream.STDOUT, b"and more\n")
    another.seal()
    another.close()
    found = hashes(log_dir)
    assert {name: found[name] for name in sealed} == sealed
    assert seals(log_dir) == found
    assert [entry.message for entry in LogReader(log_dir, 1).page(LogQuery(descending=True, limit=2)).entries] == [
        "and more",
        "more",
    ]


def test_a_log_without_entries_is_sealed_and_goes_on(log_dir: Path) -> None:
    for text in (b"", b"", b"one\n"):
        writer = LogWriter(log_dir)
        writer.write(Stream.STDOUT, text)
        writer.seal()
        writer.close()
    assert seals(log_dir) == hashes(log_dir)
    assert LogReader(log_dir, 1).last_sequence() == 1


def test_a_killed_writers_segments_are_sealed_by_the_next(log_dir: Path) -> None:
    write(log_dir).close()
    (log_dir / "00000001.seal").write_bytes(b"torn")
    writer = LogWriter(log_dir, CAP)
    writer.seal()
    writer.close()
    assert seals(log_dir) == hashes(log_dir)


def change(suffix: str, position: int, data: bytes) -> Damage:
    def damage(log_dir: Path) -> None:
        with (log_dir / f"00000002{suffix}").open("r+b") as file:
            file.seek(position)
            file.write(data)

    return damage


DAMAGES: dict[str, Damage] = {
    "data cut": lambda log_dir: os.truncate(log_dir / "00000002.data", 10),
    "data gone": lambda log_dir: (log_dir / "00000002.data").unlink(),
    "newline gone": change(".data", 0, b"." * 200),
    "newlines added": change(".data", 0, b"\n" * 200),
    "index of zeros": change(".index", 0, bytes(RECORD.size * 4)),
    "index of ones": change(".index", 0, b"\xff" * RECORD.size * 4),
    "counts too high": change(".index", RECORD.size * 2 - 40, b"\0\0\1" * 13),
    "long runs": change(".index", 24, b"\xff\xff\xff\x7f"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("contains", [None, ""])
@pytest.mark.parametrize("descending", [False, True])
def test_a_page_of_a_damaged_log_is_an_error_that_names_the_segment(
    log_dir: Path, damage: Damage, contains: str | None, descending: bool
) -> None:
    """Damage that leaves lines and counts as they were shows in the seal alone."""
    writer = write(log_dir)
    writer.seal()
    writer.close()
    damage(log_dir)
    reader, query = LogReader(log_dir, 1), LogQuery(limit=10_000, descending=descending, contains=contains)
    with pytest.raises(DamagedLogError, match=r"00000002.*: restore it from a backup"):
        # The first page may end before the damage.
        reader.page(replace(query, offset=len(reader.page(query).entries)))


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_the_whole_output_of_a_damaged_log_ends_with_an_error_or_is_all_there(log_dir: Path, damage: Damage) -> None:
    writer = write(log_dir)
    writer.seal()
    writer.close()
    reader = LogReader(log_dir, 1)
    size = reader.content_size()
    damage(log_dir)
    try:
        content = reader.read_content(0, size)
    except DamagedLogError:
        return
    assert len(content) == size


def test_a_damaged_log_that_was_never_sealed_says_so(log_dir: Path) -> None:
    write(log_dir, 20).close()
    os.truncate(log_dir / "00000001.data", 10)
    with pytest.raises(DamagedLogError, match="no seal"):
        LogReader(log_dir, 1).page(LogQuery())


LINE = b'{"level":"warn","message":"odd","k":"v"}\n'


@pytest.mark.parametrize(
    "changed",
    [
        [LINE, LINE.replace(b"warn", b"none"), LINE],
        [LINE, LINE.replace(b"level", b"Level"), LINE],
        [LINE, LINE.replace(b"message", b"Message"), LINE],
        [LINE, LINE.replace(b',"k"', b'\n"k"'), LINE],
        # Another number of objects, and yet as many as there are lines.
        [
            b'{"level":"warn","message":"a"}, {"level":"warn","message":"b"}\n',
            b'{"level":"warn"\n',
            b'"message":"c"}\n',
        ],
    ],
)
def test_lines_that_are_not_entries_of_their_own_are_damage(log_dir: Path, changed: list[bytes]) -> None:
    """Structured entries far from each other are parsed together: none may pass for a part of its neighbour."""
    length = max(map(len, changed))
    writer = LogWriter(log_dir)
    for _ in changed:
        writer.write(Stream.STDOUT, b"plain\n" + LINE.replace(b"odd", b"o" * (length - len(LINE) + 3)))
    writer.seal()
    writer.close()
    padded = [line[:-1] + b" " * (length - len(line)) + b"\n" for line in changed]
    (log_dir / "00000001.data").write_bytes(b"".join(b"plain\n" + line for line in padded))
    with pytest.raises(DamagedLogError, match="was changed after it was sealed"):
        LogReader(log_dir, 1).page(LogQuery(levels=frozenset([4])))


@pytest.mark.parametrize("name", ["level", "message"])
def test_an_entry_without_level_or_message_is_damage(log_dir: Path, name: str) -> None:
    writer = LogWriter(log_dir)
    writer.write(Stream.STDOUT, b'{"level":"warn","message":"odd"}\n')
    writer.seal()
    writer.close()
    data = log_dir / "00000001.data"
    data.write_bytes(data.read_bytes().replace(name.encode(), name.upper().encode()))
    with pytest.raises(DamagedLogError, match="was changed after it was sealed"):
        LogReader(log_dir, 1).page(LogQuery())
