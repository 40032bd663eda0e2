"""What the writer promises: order, repair, the cap, totals."""

import errno
import hashlib
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jobledger_server.joblog.reader import LogQuery, LogReader
from jobledger_server.joblog.segments import Stream
from jobledger_server.joblog.writer import LogWriter
from joblog.log_model import payload

CAP = 128 * 1024
LINES = 8000


@pytest.fixture
def log_dir(tmp_path: Path) -> Path:
    return tmp_path / "log"


def messages(log_dir: Path) -> list[str]:
    return [entry.message for entry in LogReader(log_dir, 1).page(LogQuery(limit=10_000)).entries]


def test_another_writer_goes_on_with_the_next_number(log_dir: Path) -> None:
    for text in (b"one\ntwo\n", b"three\n"):
        writer = LogWriter(log_dir)
        writer.write(Stream.STDOUT, text)
        writer.close()
    entries = LogReader(log_dir, 1).page(LogQuery()).entries
    assert [(entry.job_sequence, entry.message) for entry in entries] == [(1, "one"), (2, "two"), (3, "three")]


@pytest.mark.parametrize("suffix", [".data", ".index"])
def test_a_log_cut_at_any_byte_is_repaired_and_goes_on(log_dir: Path, tmp_path: Path, suffix: str) -> None:
    """A supervisor may be killed within any write. What a reader saw before stays; the rest is gone as a whole."""
    writer = LogWriter(log_dir)
    for number in range(5):
        writer.write(Stream.STDOUT if number % 2 else Stream.STDERR, b"line %d\nmore\n" % number)
    writer.close()
    whole, size = messages(log_dir), (log_dir / f"00000001{suffix}").stat().st_size
    for cut in range(size):
        copy = tmp_path / f"copy{cut}"
        shutil.copytree(log_dir, copy)
        os.truncate(copy / f"00000001{suffix}", cut)
        again = LogWriter(copy)
        kept = again.last_sequence
        again.write(Stream.STDOUT, b"after\n")
        again.close()
        assert messages(copy) == [*whole[:kept], "after"]
        assert LogReader(copy, 1).last_sequence() == kept + 1


def fill(log_dir: Path, cap: int = CAP, lines: int = LINES) -> LogWriter:
    writer = LogWriter(log_dir, cap)
    for number in range(1, lines + 1):
        stream = Stream.STDERR if number % 10 == 0 else Stream.STDOUT
        writer.write(stream, b"line %06d %s\n" % (number, b"." * (number % 50)))
    return writer


def test_past_the_cap_the_middle_is_dropped_and_a_gap_entry_says_so(log_dir: Path) -> None:
    writer = fill(log_dir)
    writer.seal()
    totals = writer.totals()
    writer.close()
    assert sum(path.stat().st_size for path in log_dir.iterdir()) <= CAP
    reader = LogReader(log_dir, 1)
    page = reader.page(LogQuery(limit=10_000))
    gaps = [place for place, entry in enumerate(page.entries) if entry.subsystem == "engine"]
    assert len(gaps) == 1
    gap, after = page.entries[gaps[0]], page.entries[gaps[0] + 1]
    assert gap.job_sequence == gaps[0] + 1
    assert payload(gap)["dropped"] == after.job_sequence - gap.job_sequence
    assert page.total == len(page.entries) == LINES - payload(gap)["dropped"] + 1
    for entry in page.entries:
        if entry is not gap:
            assert entry.message.startswith(f"line {entry.job_sequence:06d}")
    assert (totals.entries, totals.warnings, totals.errors) == (LINES, LINES // 10, 0)
    content = reader.read_content(0, 1 << 20)
    assert content.count(b"\n") == page.total - 1
    assert totals.sha256 == hashlib.sha256(content).hexdigest()


@given(
    cap=st.sampled_from([64 * 1024, 100_000, 256 * 1024, 512 * 1024]),
    lengths=st.lists(st.integers(0, 3900), min_size=1, max_size=9),
    structured=st.booleans(),
    chunk_bytes=st.integers(2000, 200_000),
)
@settings(max_examples=30, deadline=None)
def test_head_and_tail_are_kept_at_every_cap(cap: int, lengths: list[int], structured: bool, chunk_bytes: int) -> None:
    """However much is written at a time: runs are cut to fit segments."""
    form = b'{"level": "info", "message": "%s"}\n' if structured else b"%s\n"
    once = [form % (b"x" * length) for length in lengths]
    lines = once * (2 * cap // len(b"".join(once)) + 1)
    written = b"".join(lines)
    with tempfile.TemporaryDirectory() as directory:
        writer = LogWriter(Path(directory), cap)
        for start in range(0, len(written), chunk_bytes):
            writer.write(Stream.STDOUT, written[start : start + chunk_bytes])
        writer.seal()
        totals = writer.totals()
        writer.close()
        assert sum(path.stat().st_size for path in Path(directory).iterdir()) <= cap + cap // 16
        reader = LogReader(Path(directory), 1)
        (gap,) = reader.page(LogQuery(subsystem="engine")).entries
        content = reader.read_content(0, 2 * cap)
    head, rest = lines[: gap.job_sequence - 1], lines[gap.job_sequence - 1 + payload(gap)["dropped"] :]
    assert totals.entries == len(lines)
    assert totals.sha256 == hashlib.sha256(content).hexdigest()
    assert content == b"".join([*head, *rest])
    assert head
    assert len(b"".join(rest)) > cap // 2


def test_offsets_filters_and_order_hold_across_the_gap(log_dir: Path) -> None:
    fill(log_dir).close()
    reader = LogReader(log_dir, 1)
    everything = reader.page(LogQuery(limit=10_000)).entries
    for levels in (frozenset({3}), frozenset({4}), frozenset({3, 4}), frozenset({5})):
        expected = [entry for entry in everything if entry.level in levels]
        for offset in (0, 1, len(expected) // 2, max(0, len(expected) - 1)):
            page = reader.page(LogQuery(levels=levels, offset=offset, limit=3))
            assert page.entries == expected[offset : offset + 3]
            assert page.total == len(expected)
        page = reader.page(LogQuery(levels=levels, limit=10_000, descending=True))
        assert page.entries == expected[::-1]
    page = reader.page(LogQuery(subsystem="engine"))
    assert (page.total, page.entries[0].level) == (1, 4)
    assert reader.page(LogQuery(contains="dropped", levels=frozenset({4}))).total == 1


@pytest.mark.parametrize("contains", [None, "e"])
def test_a_reader_whose_place_was_dropped_is_told_of_what_it_missed(log_dir: Path, contains: str | None) -> None:
    fill(log_dir).close()
    reader = LogReader(log_dir, 1)
    gap = reader.page(LogQuery(subsystem="engine")).entries[0]
    last = gap.job_sequence + payload(gap)["dropped"] - 1
    for cursor in (gap.job_sequence - 1, gap.job_sequence, gap.job_sequence + 5, last - 1):
        first, second = reader.page(LogQuery(after_sequence=cursor, limit=2, contains=contains)).entries
        assert first.job_sequence == cursor + 1
        assert payload(first)["dropped"] == last - cursor
        assert second.job_sequence == last + 1
    assert reader.page(LogQuery(after_sequence=last, limit=1, contains=contains)).entries == [second]


def test_a_log_smaller_than_its_longest_line_keeps_the_end(log_dir: Path) -> None:
    """A line is never cut for the cap: where one is longer than the head may be, the gap may come first."""
    writer = LogWriter(log_dir, 64 * 1024)
    for _ in range(4):
        writer.write(Stream.STDOUT, b"x" * 65536 + b"\n")
        assert LogReader(log_dir, 1).last_sequence() == writer.last_sequence
    writer.close()
    gap, kept = LogReader(log_dir, 1).page(LogQuery()).entries
    assert (gap.job_sequence, payload(gap)["dropped"], kept.job_sequence) == (1, 3, 4)


def test_writing_on_after_a_drop_keeps_numbers_and_one_gap(log_dir: Path) -> None:
    fill(log_dir).close()
    writer = LogWriter(log_dir, CAP)
    writer.write(Stream.STDOUT, b"x" * 1000 + b"\n")
    assert writer.last_sequence == LINES + 1
    for _ in range(1000):
        writer.write(Stream.STDOUT, b"x" * 1000 + b"\n")
    totals = writer.totals()
    writer.close()
    entries = LogReader(log_dir, 1).page(LogQuery(limit=10_000)).entries
    assert entries[-1].job_sequence == totals.entries == LINES + 1001
    assert sum(entry.subsystem == "engine" for entry in entries) == 1


def test_a_reader_sees_whole_entries_while_segments_come_and_go(log_dir: Path) -> None:
    writer = LogWriter(log_dir, CAP)
    reader = LogReader(log_dir, 1)
    for number in range(1, 3001):
        writer.write(Stream.STDOUT, b"line %d %s\n" % (number, b"." * 100))
        if number % 50 == 0:
            page = reader.page(LogQuery(descending=True, limit=3))
            assert [entry.job_sequence for entry in page.entries] == [number, number - 1, number - 2]
    writer.close()


def test_the_hash_is_that_of_the_content_over_several_attempts(log_dir: Path) -> None:
    for text in (b"one\n", b"two\xff"):
        writer = LogWriter(log_dir)
        writer.write(Stream.STDOUT, text)
        writer.end()
        writer.seal()
        totals = writer.totals()
        writer.close()
    assert totals.sha256 == hashlib.sha256(b"one\ntwo\xff").hexdigest()


def test_what_the_disk_refuses_is_written_once_it_can_be(log_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk loses nothing and leaves no half of anything behind."""
    writer = LogWriter(log_dir)
    writer.write(Stream.STDOUT, b"one\n")
    pwrite, room = os.pwrite, [3, 0]

    def short(descriptor: int, data: bytes, offset: int) -> int:
        if not (allowed := room.pop(0)):
            raise OSError(errno.ENOSPC, "No space left on device")
        return pwrite(descriptor, data[:allowed], offset)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", short)
        with pytest.raises(OSError, match="No space"):
            writer.write(Stream.STDOUT, b"two\nthree\n")
    assert messages(log_dir) == ["one"]
    assert LogReader(log_dir, 1).content_size() == len("one\n")
    writer.write(Stream.STDOUT, b"four\n")
    writer.close()
    assert messages(log_dir) == ["one", "two", "three", "four"]


def test_a_job_that_says_nothing_leaves_no_files_and_has_a_log(tmp_path: Path) -> None:
    log_dir = tmp_path / "log"
    for _ in range(2):
        writer = LogWriter(log_dir)
        writer.end()
        writer.seal()
        assert writer.totals() == (0, hashlib.sha256().hexdigest(), 0, 0)
        writer.close()
        assert not log_dir.exists()
    writer = LogWriter(log_dir)
    writer.write(Stream.STDOUT, b"one\n")
    writer.seal()
    assert writer.totals() == (1, hashlib.sha256(b"one\n").hexdigest(), 0, 0)
    writer.close()
