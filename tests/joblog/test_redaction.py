"""No secret gets into a log, however the stream is cut; and nothing else is lost or held up for it."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jobledger_server.joblog.reader import LogQuery, LogReader
from jobledger_server.joblog.redaction import MASK, NO_SECRETS, RedactingLogWriter, Redactor, Secrets
from jobledger_server.joblog.segments import Stream
from jobledger_server.joblog.splitter import MAX_LINE
from jobledger_server.joblog.writer import LogWriter

TOKEN = "hunter2-and-more"
KEY = "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0\nshort\nBAQEFAASCBKcwggSjAgEAAo==\n-----END KEY-----\n"
# Few letters, so that secrets overlap, repeat, and are prefixes of each other.
SECRETS = st.lists(
    st.text("ab/\n", min_size=4, max_size=9).filter(lambda it: len(it.strip()) >= 4), min_size=1, max_size=4
)


def passed(values: list[str], *chunks: bytes) -> bytes:
    redactor = Redactor(Secrets(values))
    return b"".join([redactor.feed(chunk) for chunk in chunks]) + redactor.end()


def cut(data: bytes, places: list[int]) -> Iterator[bytes]:
    start = 0
    for place in sorted(place % (len(data) + 1) for place in places):
        yield data[start:place]
        start = place
    yield data[start:]


NOISE = st.one_of(st.binary(max_size=6), st.text("ab/\n", max_size=6).map(str.encode))


@settings(deadline=None)
@given(
    values=SECRETS,
    said=st.lists(st.one_of(NOISE, st.integers(0, 3)), max_size=12),
    places=st.lists(st.integers(0, 400), max_size=30),
)
def test_no_chunking_lets_a_secret_through_or_changes_what_is_left(
    values: list[str], said: list[bytes | int], places: list[int]
) -> None:
    """What comes out is what a replacement in the whole gives: of those that overlap the first, then the longest."""
    whole = b"".join(values[it % len(values)].encode() if isinstance(it, int) else it for it in said)
    redacted = passed(values, *cut(whole, places))
    patterns = sorted(Secrets(values).patterns, key=len, reverse=True)
    assert redacted == re.sub(b"|".join(map(re.escape, patterns)), MASK, whole)
    assert not [value for value in values if value.strip().encode() in redacted]


@settings(deadline=None)
@given(data=st.binary(max_size=200), places=st.lists(st.integers(0, 200), max_size=20))
def test_a_stream_without_secrets_passes_unchanged(data: bytes, places: list[int]) -> None:
    assert passed([TOKEN], *cut(data, places)) == data


def test_only_what_may_begin_a_secret_is_held_back() -> None:
    redactor = Redactor(Secrets([TOKEN]))
    assert redactor.feed(b"Password: ") == b"Password: "
    assert redactor.feed(b"is hunt") == b"is "
    assert redactor.feed(b"ing") == b"hunting"
    assert redactor.feed(b"hunter2-and-mor") == b""
    assert redactor.feed(b"e.") == b"***."
    assert redactor.feed(b"hunter2") == b""
    assert redactor.end() == b"hunter2"


def test_a_longer_secret_is_waited_for() -> None:
    redactor = Redactor(Secrets(["abcd", "abcdefgh"]))
    assert redactor.feed(b"abcd") == b""
    assert redactor.feed(b"efgh") == b"***"
    assert redactor.feed(b"abcd") + redactor.feed(b"!") == b"***!"


@pytest.mark.parametrize("size", [1, 2, 7, 64])
def test_a_key_in_several_lines_is_hidden_as_a_whole_and_line_by_line(size: int) -> None:
    lines = KEY.strip().split("\n")
    told = f"{KEY}|{lines[1]}|{lines[3]}  x {' '.join(lines)}\r\n".encode()
    redacted = passed([KEY], *(told[at : at + size] for at in range(0, len(told), size)))
    assert redacted == b"***\n|***|***  x *** *** short *** ***\r\n"


@pytest.mark.parametrize("dumped", [json.dumps, lambda it: json.dumps(it, ensure_ascii=False)])
def test_a_secret_is_found_as_json_spells_it(dumped: object) -> None:
    secret = 'päss"word\\with\nlines & <more>/'
    assert callable(dumped)
    for spelled in (dumped(secret), dumped(secret).replace("/", "\\/")):
        assert passed([secret], f'{{"level": "info", "message": {spelled}}}'.encode()) == (
            b'{"level": "info", "message": "***"}'
        )
    in_html = dumped(secret).replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
    assert passed([secret], in_html.encode()) == b'"***"'


def test_a_document_is_read_before_secrets_are_looked_for() -> None:
    spelled = "".join(f"\\u{ord(character):04x}" for character in TOKEN)
    assert json.loads(Secrets([TOKEN]).hide_in_json(f'{{"a": ["{spelled}", 1]}}'.encode())) == {"a": ["***", 1]}


def test_bytes_that_are_no_text_are_hidden_too() -> None:
    value = b"\xff\xfe-key".decode("utf-8", "surrogateescape")
    assert passed([value], b"a \xff", b"\xfe-key b") == b"a *** b"


def test_white_space_around_a_secret_does_not_protect_it() -> None:
    assert passed([f" {TOKEN}\n"], f"[{TOKEN}]".encode()) == b"[***]"


def test_nothing_is_hidden_where_there_is_no_secret() -> None:
    assert not NO_SECRETS
    assert NO_SECRETS.hide(b"x") == b"x"


def entries(log_dir: Path) -> list[tuple[str, str]]:
    return [(entry.subsystem, entry.message) for entry in LogReader(log_dir, 1).page(LogQuery()).entries]


def test_a_log_holds_no_secret_of_either_stream_nor_of_its_last_line(tmp_path: Path) -> None:
    log: LogWriter = RedactingLogWriter(tmp_path / "log", 1 << 20, Secrets([TOKEN]))
    log.write(Stream.STDOUT, b"one hunter2")
    log.write(Stream.STDERR, b"two hunter2-and-")
    log.write(Stream.STDOUT, b"-and-more\nthree\n")
    log.write(Stream.STDERR, b"more")
    log.end()
    log.seal()
    log.close()
    assert entries(tmp_path / "log") == [("stdout", "one ***"), ("stdout", "three"), ("stderr", "two ***")]


def test_a_secret_that_a_long_line_would_be_cut_in_is_hidden_before(tmp_path: Path) -> None:
    log = RedactingLogWriter(tmp_path / "log", 1 << 20, Secrets([TOKEN]))
    log.write(Stream.STDOUT, b"x" * (MAX_LINE - 5) + TOKEN.encode() + b"y" * 100 + b"\n")
    log.end()
    log.seal()
    log.close()
    assert "".join(message for _, message in entries(tmp_path / "log")) == "x" * (MAX_LINE - 5) + "***" + "y" * 100
