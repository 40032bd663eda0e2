"""The two forms of a page are put together by hand: the very bytes that the message makes."""

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jobledger.v1.job_service_pb2 import GetLogsResponse
from jobledger_gateway.encoding import encode_json
from jobledger_server.core.times import timestamp
from jobledger_server.joblog.pieces import Piece, gap_piece
from jobledger_server.joblog.plain_json import json_answer, json_items
from jobledger_server.joblog.reader import LogQuery, LogReader
from jobledger_server.joblog.segments import Kind, Run, Stream
from jobledger_server.joblog.structured import parse_structured
from jobledger_server.joblog.wire import varint, wire_answer, wire_entries
from jobledger_server.joblog.writer import LogWriter
from joblog.log_model import from_line

# What JSON escapes, what it does not though it looks like it, and what stands for an escape.
AWKWARD = st.text('"\\\b\t\n\x00\x1f\x7f\u2028nu,{}é😀', max_size=6)
TEXTS = st.one_of(st.text(max_size=12), AWKWARD)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=8,
)
FIELDS = st.fixed_dictionaries(
    {"level": st.sampled_from(["trace", "DEBUG", "info", "warning", "fatal"]), "message": TEXTS},
    optional={
        "subsystem": st.one_of(TEXTS, VALUES),
        "correlation_id": st.one_of(TEXTS, VALUES),
        "payload": VALUES,
        "text": TEXTS,
        "else": VALUES,
    },
)
SAID = st.builds(json.dumps, FIELDS, ensure_ascii=st.booleans()).map(str.encode)
LINES = st.one_of(
    SAID,
    st.binary(max_size=20).map(lambda line: line.replace(b"\n", b"")),
    TEXTS.map(lambda text: text.replace("\n", "").encode()),
    st.integers(60_000, 70_000).map(lambda size: b"x" * size),
)
NUMBERS = st.sampled_from([1, 2, 127, 1 << 20, (1 << 23) - 1])
TOTALS = st.builds(
    GetLogsResponse,
    total=st.integers(0, 1 << 40),
    offset=st.integers(0, 1 << 40),
    limit=st.integers(1, 10_000),
    has_more=st.booleans(),
    log_removed_at=st.none() | st.integers(0, 1 << 50).map(timestamp),
)
CHUNKS = st.lists(st.tuples(st.sampled_from([Stream.STDOUT, Stream.STDERR]), st.lists(LINES, max_size=5)), max_size=5)
TIMES = st.integers(0, 1 << 50)
GAP = Run(7, 1_000_000, 0, 1, 0, 0, 4, Stream.CONTROL, Kind.GAP, 0, 0, 6, 0, 0)


def pieces_of(
    scratch: Path, number: int, chunks: list[tuple[Stream, list[bytes]]], times: list[int], query: LogQuery
) -> list[Piece]:
    clock = iter(sorted(times))
    writer = LogWriter(scratch, now=clock.__next__)
    for stream, lines in chunks:
        writer.write(stream, b"".join(line + b"\n" for line in lines))
    writer.end()
    writer.close()
    return list(LogReader(scratch, number).page(query).pieces)


@settings(max_examples=200, deadline=None)
@given(
    chunks=CHUNKS,
    times=st.lists(TIMES, min_size=200, max_size=200),
    number=NUMBERS,
    totals=TOTALS,
    query=st.builds(LogQuery, descending=st.booleans(), max_bytes=st.sampled_from([100, 70_000, 1 << 22])),
)
def test_a_page_is_the_same_bytes_whether_a_message_is_made_of_it_or_not(
    chunks: list[tuple[Stream, list[bytes]]], times: list[int], number: int, totals: GetLogsResponse, query: LogQuery
) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        pieces = [*pieces_of(Path(scratch), number, chunks, times, query), gap_piece(GAP, 7, 3)]
    wire = wire_answer(number, pieces, totals)
    message = GetLogsResponse.FromString(wire)
    assert message.SerializeToString(deterministic=True) == wire
    assert encode_json(message) == json_answer(number, pieces, totals)
    alone = [GetLogsResponse.FromString(entry).logs[0] for entry in wire_entries(number, pieces)]
    assert alone == list(message.logs)
    items = json_items(number, pieces)
    assert [*zip(items.numbers, items, strict=True)] == [
        (b"%d" % entry.job_sequence, encode_json(entry)) for entry in message.logs
    ]


@settings(max_examples=200, deadline=None)
@given(lines=st.lists(SAID.filter(lambda line: parse_structured(line) is not None), min_size=1, max_size=5))
def test_a_structured_entry_says_what_its_line_says(lines: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        writer = LogWriter(Path(scratch))
        writer.write(Stream.STDOUT, b"\n".join(lines) + b"\n")
        writer.close()
        entries = LogReader(Path(scratch), 1).page(LogQuery()).entries
    assert [from_line(line) for line in lines] == [
        (
            entry.level,
            entry.message,
            entry.subsystem,
            entry.correlation_id if entry.HasField("correlation_id") else None,
            entry.payload if entry.HasField("payload") else None,
        )
        for entry in entries
    ]


@pytest.mark.parametrize("number", [0, 1, 127, 128, 16383, 16384, (1 << 21) - 1, 1 << 28, (1 << 53) - 1, (1 << 64) - 1])
def test_a_number_is_coded_as_protobuf_codes_it(number: int) -> None:
    coded = varint(number)
    assert sum((byte & 127) << 7 * place for place, byte in enumerate(coded)) == number
    assert [byte >> 7 for byte in coded] == [1] * (len(coded) - 1) + [0]
    assert len(coded) == 1 or coded[-1]


@pytest.mark.parametrize("count", [1, 126, 127, 128, 129, 300])
def test_pages_hold_the_numbers_on_either_side_of_a_longer_code(tmp_path: Path, count: int) -> None:
    chunks = [(Stream.STDOUT, [b"line %d" % place for place in range(1, count + 1)])]
    pieces = pieces_of(tmp_path, 3, chunks, [0] * 5, LogQuery())
    entries = GetLogsResponse.FromString(wire_answer(3, pieces, GetLogsResponse())).logs
    assert [(entry.id, entry.job_sequence, entry.message) for entry in entries] == [
        (3 << 30 | place, place, f"line {place}") for place in range(1, count + 1)
    ]


def test_structured_entries_hold_the_numbers_on_either_side_of_a_longer_code(tmp_path: Path) -> None:
    said = b'{"level":"error","message":"said"}'
    for number, ahead in enumerate((126, 16_382, (1 << 21) - 2)):
        chunks = [(Stream.STDOUT, [b""] * ahead), (Stream.STDOUT, [said] * 4)]
        times = [999_999] * 1000 + [268_435, 268_436, 0, 1_000_000]
        pieces = pieces_of(tmp_path / str(number), 3, chunks, times, LogQuery(levels=frozenset([5])))
        entries = GetLogsResponse.FromString(wire_answer(3, pieces, GetLogsResponse())).logs
        assert [(entry.id, entry.job_sequence, entry.message) for entry in entries] == [
            (3 << 30 | place, place, "said") for place in range(ahead + 1, ahead + 5)
        ]


@pytest.mark.parametrize("micros", [0, 1, 16, 17, 268_435, 268_436, 999_999, 1_000_000, 1_268_435, 1 << 50])
def test_a_time_is_the_same_bytes_whatever_comes_before_it(tmp_path: Path, micros: int) -> None:
    line = b'{"level":"error","message":"said"}'
    chunks = [(stream, [line]) for stream in (Stream.STDOUT, Stream.STDERR, Stream.STDOUT)]
    pieces = pieces_of(tmp_path, 3, chunks, [micros // 2, micros, micros + 1] + [1 << 51] * 9, LogQuery())
    wire = wire_answer(3, pieces, GetLogsResponse())
    message = GetLogsResponse.FromString(wire)
    assert message.SerializeToString(deterministic=True) == wire
    times = [entry.timestamp_utc.ToMicroseconds() for entry in message.logs]
    assert times == [micros // 2, micros, micros + 1]
    assert encode_json(message) == json_answer(3, pieces, GetLogsResponse())
