"""What a .proto may have and a transcoder can trip over: requests as the binder makes messages of them, or refuses."""

import json
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from gateway.foreign import VECTORS, compile_protos
from google.protobuf import json_format
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass
from jobledger_gateway.binding import Binder, Incoming
from jobledger_gateway.descriptors import services_in
from jobledger_gateway.dialect import Dialect
from jobledger_gateway.encoding import encode_json
from jobledger_gateway.errors import GatewayError, cut
from jobledger_gateway.http_rule import rules_of
from jobledger_gateway.router import Router

BOTH = list(Dialect)


@cache
def service() -> ServiceDescriptor:
    with tempfile.TemporaryDirectory() as directory:
        compiled = compile_protos(
            Path(directory) / "set", VECTORS / "awkward.proto", VECTORS / "required.proto"
        ).read_bytes()
    (found,) = services_in(compiled, name="awkward.proto")
    return found


@cache
def routes(dialect: Dialect) -> Router[Binder]:
    router: Router[Binder] = Router()
    for method in service().methods:
        for rule in rules_of(method):
            router.add(rule.method, rule.template, Binder(rule, dialect=dialect))
    return router


def bound(ask: str, body: str = "", dialect: Dialect = Dialect.PLAIN) -> Any:
    """The message of a request, which must be one that can be sent and read at the other end."""
    method, _, target = ask.partition(" ")
    path, _, query = target.partition("?")
    segments = path.split("/")[1:]
    binder = routes(dialect).find(method, segments)
    message = binder.bind(
        Incoming(segments=segments, query=query, body=body.encode(), content_type="application/json" if body else None)
    )
    type(message).FromString(message.SerializeToString())
    return message


def refusal(ask: str, body: str = "", dialect: Dialect = Dialect.PLAIN) -> tuple[int, Sequence[str], str]:
    """Status, fields and text of what a request is refused with."""
    with pytest.raises(GatewayError) as refused:
        bound(ask, body, dialect)
    problem = refused.value.problem
    return problem.status, [it["field"] for it in problem.details.get("fields", ())], problem.message


def objects(depth: int, leaf: str = "1") -> str:
    return '{"a":' * depth + leaf + "}" * depth


def lists(depth: int) -> str:
    return "[" * depth + "1" + "]" * depth


@pytest.mark.parametrize("dialect", BOTH)
@pytest.mark.parametrize(
    ("body", "field"),
    [
        ('{"config":JSON}', "config"),
        ('{"value":JSON}', "value"),
        ('{"inner":{"self":{"config":JSON}}}', "inner.self.config"),
        ('{"inners":[{"config":JSON}]}', "inners[0].config"),
    ],
)
@pytest.mark.parametrize("kind", [objects, lambda depth: f'{{"a":{lists(depth - 1)}}}'], ids=["objects", "lists"])
def test_json_within_a_message_may_have_thirty_levels(body: str, field: str, dialect: Dialect, kind: Any) -> None:
    bound("POST /all", body.replace("JSON", kind(30)), dialect)
    for depth in (31, 34, 48, 59):
        told = refusal("POST /all", body.replace("JSON", kind(depth)), dialect)
        assert told == (422, [field], f"{field}: is nested too deeply: objects and lists may have 30 levels")


def test_so_may_json_in_a_list_or_in_a_query() -> None:
    bound("POST /all", f'{{"list":{lists(30)}}}')
    assert refusal("POST /all", f'{{"list":{lists(31)}}}')[:2] == (422, ["list"])
    bound(f"GET /all?config={objects(30)}")
    assert refusal(f"GET /all?config={objects(31)}")[:2] == (422, ["config"])
    assert refusal(f"GET /all?config={objects(65)}")[:2] == (422, ["config"])


@pytest.mark.parametrize(
    ("ask", "body", "field"),
    [
        ("POST /all", '{"inner":' + '{"self":' * 32 + '{"config":' + objects(29) + "}" * 34, "inner"),
        ("POST /all", '{"inners":[' + '{"self":' * 30 + '{"config":' + objects(30) + "}" * 31 + "]}", "inners"),
        ("GET /all?inner." + "self." * 29 + "config=" + objects(30), "", None),
    ],
)  # fmt: skip
def test_a_message_that_protobuf_can_not_send_is_refused_by_name(ask: str, body: str, field: str | None) -> None:
    field = field or ask.partition("?")[2].partition("=")[0]
    status, fields, message = refusal(ask, body)
    assert (status, fields) == (422, [field])
    assert "100 levels" in message


def test_ordinary_messages_may_be_as_deep_as_json() -> None:
    bound("POST /all", '{"inner":' + '{"self":' * 62 + "{}" + "}" * 63)
    bound("POST /all", '{"by_number":{"1":' + '{"self":' * 61 + "{}" + "}" * 63)


@pytest.mark.parametrize(("levels", "status"), [(32, 200), (33, 422), (101, 422), (5000, 422)])
def test_a_name_in_a_query_leads_through_32_fields_at_most(levels: int, status: int) -> None:
    name = "inner." + "self." * (levels - 2) + "id"
    if status == 200:
        assert bound(f"GET /all?{name}=x").inner.HasField("self")
    else:
        told = cut(name)
        assert refusal(f"GET /all?{name}=x") == (422, [told], f"{told}: leads through more than 32 fields")


@pytest.mark.parametrize(
    "name",
    ["at.seconds", "span.nanos", "mask.paths", "value.number_value", "config.fields", "any.type_url", "wrapped.value",
     "list.values", "inner.config.fields", "at.seconds.x"],
)  # fmt: skip
@pytest.mark.parametrize("dialect", BOTH)
def test_a_query_never_reaches_into_what_is_one_value(name: str, dialect: Dialect) -> None:
    assert refusal(f"GET /all?{name}=5", dialect=dialect) == (422, [name], f"{name}: there is no such parameter")


@pytest.mark.parametrize(
    "ask",
    [
        "GET /at/2024-01-01T00:00:00Z?at.seconds=5",
        "GET /at/2024-01-01T00:00:00Z?at.nope=5",
        "GET /below/x?one=5",
        "GET /below/x?one.id=x",
        "GET /below/x?one.id.x=x",
    ],
)
def test_a_query_never_names_what_is_of_a_path_s_variable(ask: str) -> None:
    assert refusal(ask)[0] == 400
    assert "which the path or the body sets" in refusal(ask)[2]


EXCLUDING = [
    ("GET /all?left=a&right=1", "", "right", "left"),
    ("GET /all?one.id=a&two.id=b", "", "two.id", "one"),
    ("GET /all?one.id=a&right=1", "", "right", "one"),
    ("GET /all?right=1&one.self.id=a", "", "one.self.id", "right"),
    ("GET /all?inner.up=a&inner.down=1", "", "inner.down", "inner.up"),
    ("GET /all?one.self.up=a&one.self.down=1", "", "one.self.down", "one.self.up"),
    ("GET /left/L?right=1", "", "right", "left"),
    ("GET /left/L?one.id=1", "", "one.id", "left"),
    ("POST /left/L", '{"right":1}', "right", "left"),
    ("POST /left/L", '{"one":{"id":"x"}}', "one", "left"),
    ("GET /below/L?right=1", "", "right", "one"),
    ("GET /below/L?two.id=1", "", "two.id", "one"),
    ("POST /below/L", '{"two":{"id":"x"}}', "two", "one.id"),
    ("POST /below/L", '{"right":0}', "right", "one.id"),
    ("POST /one?two.id=3", '{"id":"x"}', "two.id", "one"),
    ("POST /one?right=3", '{"id":"x"}', "right", "one"),
    ("POST /one?two.id=3", "", "two.id", "one"),
]


@pytest.mark.parametrize("dialect", BOTH)
@pytest.mark.parametrize(("ask", "body", "field", "other"), EXCLUDING)
def test_what_one_oneof_has_twice_is_refused_with_both_names(
    ask: str, body: str, field: str, other: str, dialect: Dialect
) -> None:
    status, fields, message = refusal(ask, body, dialect)
    assert (status, fields) == (422, [field])
    assert f"excludes '{other}'" in message


def test_one_of_a_oneof_may_be_set_from_several_sides() -> None:
    message = bound("GET /below/L?one.count=4&one.self.up=u")
    assert json_format.MessageToDict(message) == {"one": {"id": "L", "count": "4", "self": {"up": "u"}}}
    assert bound("POST /below/L", '{"one":{"id":"L","count":4},"two":null}').one.count == 4


@pytest.mark.parametrize(
    ("mask", "paths"),
    [
        ("name", ["name"]),
        ("inner.shownName,inner.count", ["inner.shownName", "inner.count"]),
        ("*", ["*"]),
        ("config.a.b", ["config.a.b"]),
        ("byNumber.x", ["by_number.x"]),
    ],
)
@pytest.mark.parametrize("dialect", BOTH)
def test_a_mask_names_fields_as_the_proto_does(mask: str, paths: list[str], dialect: Dialect) -> None:
    assert bound(f"PATCH /things/x?update_mask={mask}", "{}", dialect).update_mask.paths == paths


@pytest.mark.parametrize(
    "path", ["name.surname", "name.sur.name", "id.grid", "inner.nope", "inner.count.count", "nope"]
)
def test_a_mask_that_names_no_field_is_refused(path: str) -> None:
    status, fields, message = refusal(f"PATCH /things/x?update_mask=name,{path}", "{}")
    assert (status, fields) == (422, ["update_mask"])
    assert f"'{path}' is not a field of awkward.v1.Thing" in message


def test_a_key_in_two_spellings_is_a_duplicate() -> None:
    assert sorted(bound("POST /all", '{"by_number":{"0":{},"1":{}}}').by_number) == [0, 1]
    told = refusal("POST /all", '{"by_number":{"0":{"id":"a"},"-0":{"id":"b"}}}')
    assert told == (422, ["by_number.-0"], "by_number.-0: is the key '0' in another spelling")


@pytest.mark.parametrize(
    ("text", "number"),
    [("1e18", 10**18), ("-1E+18", -(10**18)), ("9.007199254740993e15", 2**53 + 1), ("9007199254740993.0", 2**53 + 1),
     ("9.223372036854775807e18", 2**63 - 1), ("1.0", 1), ("2e0", 2)],
)  # fmt: skip
@pytest.mark.parametrize("dialect", BOTH)
def test_a_whole_number_may_have_an_exponent_and_keeps_its_digits(text: str, number: int, dialect: Dialect) -> None:
    assert bound("POST /all", f'{{"i64":{text},"wrapped":{text},"ratio":{text}}}', dialect).i64 == number


@pytest.mark.parametrize("text", ["1e19", "9.223372036854775808e18", "1e300", "-1e19", "9007199254740993.5", "0.5"])
def test_a_number_with_an_exponent_that_is_none_of_the_field_is_refused(text: str) -> None:
    assert refusal("POST /all", f'{{"i64":{text}}}')[:2] == (422, ["i64"])


def test_a_large_number_with_an_exponent_is_still_a_double() -> None:
    message = bound("POST /all", '{"ratio":1e18,"value":1e300,"config":{"a":1e18},"u64":1.8446744073709551615e19}')
    assert (message.ratio, message.value.number_value, message.config["a"]) == (1e18, 1e300, 1e18)
    assert message.u64 == 2**64 - 1


@pytest.mark.parametrize("name", ["high", "upper", "LEVEL_HIGH", "LEVEL_UPPER"])
def test_an_alias_goes_by_its_short_name_too(name: str) -> None:
    assert bound(f"GET /all?level={name}").level == 1
    assert json.loads(encode_json(bound("POST /all", json.dumps({"level": name}))))["level"] == "high"


@pytest.mark.parametrize("dialect", BOTH)
def test_fields_that_proto2_requires_are_asked_for(dialect: Dialect) -> None:
    assert bound("GET /required?id=x", dialect=dialect).id == "x"
    assert refusal("GET /required", dialect=dialect) == (422, ["id"], "id: must be given")
    assert refusal("POST /required", '{"id":"x","self":{"count":1}}', dialect)[:2] == (422, ["self.id"])
    any_of = '{"any":{"@type":"type.googleapis.com/required.v1.Required","count":1}}'
    status, fields, message = refusal("POST /all", any_of, dialect)
    assert (status, fields) == (422, ["any"])
    assert "Required" in message


@pytest.mark.parametrize("dialect", BOTH)
@pytest.mark.parametrize(
    "fields",
    [{"at": {"nanos": -5}}, {"at": {"nanos": 10**9}}, {"at": {"seconds": 10**15}}, {"span": {"nanos": 10**9}},
     {"span": {"seconds": 1, "nanos": -1}}, {"span": {"nanos": -(10**9)}}],
)  # fmt: skip
def test_a_time_or_span_that_is_none_is_never_written(fields: dict[str, Any], dialect: Dialect) -> None:
    message = GetMessageClass(service().methods_by_name["Do"].output_type)(**fields)
    with pytest.raises(ValueError, match=r"Timestamp|Duration|seconds"):
        encode_json(message, dialect)
