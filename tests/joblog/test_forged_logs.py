"""What a job puts in the place of its log's files hurts its own log alone: the server asks, and goes on."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jobledger_server.core.ports import LogSummary
from jobledger_server.joblog import seals
from jobledger_server.joblog.reader import LogQuery, LogReader
from jobledger_server.joblog.seals import Seal, dropped_segments, read_seal
from jobledger_server.joblog.segments import DATA, INDEX, MARK, RECORD, SEAL, DamagedLogError, Stream, segment_path
from jobledger_server.joblog.writer import LogWriter
from jobledger_server.service.kept_log import kept_log

HASHES = dict.fromkeys((DATA, INDEX), "0" * 64)


def seal_saying(dropped: range | None) -> Seal:
    return Seal(HASHES, None, None, dropped)


@pytest.mark.parametrize(
    ("numbers", "said", "found"),
    [
        # What an earlier seal, or the last, says was dropped goes on past the last segment.
        ([1, 3, 4], {3: range(2, 99)}, range(2, 3)),
        ([1, 3, 4], {4: range(2, 99)}, range(2, 3)),
        ([1, 3, 4], {4: range(2, 10**19)}, range(2, 3)),
        ([1, 3, 4], {3: range(3, 2)}, range(2, 3)),
        ([1, 3, 4], {4: range(3)}, range(2, 3)),
        ([3, 5], {3: range(1, 4)}, range(1, 3)),
        # What fits counts, whatever else is missing.
        ([1, 3, 4], {4: range(0)}, range(0)),
        ([1, 9], {9: range(2, 5)}, range(2, 5)),
        ([1, 4, 5], {4: range(2, 3)}, range(2, 4)),
        ([1, 4, 5], {}, range(2, 4)),
        ([1, 2, 3], {3: range(2, 99)}, range(0)),
        ([], {}, range(0)),
    ],
)
def test_a_seal_that_does_not_fit_the_segments_says_nothing_of_what_was_dropped(
    numbers: list[int], said: dict[int, range], found: range
) -> None:
    assert dropped_segments(numbers, lambda number: seal_saying(said[number]) if number in said else None) == found


def test_a_segment_with_a_number_past_all_reason_takes_no_memory(tmp_path: Path) -> None:
    write(tmp_path)
    segment_path(tmp_path, 99_999_999, INDEX).write_bytes(segment_path(tmp_path, 1, INDEX).read_bytes())
    forge_seal(tmp_path, 99_999_999, [RECORD.size, RECORD.size, 9, 9, 9, 0, 0, 9, 0, 0, 2, 99_999_999])
    assert isinstance(kept_log(tmp_path, final=False), LogSummary)
    read(tmp_path)


def test_however_many_segments_are_said_to_be_damaged_a_summary_can_be_had(tmp_path: Path) -> None:
    for number in range(1, 1200):
        segment_path(tmp_path, number, MARK).touch()
    assert kept_log(tmp_path, final=False) == LogSummary()
    assert kept_log(tmp_path, final=True).entries == 0


def write(log_dir: Path) -> None:
    writer = LogWriter(log_dir, 64 * 1024)
    writer.write(Stream.STDOUT, b"line\n" * 20)
    writer.write(Stream.STDERR, b'{"level":"warn","message":"odd"}\n')
    writer.seal()
    writer.write(Stream.STDOUT, b"last\n")
    writer.close()


def forge_seal(log_dir: Path, number: int, values: list[int]) -> None:
    path = segment_path(log_dir, number, SEAL)
    path.write_bytes(seals._lines(number, HASHES) + seals._comment(values))


def read(log_dir: Path) -> None:
    """Asks a reader for all that it tells; what is damaged it may refuse to tell."""
    for descending in (False, True):
        for contains in (None, "l"):
            try:
                reader = LogReader(log_dir, 1)
                page = reader.page(LogQuery(limit=100, descending=descending, contains=contains))
                assert all(entry.SerializeToString() for entry in page.entries)
                reader.read_content(0, min(reader.content_size(), 1000))
            except (DamagedLogError, OSError):
                pass


VALUES = st.sampled_from([0, 1, 2, 3, 5, 20, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64 - 1, 10**20 - 1])
FIELD_ENDS = [2**64] * 3 + [2**32] * 3 + [256] * 3 + [2**64] * 5


def packed(values: list[int]) -> bytes:
    return RECORD.pack(*(value % end for value, end in zip(values, FIELD_ENDS, strict=True)))


RECORDS = st.lists(VALUES, min_size=14, max_size=14).map(packed)
# One that looks sound but for its counts: 5 bytes, a line of stdout.
SOUND = st.lists(VALUES, min_size=8, max_size=8).map(lambda it: packed([*it[:3], 1, 0, 5, 3, 1, 1, *it[3:]]))
CONTENTS = st.one_of(
    st.binary(max_size=200), st.lists(RECORDS | SOUND, max_size=3).map(b"".join), st.just(b"line\nlast\n")
)
SEALS = st.lists(VALUES, min_size=12, max_size=12)
FILES = st.dictionaries(
    st.tuples(st.sampled_from([0, 1, 2, 3, 4, 7, 10**8, 10**30]), st.sampled_from([DATA, INDEX, SEAL, MARK])),
    st.tuples(CONTENTS, SEALS),
    max_size=6,
)


@given(files=FILES, whole=st.booleans())
@settings(deadline=None)
def test_whatever_is_in_the_place_of_a_log_a_summary_of_it_can_be_had(
    tmp_path_factory: pytest.TempPathFactory, files: dict[tuple[int, str], tuple[bytes, list[int]]], *, whole: bool
) -> None:
    log_dir = tmp_path_factory.mktemp("log")
    if whole:
        write(log_dir)
    for (number, suffix), (content, values) in files.items():
        if suffix == SEAL and len(content) % 2 == 0:
            forge_seal(log_dir, number, values)
        else:
            segment_path(log_dir, number, suffix).write_bytes(content)
    read(log_dir)
    assert isinstance(kept_log(log_dir, final=False), LogSummary)
    summary = kept_log(log_dir, final=True)
    assert summary.entries >= 0
    assert all(count >= 0 for count in (summary.warnings, summary.errors))
    # As the next attempt does, whose supervisor knows what to do on an OSError, and no other.
    with contextlib.suppress(OSError):
        write(log_dir)
    read(log_dir)


def test_seals_are_read_as_they_are_forged_here(tmp_path: Path) -> None:
    forge_seal(tmp_path, 1, list(range(12)))
    seal = read_seal(tmp_path, 1)
    assert seal is not None
    assert seal.dropped == range(10, 11)
