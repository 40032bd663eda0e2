"""A log whose files were damaged: the next writer saves what is sound, no number is given twice, no page lies."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from jobledger_server.joblog.reader import LogQuery, LogReader
from jobledger_server.joblog.segments import DamagedLogError, Stream, segment_path
from jobledger_server.joblog.writer import LogWriter
from joblog.log_model import payload

CAP = 128 * 1024
Damage = Callable[[Path, int], object]


def write(log_dir: Path, lines: int = 400, cap: int = CAP) -> None:
    """Four segments or so, all sealed; each line has its number."""
    writer = LogWriter(log_dir, cap)
    for number in range(writer.last_sequence + 1, writer.last_sequence + lines + 1):
        writer.write(Stream.STDERR if number % 10 == 0 else Stream.STDOUT, b"line %d\n" % number)
    writer.seal()
    writer.close()


@pytest.fixture
def log_dir(tmp_path: Path) -> Path:
    write(tmp_path / "log")
    assert len(list((tmp_path / "log").glob("*.seal"))) > 4
    return tmp_path / "log"


def part(log_dir: Path, segment: int) -> range:
    """The numbers of a segment's entries."""
    ends = [0, *(last_number(log_dir, number) for number in range(1, segment + 1))]
    return range(ends[-2] + 1, ends[-1] + 1)


def last_number(log_dir: Path, segment: int) -> int:
    words = segment_path(log_dir, segment, ".seal").read_text().split()
    return int(words[words.index("last") + 1])


def cut(suffix: str) -> Damage:
    return lambda log_dir, number: os.truncate(segment_path(log_dir, number, suffix), 100)


def empty(suffix: str) -> Damage:
    return lambda log_dir, number: os.truncate(segment_path(log_dir, number, suffix), 0)


def remove(*suffixes: str) -> Damage:
    def damage(log_dir: Path, number: int) -> None:
        for suffix in suffixes:
            segment_path(log_dir, number, suffix).unlink()

    return damage


def change(suffix: str) -> Damage:
    """A digit of the data, or a byte of the index: as many bytes as before."""

    def damage(log_dir: Path, number: int) -> None:
        path = segment_path(log_dir, number, suffix)
        content = bytearray(path.read_bytes())
        content[5] ^= 1
        path.write_bytes(content)

    return damage


def link(suffix: str) -> Damage:
    """Another file in its place, by a link, though of the very same bytes."""

    def damage(log_dir: Path, number: int) -> None:
        path = segment_path(log_dir, number, suffix)
        shutil.copy(path, log_dir.parent / "elsewhere")
        path.unlink()
        path.symlink_to(log_dir.parent / "elsewhere")

    return damage


DAMAGES: dict[str, Damage] = {
    "data cut": cut(".data"),
    "index cut": cut(".index"),
    "data empty": empty(".data"),
    "index empty": empty(".index"),
    "data gone": remove(".data"),
    "index gone": remove(".index"),
    "both gone": remove(".data", ".index"),
    "data changed": change(".data"),
    "index changed": change(".index"),
    "data a link": link(".data"),
    "index a link": link(".index"),
}
DAMAGED = pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)


def numbered(reader: LogReader, start: int, limit: int = 1) -> list[tuple[int, str]]:
    entries = reader.page(LogQuery(after_sequence=start - 1, limit=limit)).entries
    return [(entry.job_sequence, entry.message) for entry in entries]


def read_on(reader: LogReader, start: int) -> None:
    """A page of twenty; where it ends before the damage, another one."""
    shown = reader.page(LogQuery(offset=start - 1, limit=20)).entries
    assert [entry.job_sequence for entry in shown] == list(range(start, start + len(shown)))
    reader.page(LogQuery(after_sequence=start - 1 + len(shown), limit=20))


@DAMAGED
@pytest.mark.parametrize("segment", [1, 2, 3, -1])
def test_pages_beside_the_damage_are_right_and_those_that_touch_it_are_errors(
    log_dir: Path, damage: Damage, segment: int
) -> None:
    segment %= len(list(log_dir.glob("*.data"))) + 1
    lost = part(log_dir, segment)
    damage(log_dir, segment)
    reader = LogReader(log_dir, 1)
    shown = 0
    for start in range(1, 401, 20):
        query = LogQuery(offset=start - 1, limit=20)
        if set(lost) & set(range(start, start + 20)):
            with pytest.raises(DamagedLogError, match=f"{segment:08d}"):
                read_on(reader, start)
            continue
        try:
            page = reader.page(query)
        except DamagedLogError as error:
            # The index of the damaged segment is read to find the place.
            assert error.segment == segment  # noqa: PT017
            continue
        shown += 1
        assert [entry.message for entry in page.entries] == [f"line {number}" for number in range(start, start + 20)]
        assert (page.total, page.has_more) == (400, start < 381)
    assert shown > 5 or damage in (DAMAGES["index changed"], DAMAGES["index cut"], DAMAGES["index a link"])
    with pytest.raises(DamagedLogError):
        reader.page(LogQuery(contains="line", limit=400))
    with pytest.raises(DamagedLogError):
        reader.read_content(0, 1 << 20)


@DAMAGED
@pytest.mark.parametrize("segment", [1, 2, -1])
def test_the_next_writer_leaves_sealed_segments_alone_and_gives_no_number_again(
    log_dir: Path, damage: Damage, segment: int
) -> None:
    segment %= len(list(log_dir.glob("*.data"))) + 1
    damage(log_dir, segment)
    left = {path.name: path.read_bytes() for path in log_dir.iterdir()}
    for _ in range(2):
        write(log_dir, 100)
        now = {path.name: path.read_bytes() for path in log_dir.iterdir()}
        assert {name: now.get(name) for name in left} == left
    reader = LogReader(log_dir, 1)
    assert numbered(reader, 401) == [(401, "line 401")]
    assert reader.last_sequence() == 600


def test_a_log_of_which_only_the_last_index_was_lost_goes_on_after_every_number_that_was_given(log_dir: Path) -> None:
    """Without seal and index, nothing but the bytes tells how many entries there were."""
    writer = LogWriter(log_dir, CAP)
    writer.write(Stream.STDOUT, b"told\n" * 20)
    writer.close()
    last = max(log_dir.glob("*.index"))
    last.unlink()
    size = last.with_suffix(".data").stat().st_size
    write(log_dir, 1)
    assert last.with_suffix(".data").stat().st_size == size
    reader = LogReader(log_dir, 1)
    assert 420 < reader.last_sequence() <= 401 + size
    (newest,) = reader.page(LogQuery(descending=True, limit=1)).entries
    assert newest.job_sequence == reader.last_sequence()
    with pytest.raises(DamagedLogError, match=last.stem):
        reader.page(LogQuery(offset=len(reader.page(LogQuery(offset=400)).entries) + 400, limit=20))


def test_damage_beside_the_gap_is_no_part_of_it(tmp_path: Path) -> None:
    log_dir = tmp_path / "log"
    write(log_dir, 6000)
    numbers = sorted(int(path.stem) for path in log_dir.glob("*.data"))
    (before,) = [number for number in numbers if number + 1 not in numbers][:-1]
    reader = LogReader(log_dir, 1)
    page = reader.page(LogQuery(limit=10_000))
    (gap,) = [entry for entry in page.entries if entry.subsystem == "engine"]
    last = reader.page(LogQuery(descending=True, limit=5))
    remove(".index")(log_dir, before)
    assert reader.page(LogQuery(offset=gap.job_sequence - 1, limit=1)).entries == [gap]
    assert payload(gap)["dropped"] > 1
    again = reader.page(LogQuery(descending=True, limit=5))
    assert (again.entries, again.total) == (last.entries, page.total)
    with pytest.raises(DamagedLogError):
        reader.page(LogQuery(offset=gap.job_sequence - 2, limit=1))


def test_a_segment_lost_after_the_gap_is_no_part_of_it_and_seals_that_say_nothing_of_a_gap_are_believed(
    tmp_path: Path,
) -> None:
    log_dir = tmp_path / "log"
    write(log_dir, 6000)
    reader = LogReader(log_dir, 1)
    page = reader.page(LogQuery(limit=10_000))
    (gap,) = [entry for entry in page.entries if entry.subsystem == "engine"]
    for seal in log_dir.glob("*.seal"):
        shutil.copy(seal, tmp_path)
        text = seal.read_text()
        seal.write_text(text[: text.index(" dropped ")] + "\n")
    assert reader.page(LogQuery(limit=10_000)).entries == page.entries
    for seal in tmp_path.glob("*.seal"):
        shutil.copy(seal, log_dir)
    middle = max(int(path.stem) for path in log_dir.glob("*.data")) - 3
    lost = range(last_number(log_dir, middle - 1) + 1, last_number(log_dir, middle) + 1)
    remove(".data", ".index", ".seal")(log_dir, middle)
    intact = reader.page(LogQuery(limit=10_000)).entries
    assert intact == [entry for entry in page.entries if entry.job_sequence < lost[0]]
    assert gap in intact
    assert reader.page(LogQuery(after_sequence=lost[-1], limit=10_000)).entries == [
        entry for entry in page.entries if entry.job_sequence > lost[-1]
    ]
    for query in (LogQuery(after_sequence=lost[1]), LogQuery(after_sequence=lost[1], descending=True)):
        with pytest.raises(DamagedLogError, match=f"{middle:08d} is missing"):
            reader.page(query)


def test_what_an_interrupted_removal_leaves_is_dropped_and_not_damaged(tmp_path: Path) -> None:
    log_dir = tmp_path / "log"
    write(log_dir, 6000)
    numbers = sorted(int(path.stem) for path in log_dir.glob("*.data"))
    (after,) = [number for number in numbers if number - 1 not in numbers][1:]
    total = LogReader(log_dir, 1).page(LogQuery(limit=1)).total
    segment_path(log_dir, after - 1, ".data").write_bytes(b"left\n")
    assert LogReader(log_dir, 1).page(LogQuery(limit=1)).total == total
    LogWriter(log_dir, CAP).close()
    assert not segment_path(log_dir, after - 1, ".data").exists()


def test_totals_of_a_damaged_log_tell_its_entries_and_claim_no_hash(log_dir: Path) -> None:
    cut(".data")(log_dir, 2)
    writer = LogWriter(log_dir, CAP)
    writer.write(Stream.STDOUT, b"more\n")
    writer.seal()
    totals = writer.totals()
    writer.close()
    assert totals == (401, "", 40, 0)


@pytest.mark.parametrize("name", ["info", "warn"])
@pytest.mark.parametrize("count", [0, 77, 10**19])
def test_a_seal_that_counts_wrong_misleads_no_page(log_dir: Path, name: str, count: int) -> None:
    """Seals tell in which segment to look first; whether an entry is there is told by the index alone."""
    queries = [
        LogQuery(offset=offset, limit=40, levels=levels, descending=descending)
        for offset in range(0, 400, 40)
        for levels in (frozenset[int](), frozenset([3]), frozenset([3, 4]))
        for descending in (False, True)
    ]
    before = [LogReader(log_dir, 7).page(query).entries for query in queries]
    for number in (1, 3):
        seal = segment_path(log_dir, number, ".seal")
        words = seal.read_text().split(" ")
        words[words.index(name) + 1] = f"{count:020d}"
        seal.write_text(" ".join(words))
    assert [LogReader(log_dir, 7).page(query).entries for query in queries] == before
