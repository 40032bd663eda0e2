"""What the control pipe takes for a message, and what it only counts."""

import json

import pytest
from jobledger_server.executors.local.messages import (
    Checkpoint,
    Declaration,
    LogLine,
    MessageReader,
    Misdeclaration,
    Progress,
)
from jobledger_server.joblog.redaction import Secrets


@pytest.mark.parametrize(
    "line",
    [
        b"nonsense",
        b"[]",
        b"5",
        b"{}",
        b'{"type":5}',
        b'{"type":["log"]}',
        b'{"type":"artifact"}',
        b'{"type":"artifact","path":7}',
        b'{"type":"checkpoint"}',
        b'{"type":"checkpoint","data":null}',
        b'{"type":"checkpoint","data":[1]}',
        b'{"type":"checkpoint","data":{"at":NaN}}',
        b'{"type":"checkpoint","data":{"at":1e999}}',
        b'{"type":"checkpoint","data":{"at":' + b"[" * 4000 + b"]" * 4000 + b"}}",
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


@pytest.mark.parametrize(
    ("said", "path"),
    [("model.bin", "model.bin"), ("./a//b/./c", "a/b/c"), ("a/", "a"), ("..a/b..", "..a/b.."), ("отчёт", "отчёт")],
)
def test_a_declared_path_is_relative_and_in_its_shortest_form(said: str, path: str) -> None:
    line = json.dumps({"type": "artifact", "path": said}).encode() + b"\n"
    assert list(MessageReader().feed(line)) == [Declaration(path)]


@pytest.mark.parametrize(
    "path",
    ["", ".", "/etc/passwd", "../secret", "a/../../secret", "a\0b", "a\nb", "a\\b", "a\u202eb", "\udce9", "x" * 1025],
)
def test_what_no_artifact_can_be_called_is_told_as_it_was_said(path: str) -> None:
    reader = MessageReader()
    line = json.dumps({"type": "artifact", "path": path}).encode() + b"\n"
    assert list(reader.feed(line)) == [Misdeclaration(path)]
    assert reader.ignored == 0


def test_of_a_path_of_any_length_no_more_is_told_than_that_it_is_too_long() -> None:
    line = json.dumps({"type": "artifact", "path": "x" * 5000}).encode() + b"\n"
    assert list(MessageReader().feed(line)) == [Misdeclaration("x" * 1025)]


def test_a_checkpoint_is_any_json_object() -> None:
    data = {"row": 7, "seen": ["é", None, {"deep": True}], "name": "caf\udce9", "ratio": 0.1}
    line = json.dumps({"type": "checkpoint", "data": data}).encode() + b"\n"
    (message,) = MessageReader().feed(line)
    assert isinstance(message, Checkpoint)
    assert json.loads(message.text) == data
    assert message.text.isascii()


def test_no_depth_of_nesting_is_more_than_a_message_that_is_not_understood() -> None:
    """Reading and writing JSON give up at different depths; neither may end the supervisor."""
    reader = MessageReader()
    for depth in range(900, 1100):
        for kind, field in (("log", "payload"), ("checkpoint", "data")):
            nested = '{"a":' * depth + "1" + "}" * depth
            list(reader.feed(f'{{"type":"{kind}","{field}":{nested}}}\n'.encode()))
    assert reader.ignored > 0
    assert list(reader.feed(b'{"type":"progress","percent":5}\n')) == [Progress({"percent": 5.0})]


def test_no_message_holds_a_secret_however_json_spells_it() -> None:
    reader = MessageReader(Secrets(["päss&word/1"]))
    said = [
        {"type": "log", "level": "info", "message": "a", "payload": {"päss&word/1": ["päss&word/1"]}},
        {"type": "progress", "phase": "with päss&word/1"},
        {"type": "artifact", "path": "of-päss&word/1.bin"},
        {"type": "checkpoint", "data": {"key": "päss&word/1"}},
    ]
    for message in said:
        plain = json.dumps(message)
        for line in (plain, json.dumps(message, ensure_ascii=False), plain.replace("s", "\\u0073")):
            assert not list(reader.feed(line.encode()))
            (hidden,) = reader.feed(b"\n")
            assert "***" in str(hidden)
            assert "word" not in str(hidden)
    assert reader.ignored == 0


def test_a_message_that_is_nothing_without_its_secret_is_ignored() -> None:
    reader = MessageReader(Secrets(["12345678"]))
    assert not list(reader.feed(b'{"type": "progress", "items_total": 12345678}\nno JSON 12345678\n'))
    assert reader.ignored == 2
