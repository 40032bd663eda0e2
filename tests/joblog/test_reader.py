"""What the reader shows is what was written, however it was cut up."""

import itertools
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jobledger.v1.job_pb2 import LogEntry
from jobledger_server.joblog.reader import LogQuery, LogReader
from jobledger_server.joblog.segments import Stream
from jobledger_server.joblog.writer import LogWriter
from joblog.log_model import Entry, LogModel, payload

LINES = st.sampled_from(
    [
        b"",
        b"plain",
        b"b\xc3\xa4r",
        b"\xff\x00\xfe",
        b'{"level": "info", "message": "said"}',
        b'{"level": "WARNING", "message": "odd", "subsystem": "db"}',
        b'{"level": "fatal", "message": "gone", "x": 1}',
        b'{"level": "loud", "message": "no such level"}',
        b'{"not": "an entry"}',
        b"{",
        b"x" * 300,
        b'{"level": "info", "message": "g\\u006fne", "subsystem": "d\\u0062"}',
    ]
)
CHUNKS = st.lists(
    st.tuples(st.sampled_from([Stream.STDOUT, Stream.STDERR]), st.lists(LINES, max_size=8), st.binary(max_size=3)),
    max_size=12,
)

Chunks = list[tuple[Stream, list[bytes], bytes]]


def ticking() -> "itertools.count[int]":
    return itertools.count(1_000_000, 10)


def shown(entry: LogEntry) -> Entry:
    return Entry(entry.job_sequence, entry.level, entry.subsystem, entry.message)


@pytest.fixture
def log_dir(tmp_path: Path) -> Path:
    return tmp_path / "log"


MOMENTS = st.one_of(st.none(), st.integers(999_990, 1_000_140))
QUERIES = st.builds(
    LogQuery,
    levels=st.frozensets(st.integers(1, 5)),
    subsystem=st.sampled_from([None, "stdout", "stderr", "db"]),
    contains=st.sampled_from([None, "", "a", "ä", "\ufffd", "gone"]),
    offset=st.integers(0, 60),
    limit=st.integers(1, 60),
    after_sequence=st.one_of(st.none(), st.integers(0, 60)),
    descending=st.booleans(),
    since=MOMENTS,
    until=MOMENTS,
)


def written(log_dir: Path, cap: int, chunks: Chunks, *, reopen: int, seal: bool) -> LogModel:
    """Writes chunks; another writer takes over at the place `reopen`."""
    model, writer = LogModel(), LogWriter(log_dir, cap, now=ticking().__next__)
    for place, (stream, lines, tail) in enumerate(chunks):
        if place == reopen:
            writer.end()
            model.end()
            model.held = {Stream.STDOUT: b"", Stream.STDERR: b""}
            if seal:
                writer.seal()
            writer.close()
            writer = LogWriter(log_dir, cap, now=ticking().__next__)
        chunk = b"\n".join(lines) + tail
        writer.write(stream, chunk)
        model.write(stream, chunk)
    writer.end()
    model.end()
    writer.close()
    return model


@settings(max_examples=200, deadline=None)
@given(
    chunks=CHUNKS,
    cap=st.sampled_from([2**16, 2**28]),
    query=QUERIES,
    reopen=st.integers(0, 12),
    seal=st.booleans(),
)
def test_every_page_equals_that_of_the_model(
    chunks: Chunks, cap: int, query: LogQuery, reopen: int, seal: bool
) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        model = written(Path(scratch), cap, chunks, reopen=reopen, seal=seal)
        reader = LogReader(Path(scratch), 1)
        page = reader.page(query)
        times = {entry.job_sequence: entry.timestamp_utc.ToMicroseconds() for entry in reader.page(LogQuery()).entries}
        expected = [
            entry
            for entry in model.select(query.levels, query.subsystem, query.contains)
            if (query.since is None or times[entry.sequence] >= query.since)
            and (query.until is None or times[entry.sequence] < query.until)
        ]
        if query.descending:
            expected.reverse()
        skip, cursor = query.offset, query.after_sequence
        if cursor is not None:
            skip += sum((it.sequence >= cursor) if query.descending else (it.sequence <= cursor) for it in expected)
        assert [shown(entry) for entry in page.entries] == expected[skip : skip + query.limit]
        assert page.total == len(expected)
        assert page.offset == min(skip, len(expected))
        assert page.has_more == (skip + query.limit < len(expected))
        assert reader.last_sequence() == len(model.entries)
        for is_final in (False, True):
            seen, last = reader.look(query, is_final=is_final)
            goes_on = page.has_more or (page.pieces and not is_final)
            assert (seen.entries, last) == (page.entries, None if goes_on else len(model.entries))
        assert reader.content_size() == len(model.content)
        assert reader.read_content(0, 1 << 20) == model.content
        assert reader.read_content(query.offset, query.limit) == model.content[query.offset :][: query.limit]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 200_000), min_size=1, max_size=6), st.integers(1, 70_000), st.booleans())
def test_a_long_line_becomes_pieces_that_say_whether_more_follows(sizes: list[int], step: int, newline: bool) -> None:
    content = b"\n".join("ä".encode() * (size // 2) + b"!" for size in sizes) + (b"\n" if newline else b"")
    with tempfile.TemporaryDirectory() as scratch:
        writer = LogWriter(Path(scratch))
        for start in range(0, len(content), step):
            writer.write(Stream.STDOUT, content[start : start + step])
        writer.end()
        writer.close()
        entries = LogReader(Path(scratch), 1).page(LogQuery(limit=1000)).entries
        assert LogReader(Path(scratch), 1).read_content(0, len(content)) == content
    lines, line = [], ""
    for entry in entries:
        assert len(entry.message.encode()) <= 65536
        line += entry.message
        if not (entry.HasField("payload") and payload(entry)["continued"]):
            lines.append(line)
            line = ""
    assert "\n".join(lines) == content.decode().removesuffix("\n")


def test_a_line_of_exactly_64_kib_is_one_entry(log_dir: Path) -> None:
    writer = LogWriter(log_dir)
    writer.write(Stream.STDOUT, b"x" * 65536 + b"\n" + b"y" * 65537 + b"\n")
    writer.close()
    first, second, third = LogReader(log_dir, 1).page(LogQuery()).entries
    assert (len(first.message), first.HasField("payload")) == (65536, False)
    assert (len(second.message), payload(second)["continued"]) == (65536, True)
    assert (third.message, payload(third)["continued"]) == ("y", False)


def test_times_bound_a_page_from_since_inclusive_to_until_exclusive(log_dir: Path) -> None:
    writer = LogWriter(log_dir, now=iter([1000, 2000, 3000]).__next__)
    for text in (b"a\nb\n", b"c\n", b"d\n"):
        writer.write(Stream.STDOUT, text)
    writer.close()
    reader = LogReader(log_dir, 1)

    def messages(since: int | None, until: int | None) -> str:
        return "".join(entry.message for entry in reader.page(LogQuery(since=since, until=until)).entries)

    assert messages(1000, 2000) == "ab"
    assert messages(1001, None) == "cd"
    assert messages(None, 3000) == "abc"
    assert messages(3001, None) == messages(3000, 1000) == ""
    assert reader.page(LogQuery(since=3000)).entries[0].timestamp_utc.ToMicroseconds() == 3000


def test_a_structured_entry_keeps_what_it_carries(log_dir: Path) -> None:
    writer = LogWriter(log_dir)
    writer.write(
        Stream.STDOUT,
        b'{"level":"Error","message":"m","subsystem":"db","correlation_id":"c-1","payload":{"a":[1,{"b":null}]},"k":2}\n'
        b'{"level":"debug","message":"m","payload":5,"subsystem":7}\n',
    )
    assert writer.write_control(b'{"level":"trace","message":"aside"}')
    assert not writer.write_control(b'{"level":"none","message":"aside"}')
    writer.close()
    first, second, third = LogReader(log_dir, 5).page(LogQuery()).entries
    assert (first.subsystem, first.correlation_id, first.level) == ("db", "c-1", 5)
    assert payload(first)["k"] == 2
    assert payload(first)["a"][1]["b"] is None
    assert (second.subsystem, payload(second)["payload"], payload(second)["subsystem"]) == ("stdout", 5, 7)
    assert not second.HasField("correlation_id")
    assert (third.subsystem, third.message, third.HasField("payload")) == ("control", "aside", False)
    assert len({first.id, second.id, third.id}) == 3


@pytest.mark.parametrize(
    "line",
    [
        b'{"level":"info","message":"m","x":NaN}',
        b'{"level":"info","message":"m","x":1e999}',
        b'{"level":"info","message":"\\ud800"}',
        b'{"level":"info","message":"\xff"}',
        b'{"level":"info","message":"m","x":' + b"[" * 200 + b"]" * 200 + b"}",
        b'{"level":"info","message":"m","x":' + b"[" * 30_000 + b"]" * 30_000 + b"}",
        b'{"level":30,"message":"m"}',
        b'{"level":"info","message":5}',
    ],
)
def test_a_line_that_no_message_can_hold_is_plain_text(log_dir: Path, line: bytes) -> None:
    writer = LogWriter(log_dir)
    writer.write(Stream.STDERR, line + b"\n")
    writer.close()
    (entry,) = LogReader(log_dir, 1).page(LogQuery()).entries
    assert (entry.level, entry.subsystem, entry.message) == (4, "stderr", line.decode("utf-8", "replace"))


def test_a_whole_number_that_a_double_would_round_is_kept_as_text(log_dir: Path) -> None:
    writer = LogWriter(log_dir)
    writer.write(Stream.STDOUT, b'{"level":"info","message":"m","exact":9007199254740992,"huge":9007199254740993}\n')
    writer.close()
    (entry,) = LogReader(log_dir, 1).page(LogQuery()).entries
    assert dict(entry.payload) == {"exact": 9007199254740992, "huge": "9007199254740993"}


def test_output_of_the_control_pipe_is_no_content(log_dir: Path) -> None:
    writer = LogWriter(log_dir)
    writer.write(Stream.STDOUT, b"one\n")
    writer.write_control(b'{"level":"info","message":"aside"}')
    writer.write(Stream.STDOUT, b"two\n")
    writer.close()
    reader = LogReader(log_dir, 1)
    assert reader.read_content(0, 100) == b"one\ntwo\n"
    assert reader.read_content(3, 3) == b"\ntw"


def test_a_page_ends_before_it_grows_past_its_bytes(log_dir: Path) -> None:
    writer = LogWriter(log_dir)
    writer.write(Stream.STDOUT, (b"x" * 999 + b"\n") * 10)
    writer.close()
    reader = LogReader(log_dir, 1)
    assert len(reader.page(LogQuery(max_bytes=5000)).entries) == 4
    page = reader.page(LogQuery(max_bytes=1, offset=9))
    assert (len(page.entries), page.has_more) == (1, False)


def test_a_page_of_structured_entries_ends_before_it_grows_past_its_bytes(log_dir: Path) -> None:
    writer = LogWriter(log_dir)
    for number in range(10):
        writer.write(Stream.STDOUT, b'plain\n{"level":"error","message":"%d%s"}\n' % (number, b"x" * 999))
    writer.close()
    page = LogReader(log_dir, 1).page(LogQuery(levels=frozenset([5]), offset=1, max_bytes=5000))
    assert [entry.message[:2] for entry in page.entries] == ["1x", "2x", "3x", "4x"]
    assert (page.total, page.has_more) == (10, True)


def test_lone_entries_and_others_come_in_their_order(log_dir: Path) -> None:
    """Entries that are alone in their runs are read together, and by another way."""
    writer, expected = LogWriter(log_dir), list[str]()
    for number in range(400):
        texts = [f"{number}.{place}" for place in range(1 + (number % 7 == 0))]
        lines = [b'{"level":"error","message":"%s"}\n' % text.encode() for text in texts]
        long = b'{"level":"error","message":"%d%s"}\n' % (number, b"y" * 5000) if number % 50 == 3 else b""
        writer.write(Stream.STDOUT, b"plain\n%bplain\n%b" % (b"".join(lines), long))
        expected += texts + [f"{number}" + "y" * 5000] * bool(long)
    writer.close()
    reader = LogReader(log_dir, 1)
    for offset, limit in ((0, 1000), (3, 57), (len(expected) - 5, 3)):
        rare = LogQuery(levels=frozenset([4, 5]), offset=offset, limit=limit)
        assert [entry.message for entry in reader.page(rare).entries] == expected[offset : offset + limit]
        latest = replace(rare, descending=True)
        assert [entry.message for entry in reader.page(latest).entries] == expected[::-1][offset : offset + limit]


def test_a_log_that_does_not_exist_is_empty(log_dir: Path) -> None:
    reader = LogReader(log_dir, 1)
    page = reader.page(LogQuery())
    assert (len(page.entries), page.total, reader.last_sequence(), reader.content_size()) == (0, 0, 0, 0)
    assert reader.read_content(0, 10) == b""
