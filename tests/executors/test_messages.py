"""What the control pipe takes for a message, and what it only counts."""

import pytest
from jobledger_server.executors.local.messages import LogLine, MessageReader, Progress


@pytest.mark.parametrize(
    "line",
    [
        b"nonsense",
        b"[]",
        b"5",
        b"{}",
        b'{"type":"artifact"}',
        b'{"type":"progress"}',
        b'{"type":"progress","percent":101}',
        b'{"type":"progress","percent":-1}',
        b'{"type":"progress","percent":NaN}',
        b'{"type":"progress","percent":true}',
        b'{"type":"progress","percent":1' + b"0" * 400 + b"}",
        b'{"type":"progress","items_total":1.5}',
        b'{"type":"progress","items_total":' + str(2**63).encode() + b"}",
        b'{"type":"progress","phase":7}',
        b"\xff",
        b"[" * 4000,
    ],
)
def test_what_makes_no_sense_is_counted_and_does_no_harm(line: bytes) -> None:
    reader = MessageReader()
    assert list(reader.feed(line + b'\n{"type":"progress","percent":5}\n')) == [Progress({"percent": 5.0})]
    assert reader.ignored == 1


def test_messages_may_arrive_in_pieces() -> None:
    reader = MessageReader()
    text = b'{"type":"progress","phase":"load","eta_seconds":2}\n{"type":"log","level":"info","message":"m"}\n'
    messages = [message for place in range(len(text)) for message in reader.feed(text[place : place + 1])]
    assert messages == [
        Progress({"phase": "load", "eta_seconds": 2.0}),
        LogLine(b'{"level": "info", "message": "m"}'),
    ]


def test_a_line_that_is_too_long_is_ignored_as_a_whole_and_not_kept() -> None:
    reader = MessageReader()
    for _ in range(1000):
        assert not list(reader.feed(b"x" * 4096))
    assert list(reader.feed(b'{"type":"progress","percent":1}\n{"type":"progress","percent":2}\n')) == [
        Progress({"percent": 2.0})
    ]
    assert reader.ignored == 1
