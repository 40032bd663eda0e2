"""Strict JSON."""

import pytest
from jobledger_gateway.errors import GatewayError
from jobledger_gateway.json_in import MAX_DEPTH, parse_object


def nested(depth: int) -> bytes:
    return b'{"a":' * depth + b"1" + b"}" * depth


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b"", {}),
        (b" {} \n", {}),
        (b'{"a":9007199254740993}', {"a": 9007199254740993}),
        (b'{"a":18446744073709551616}', {"a": 2**64}),
        (b'{"a":"\\ud83d\\ude00"}', {"a": "😀"}),
        (b'{"a":"' + b"[{" * 100 + b'"}', {"a": "[{" * 100}),
    ],
)
def test_an_object_is_read(body: bytes, value: object) -> None:
    assert parse_object(body) == value


@pytest.mark.parametrize(
    "body",
    [
        b"null", b"[]", b"5", b'"a"', b"{", b"{}{}", b"{} x", b"{'a':1}", b"{a:1}", b'{"a":1,}', b'{"a":[1,]}',
        b'{"a":NaN}', b'{"a":Infinity}', b'{"a":01}', b'{"a":+1}', b'{"a":.5}', b'{"a":1} // c', b'{"a":"\x01"}',
        b'{"a":"\\ud800"}', b'{"a":"\\udc00\\ud800"}', b'\xef\xbb\xbf{}', b'{"a":"\xff"}', b'{"a":1,"a":2}',
        b'{"a":{"b":1,"\\u0062":2}}', b'{"a":' + b"1" * 5000 + b"}", b'{"a":"\\x41"}', b"\x00", b'{"a":tru}',
        nested(MAX_DEPTH + 1), b'{"a":' + b"[" * 100_000, b'{"a":"' + b'\\"' * 300_000 + b"[" * 100,
    ],
)  # fmt: skip
@pytest.mark.timeout(30)
def test_what_is_not_strict_json_or_no_object_is_bad_json(body: bytes) -> None:
    with pytest.raises(GatewayError) as refused:
        parse_object(body)
    assert refused.value.problem.code == "E_BAD_JSON"
    assert refused.value.problem.status == 400


def test_depth_is_allowed_up_to_the_limit() -> None:
    assert parse_object(nested(MAX_DEPTH))


@pytest.mark.parametrize("body", [b'{"a": secret}', b'{"secret":1,"secret":2}'])
def test_an_error_never_quotes_the_body(body: bytes) -> None:
    with pytest.raises(GatewayError) as refused:
        parse_object(body)
    assert "secret" not in str(refused.value.problem.body())
