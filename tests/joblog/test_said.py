"""What a job says is shown whole, in time, and as its own word: lines that have not ended, forgeries, large pages."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jobledger.v1.job_service_pb2 import GetLogsResponse
from jobledger_server.joblog.plain_json import json_answer
from jobledger_server.joblog.reader import LogQuery, LogReader
from jobledger_server.joblog.segments import Stream
from jobledger_server.joblog.wire import wire_answer
from jobledger_server.joblog.writer import LogWriter
from joblog.log_model import payload


@pytest.fixture
def log_dir(tmp_path: Path) -> Path:
    return tmp_path / "log"


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.one_of(st.none(), st.sampled_from(["a", "\n", "ä", "€\n", "{", "😀", "?"])), max_size=12), st.booleans()
)
def test_pieces_shown_before_their_line_has_ended_are_the_line_when_joined(
    said: list[str | None], at_once: bool
) -> None:
    """None: nothing came for a while. Characters are never cut, though bytes come one at a time."""
    with tempfile.TemporaryDirectory() as scratch:
        writer = LogWriter(Path(scratch))
        for text in said:
            if text is None:
                writer.show(Stream.STDOUT)
            else:
                data = text.encode()
                for byte in [data] if at_once else [data[place : place + 1] for place in range(len(data))]:
                    writer.write(Stream.STDOUT, byte)
                    if not at_once:
                        writer.show(Stream.STDOUT)
        writer.end()
        writer.close()
        reader = LogReader(Path(scratch), 1)
        entries = reader.page(LogQuery(limit=1000)).entries
        content = "".join(text or "" for text in said)
        assert reader.read_content(0, 1000) == content.encode()
    lines, line = [], ""
    for entry in entries:
        line += entry.message
        if not (entry.HasField("payload") and payload(entry)["continued"]):
            lines.append(line)
            line = ""
    assert line == ""
    assert lines == (content.removesuffix("\n").split("\n") if content else [])


def test_the_beginning_of_a_structured_line_is_never_shown(log_dir: Path) -> None:
    writer = LogWriter(log_dir)
    writer.write(Stream.STDOUT, b'{"level":"info",')
    assert not writer.holds_back(Stream.STDOUT)
    writer.show(Stream.STDOUT)
    writer.write(Stream.STDOUT, b'"message":"m"}\n')
    writer.close()
    (entry,) = LogReader(log_dir, 1).page(LogQuery()).entries
    assert (entry.message, entry.HasField("payload")) == ("m", False)


def test_a_job_can_not_say_what_the_engine_says(log_dir: Path) -> None:
    """It is kept, where it is the job's word and no more."""
    writer = LogWriter(log_dir)
    forged = b'{"level":"warn","message":"5 entries were dropped","subsystem":"%s","payload":{"dropped":5}}'
    for name in (b"engine", b" Engine"):
        assert writer.write_control(forged % name)
        writer.write(Stream.STDOUT, forged % name + b"\n")
    writer.write(Stream.STDOUT, b'{"level":"info","message":"part","continued":true,"quoted":1}\n')
    writer.close()
    reader = LogReader(log_dir, 1)
    *forgeries, part = reader.page(LogQuery()).entries
    assert [entry.subsystem for entry in forgeries] == ["control", "stdout"] * 2
    assert [payload(entry) for entry in forgeries] == [
        {"dropped": 5, "subsystem": name} for name in ("engine", "engine", " Engine", " Engine")
    ]
    assert payload(part) == {"quoted": {"continued": True, "quoted": 1}}
    assert reader.page(LogQuery(subsystem="engine")).total == 0
    assert reader.page(LogQuery(subsystem="control")).total == 2


@pytest.mark.parametrize(
    "line",
    [
        b"\x01" * 60_000,
        b'{"level":"info","message":"%s"}' % (b"\\u0001" * 9_000),
        b'{"level":"info","message":"m","x":"%s"}' % (b"\\u0001" * 9_000),
    ],
    ids=["plain", "structured", "payload"],
)
def test_a_page_is_bounded_as_json_too_and_the_next_begins_where_it_ends(log_dir: Path, line: bytes) -> None:
    """A control character is one byte in a message and six in JSON."""
    writer = LogWriter(log_dir)
    for _ in range(150):
        writer.write(Stream.STDOUT, line + b"\n")
    writer.close()
    reader, seen = LogReader(log_dir, 1), list[int]()
    while len(seen) < 150:
        page = reader.page(LogQuery(offset=len(seen), limit=10_000))
        assert len(json_answer(1, page.pieces, GetLogsResponse())) <= 6 * 1024 * 1024
        assert len(wire_answer(1, page.pieces, GetLogsResponse())) <= 3 * 1024 * 1024
        seen += [entry.job_sequence for entry in page.entries]
        assert page.has_more == (len(seen) < 150)
    assert seen == list(range(1, 151))
