"""Templates and routes by tables."""

from typing import Any

import pytest
from google.api import annotations_pb2
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import MethodDescriptor
from jobledger_gateway.errors import GatewayError
from jobledger_gateway.http_rule import RuleError, parse_template, rules_of
from jobledger_gateway.router import Router

BAD_TEMPLATES = [
    ("v1/jobs", "begin with '/'"),
    ("/v1/{name=**}/x", "'**' must be the last"),
    ("/v1/**/x", "'**' must be the last"),
    ("/v1/{id}/{id}", "two variables"),
    ("/v1//jobs", "not a segment"),
    ("/v1/", "not a segment"),
    ("/v1/{a b}", "not a field path"),
    ("/v1/{a.}", "not a field path"),
    ("/v1/{a={b}}", "not a segment"),
    ("/v1/jobs:", "not a verb"),
    ("/a%zz/c", "no request can have the segment 'a%zz'"),
    ("/a/%2", "no request can have"),
    ("/%ff", "no request can have"),
    ("/a%00", "no request can have"),
    ("/../c", "no request can have the segment '..'"),
    ("/a/.", "no request can have"),
    ("/a/%2e%2E", "no request can have"),
    ("/{id=a/../*}", "no request can have"),
]


@pytest.mark.parametrize(("text", "why"), BAD_TEMPLATES)
def test_a_template_that_can_not_be_matched_is_refused(text: str, why: str) -> None:
    with pytest.raises(RuleError) as refused:
        parse_template(text)
    assert why in str(refused.value)


def test_a_template_is_taken_apart_into_segments_variables_and_verb() -> None:
    template = parse_template("/v1/{name=projects/*/jobs/*}/{rest=**}:cancel")
    assert template.segments == ("v1", "projects", "*", "jobs", "*", "**")
    assert template.verb == "cancel"
    name, rest = template.variables
    assert (name.field, name.start, name.end, name.single) == (("name",), 1, 5, False)
    assert (rest.field, rest.start, rest.end, rest.single) == (("rest",), 5, None, False)


ROUTES = [
    ("GET", "/v1/jobs"),
    ("GET", "/v1/jobs/{id}"),
    ("DELETE", "/v1/jobs/{id}"),
    ("GET", "/v1/jobs/static"),
    ("POST", "/v1/jobs:cancel"),
    ("POST", "/v1/jobs/{id}:cancel"),
    ("POST", "/v1/jobs/{id}/cancel"),
    ("GET", "/v1/files/{path=**}"),
    ("GET", "/v1/{name=projects/*/jobs/*}"),
    ("PUT", "/v1/*/special"),
    ("GET", "/a/{id}/b"),
    ("GET", "/a/b/{id}"),
    ("POST", "/a/{id}/b"),
]

# method, path, and the template that answers; or the methods of `Allow`; or None where there is nothing.
CASES = [
    ("GET", "/v1/jobs", "/v1/jobs"),
    ("GET", "/v1/jobs/abc", "/v1/jobs/{id}"),
    ("GET", "/v1/jobs/static", "/v1/jobs/static"),  # literals come before wildcards
    ("DELETE", "/v1/jobs/static", "/v1/jobs/{id}"),  # but the search goes on where the literal lacks the method
    ("HEAD", "/v1/jobs/abc", "/v1/jobs/{id}"),
    ("POST", "/v1/jobs:cancel", "/v1/jobs:cancel"),
    ("POST", "/v1/jobs/abc:cancel", "/v1/jobs/{id}:cancel"),
    ("POST", "/v1/jobs/urn:x:abc:cancel", "/v1/jobs/{id}:cancel"),  # only the last colon parts a verb
    ("GET", "/v1/jobs/urn:abc", "/v1/jobs/{id}"),  # a verb that no rule knows is part of the value
    ("GET", "/v1/jobs/abc:cancel", ["OPTIONS", "POST"]),  # one that a rule knows never is
    ("GET", "/v1/jobs/abc%3Acancel", "/v1/jobs/{id}"),  # an encoded colon parts nothing
    ("POST", "/v1/jobs/:cancel", ["DELETE", "GET", "HEAD", "OPTIONS"]),  # no value, so no verb
    ("PATCH", "/v1/jobs/abc", ["DELETE", "GET", "HEAD", "OPTIONS"]),
    ("GET", "/v1/jobs:nope", None),
    ("GET", "/v1/jobs/", None),
    ("GET", "/v1//jobs", None),
    ("GET", "/v1/jobs/abc/", None),
    ("GET", "/V1/jobs/abc", None),
    ("GET", "/v1/%6Aobs/abc", None),  # literals match as they are written
    ("GET", "/v1/files/a/b/c", "/v1/files/{path=**}"),
    ("GET", "/v1/files", "/v1/files/{path=**}"),
    ("GET", "/v1/files/a/", None),
    ("GET", "/v1/projects/p/jobs/j", "/v1/{name=projects/*/jobs/*}"),
    ("PUT", "/v1/jobs/special", "/v1/*/special"),  # backtracks over the branch that begins with the literal
    ("GET", "/v1/**", None),
    ("GET", "/v1/jobs/*", "/v1/jobs/{id}"),  # an asterisk that a client sends is a value
    ("GET", "/", None),
    ("GET", "/a/b/b", "/a/b/{id}"),  # of two that fit, the one whose literal stands further left
    ("POST", "/a/b/b", "/a/{id}/b"),
    ("GET", "/a/c/b", "/a/{id}/b"),
]


@pytest.mark.parametrize(("method", "path", "expected"), CASES)
@pytest.mark.parametrize("routes", [ROUTES, ROUTES[::-1]], ids=["in order", "reversed"])
def test_a_request_finds_the_most_exact_route_that_takes_its_method(
    routes: list[tuple[str, str]], method: str, path: str, expected: str | list[str] | None
) -> None:
    router: Router[str] = Router()
    for route_method, template in routes:
        router.add(route_method, parse_template(template), template)
    segments = path.split("/")[1:]
    if isinstance(expected, str):
        assert router.find(method, segments) == expected
        return
    with pytest.raises(GatewayError) as refused:
        router.find(method, segments)
    problem = refused.value.problem
    assert problem.reason == ("NOT_FOUND" if expected is None else "METHOD_NOT_ALLOWED")
    assert problem.headers.get("Allow") == (None if expected is None else ", ".join(expected))


VALUES = {"at": ".google.protobuf.Timestamp", "wrapped": ".google.protobuf.Int64Value"}


def test_two_rules_for_the_same_requests_are_refused() -> None:
    router: Router[str] = Router()
    router.add("GET", parse_template("/v1/jobs/{id}"), "first")
    with pytest.raises(RuleError, match="another rule"):
        router.add("GET", parse_template("/v1/jobs/{name}"), "second")


def method_with(**rule: Any) -> MethodDescriptor:
    """A method on a message with a scalar, a list, a oneof, a message and `more` of those, under a rule."""
    method_with.count = getattr(method_with, "count", 0) + 1  # type: ignore[attr-defined]
    package = f"test.rules{method_with.count}"  # type: ignore[attr-defined]
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto3")
    file.dependency.extend(["google/protobuf/timestamp.proto", "google/protobuf/wrappers.proto"])
    message = file.message_type.add(name="Request")
    message.field.add(name="id", number=1, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL)
    message.field.add(name="tags", number=2, type=field.TYPE_STRING, label=field.LABEL_REPEATED)
    message.oneof_decl.add(name="pick")
    for number, name in enumerate(("left", "right"), start=4):
        message.field.add(name=name, number=number, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL, oneof_index=0)
    inner = f".{package}.Request"
    for number, (name, type_name) in enumerate(rule.pop("more", VALUES).items(), start=6):
        message.field.add(
            name=name, number=number, type=field.TYPE_MESSAGE, type_name=type_name, label=field.LABEL_OPTIONAL
        )
    message.field.add(name="inner", number=3, type=field.TYPE_MESSAGE, type_name=inner, label=field.LABEL_OPTIONAL)
    method = file.service.add(name="Service").method.add(name="Do", input_type=inner, output_type=inner)
    rule_message = method.options.Extensions[annotations_pb2.http]
    rule_message.MergeFrom(type(rule_message)(**rule))
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(file.SerializeToString())
    return pool.FindMethodByName(f"{package}.Service.Do")


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        ({"get": "/v1/{nope}"}, "has no field 'nope'"),
        ({"get": "/v1/{tags}"}, "can't set 'tags'"),
        ({"get": "/v1/{inner}"}, "can't set 'inner'"),
        ({"get": "/v1/{tags.id}"}, "'tags' is not a single message"),
        ({"get": "/v1/{at.seconds}"}, "'at' is one value, a Timestamp"),
        ({"get": "/v1/{inner.wrapped.value}"}, "'wrapped' is one value, a Int64Value"),
        ({"get": "/v1/{left}/{right}"}, "'left' and 'right' are of one oneof"),
        ({"get": "/v1/{inner.left}/{inner.right}"}, "'left' and 'right' are of one oneof"),
        ({"post": "/v1/{left}", "body": "right"}, "'left' and 'right' are of one oneof"),
        ({"post": "/v1", "body": "nope"}, "has no field 'nope'"),
        ({"post": "/v1/{id}", "body": "id"}, "path and body both set 'id'"),
        ({"get": "/v1", "response_body": "nope"}, "has no field 'nope'"),
        ({"get": "/v1", "body": "*"}, "GET takes no body"),
        ({"custom": {"kind": "get", "path": "/v1"}}, "in capitals"),
        ({"custom": {"kind": "OPTIONS", "path": "/v1"}}, "the gateway itself"),
        ({"get": "/" + "/".join("a" * 33)}, "more than 32 segments"),
        ({"body": "*"}, "names no HTTP method"),
        ({"get": "/v1", "additional_bindings": [{"get": "/v2", "additional_bindings": [{"get": "/v3"}]}]}, "nested"),
    ],
)
def test_a_rule_that_can_not_be_served_is_refused_and_named(rule: dict[str, object], why: str) -> None:
    method = method_with(**rule)
    with pytest.raises(RuleError) as refused:
        rules_of(method)
    assert why in str(refused.value)
    assert method.full_name in str(refused.value)


@pytest.mark.parametrize("name", ["SerializeToString", "DESCRIPTOR", "HasField", "WhichOneof"])
def test_a_field_that_hides_what_messages_do_is_refused_at_the_start(name: str) -> None:
    method = method_with(get="/v1", more={name: ".google.protobuf.Timestamp"})
    with pytest.raises(RuleError, match=rf"{name} hides what a message itself does"):
        rules_of(method)


def test_variables_on_either_side_of_a_oneof_are_served() -> None:
    (rule,) = rules_of(method_with(get="/v1/{left}/{inner.right}"))
    assert [variable.field for variable in rule.template.variables] == [("left",), ("inner", "right")]


def test_additional_bindings_are_rules_of_their_own() -> None:
    method = method_with(get="/v1/{id}", additional_bindings=[{"custom": {"kind": "PURGE", "path": "/v1/{inner.id}"}}])
    first, second = rules_of(method)
    assert (first.method, first.index) == ("GET", 0)
    assert (second.method, second.index, second.template.variables[0].field) == ("PURGE", 1, ("inner", "id"))
