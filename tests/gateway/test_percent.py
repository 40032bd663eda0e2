"""Percent-encoding."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jobledger_gateway.errors import GatewayError
from jobledger_gateway.percent import check_path, check_target, decode_segment, parse_query


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("abc", "abc"),
        ("a%20b", "a b"),
        ("a+b", "a+b"),
        ("%E2%82%AC", "€"),
        ("a%2Fb", "a/b"),
        ("a%252Fb", "a%2Fb"),  # decoded once, never twice
        ("%20", " "),
        ("...", "..."),
    ],
)
def test_a_segment_is_decoded_once(raw: str, text: str) -> None:
    assert decode_segment(raw) == text


@pytest.mark.parametrize("raw", ["%zz", "a%2", "%", "%ff", "%C0%AF", "%00", "a%0Ab", "%7F", ".", "..", "%2e%2E", "%2e"])
def test_a_segment_that_can_not_be_read_is_a_bad_request(raw: str) -> None:
    with pytest.raises(GatewayError) as refused:
        decode_segment(raw)
    assert refused.value.problem.code == "E_BAD_REQUEST"


def refuses(check: Callable[[str], object], text: str) -> bool:
    try:
        check(text)
    except GatewayError:
        return True
    return False


@given(st.lists(st.text("a./%2eE0:~", max_size=6), max_size=3))
def test_a_path_is_refused_where_one_of_its_segments_is(parts: list[str]) -> None:
    path = f"/{'/'.join(parts)}"
    assert refuses(check_path, path) == any(refuses(decode_segment, segment) for segment in path.split("/"))


def test_a_plus_in_a_query_is_a_space_and_order_is_kept() -> None:
    assert parse_query("b=1+2&a=%2B&&c&b=3") == [("b", "1 2"), ("a", "+"), ("c", ""), ("b", "3")]


@pytest.mark.parametrize("raw", ["a=%ff", "a=%zz", "a=%00", "%00=a", "&".join(["a=1"] * 257)])
def test_a_query_that_can_not_be_read_is_a_bad_request(raw: str) -> None:
    with pytest.raises(GatewayError) as refused:
        parse_query(raw)
    assert refused.value.problem.code == "E_BAD_REQUEST"


@pytest.mark.parametrize("raw", ["/a b", "/ü", "/a\udcff", "/a\x00", "/a#b"])
def test_a_target_is_printable_ascii_without_a_fragment(raw: str) -> None:
    with pytest.raises(GatewayError):
        check_target(raw)
