"""No secret gets into a log, however the stream is cut; and nothing else is lost or held up for it."""

import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
from google.protobuf import json_format
from hypothesis import given, settings
from hypothesis import strategies as st
from jobledger.v1.job_service_pb2 import GetLogsResponse
from jobledger_server.joblog.plain_json import json_answer
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


# Without backslashes: with one between them, two halves of a secret may be taken for one.
NOISE = st.one_of(
    st.binary(max_size=6).map(lambda it: it.replace(b"\\", b"")), st.text("ab/\n", max_size=6).map(str.encode)
)


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


# What JSON, people and patterns find special; and what no single unit of UTF-16 holds.
HARD = st.text("aA1=+/\\\\\"'\n\t<&é😀\u2028.", min_size=4, max_size=12).map(str.strip)
HARD = HARD.filter(lambda it: len(it.replace("\\", "")) >= 4)


def escaped(draw: st.DrawFn, text: str) -> str:
    """The text within a string of JSON, each character as it came to the writer's mind."""
    spelled = []
    for character in text:
        units = character.encode("utf-16-be", "surrogatepass")
        codes = [units[at : at + 2].hex() for at in range(0, len(units), 2)]
        plain = json.dumps(character, ensure_ascii=False)[1:-1]
        long = "".join("\\u" + "".join(draw(st.sampled_from((it, it.upper()))) for it in code) for code in codes)
        ways = [plain, long, *(["\\/"] if character == "/" else ())]
        spelled.append(draw(st.sampled_from(ways)))
    return "".join(spelled)


@st.composite
def structured_lines(draw: st.DrawFn) -> tuple[str, bytes]:
    """A secret, and lines that tell it in every place that a structured line has, JSON within JSON included."""
    secret = draw(HARD)
    places = ['"message": "%s"', '"message": "", "%s": 1', '"message": "", "a": [{"b": "x%s"}]']
    places += ['"message": "", "subsystem": "%s"', '"message": "", "correlation_id": "%s"']
    lines = ['{"level": "info", ' + place % escaped(draw, secret) + "}" for place in places]
    inner = json.dumps('{"a": "' + escaped(draw, secret) + '"}')
    lines += [
        '{"level": "info", "message": ' + inner + "}",
        '{"no": "level", "message": "' + escaped(draw, secret) + '"',
    ]
    return secret, "".join(line + "\n" for line in lines).encode()


@settings(deadline=None, max_examples=50)
@given(told=structured_lines(), places=st.lists(st.integers(0, 2000), max_size=12))
def test_no_spelling_of_a_secret_shows_it_through_any_door(told: tuple[str, bytes], places: list[int]) -> None:
    secret, said = told
    with tempfile.TemporaryDirectory() as directory:
        written(Path(directory), secret, *cut(said, places))
        reader = LogReader(Path(directory), 1)
        page = reader.page(LogQuery())
        shown = [json_format.MessageToDict(entry) for entry in page.entries]
        shown.append(orjson.loads(json_answer(1, page.pieces, GetLogsResponse())))
        assert len(page.entries) == said.count(b"\n")
        assert not [text for text in texts(shown) if secret in text or secret in unescaped(unescaped(text))]
        assert reader.page(LogQuery(contains=secret)).total == 0
        on_disk = b"".join(path.read_bytes() for path in Path(directory).iterdir()).decode("utf-8", "replace")
        for content in (reader.read_content(0, 1 << 20).decode(), on_disk):
            assert secret not in content
            assert secret not in unescaped(content)


def written(log_dir: Path, secret: str, *chunks: bytes) -> None:
    log = RedactingLogWriter(log_dir, 1 << 20, Secrets([secret]))
    for chunk in chunks:
        log.write(Stream.STDOUT, chunk)
    log.end()
    log.seal()
    log.close()


def unescaped(text: str) -> str:
    """What is within a string of JSON, wherever it may stand."""

    def single(found: re.Match[str]) -> str:
        return str(json.loads(f'"{found[0]}"'))

    return re.sub(r'(?:\\(?:u[0-9a-fA-F]{4}|["\\/bfnrt]))+', single, text)


def texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from texts([*value, *value.values()])
    elif isinstance(value, list):
        for item in value:
            yield from texts(item)


@pytest.mark.parametrize("spelled", ["1.2345678e7", "12345678.0", "12345678e0", "1234567800E-2"])
def test_a_secret_that_is_a_number_is_hidden_however_it_is_spelled(tmp_path: Path, spelled: str) -> None:
    """It would be shown as 12345678, since a payload knows numbers and not how they were spelled."""
    line = f'{{"level":"warn","message":"m","pin":[{spelled}],"other":1.5}}\n{{"level":"warn","message":"n"}}\n'
    written(tmp_path, "12345678", line.encode())
    page = LogReader(tmp_path, 1).page(LogQuery())
    assert b"12345678" not in json_answer(1, page.pieces, GetLogsResponse())
    assert b"1.2345678" not in LogReader(tmp_path, 1).read_content(0, 1000)
    assert len(page.entries) == 2


def test_what_is_no_secret_stays_though_it_has_backslashes() -> None:
    said = b'{"path": "C:\\\\temp\\u0041", "a": "\\"hunter2\\""}\n\\\\\\x41 hunter\\u0032\n'
    for size in (1, 3, len(said)):
        assert passed([TOKEN, 'a"b\\c'], *(said[at : at + size] for at in range(0, len(said), size))) == said


def test_an_escape_holds_back_no_more_than_a_secret_may_take() -> None:
    """A line without end costs no memory."""
    redactor = Redactor(Secrets([TOKEN]))
    passed_on = sum(len(redactor.feed(b"\\u0020" * 1000)) for _ in range(100))
    assert 600_000 - passed_on <= 13 * len(TOKEN)


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
