"""The names that downloads are saved under, and bytes as messages."""

import re
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jobledger_server.api.downloads import attachment, bodies
from jobledger_server.api.inprocess_context import InProcessContext

OVER_A_SOCKET: Any = SimpleNamespace()
CONTEXTS = [OVER_A_SOCKET, InProcessContext]


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("report.csv", 'attachment; filename="report.csv"'),
        ("a b;c=d.txt", 'attachment; filename="a b;c=d.txt"'),
        ("", 'attachment; filename=""'),
        ("naïve.csv", "attachment; filename=\"na_ve.csv\"; filename*=UTF-8''na%C3%AFve.csv"),
        ('a"b\\c', "attachment; filename=\"a_b_c\"; filename*=UTF-8''a%22b%5Cc"),
        ("100%41.txt", "attachment; filename=\"100_41.txt\"; filename*=UTF-8''100%2541.txt"),
        ("a\r\nSet-Cookie: x", "attachment; filename=\"a__Set-Cookie: x\"; filename*=UTF-8''a%0D%0ASet-Cookie%3A%20x"),
        ("a\0b\x7f", "attachment; filename=\"a_b_\"; filename*=UTF-8''a%00b%7F"),
    ],
)
def test_a_name_stands_in_the_header_as_rfc_6266_has_it(name: str, header: str) -> None:
    assert attachment(name) == header


@given(st.text(st.characters(codec="utf-8"), max_size=30))
def test_no_name_breaks_out_of_the_header_and_each_can_be_read_back(name: str) -> None:
    header = attachment(name)
    assert re.fullmatch(r"[ -~]*", header), "nothing but printable ASCII may stand in metadata"
    match = re.fullmatch(r"attachment; filename=\"([^\"\\]*)\"(?:; filename\*=UTF-8''([A-Za-z0-9_.~%-]+))?", header)
    assert match is not None
    assert name == (match[1] if match[2] is None else unquote(match[2]))


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


@pytest.mark.parametrize("context", CONTEXTS)
async def test_the_first_message_says_what_it_is(context: Any) -> None:
    messages = [message async for message in bodies(chunks(b"a", b"b"), "text/plain", context)]
    assert [(message.content_type, message.data) for message in messages] == [("text/plain", b"a"), ("", b"b")]


@pytest.mark.parametrize("context", CONTEXTS)
async def test_no_bytes_are_one_message(context: Any) -> None:
    [message] = [message async for message in bodies(chunks(), "text/plain", context)]
    assert (message.content_type, message.data) == ("text/plain", b"")


async def test_the_source_is_closed_where_the_reader_leaves() -> None:
    closed = []

    async def source() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x"
        finally:
            closed.append(True)

    messages = bodies(source(), "text/plain", OVER_A_SOCKET)
    await anext(messages)
    await messages.aclose()  # type: ignore[attr-defined]
    assert closed
