"""The router against a matcher that tries every rule, and the binder against the client that Google's libraries are."""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any
from urllib.parse import urlencode

from gateway.foreign import message_class, vectors_service
from google.api import annotations_pb2
from google.api_core import path_template, rest_helpers
from google.protobuf import json_format
from google.protobuf.message import Message
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from jobledger_gateway.binding import Binder, Incoming
from jobledger_gateway.dialect import Dialect
from jobledger_gateway.errors import GatewayError
from jobledger_gateway.http_rule import ANY, RuleError, parse_template, rules_of
from jobledger_gateway.router import Router

# The client has no types of its own.
transcode: Any = path_template.transcode
flatten_query_params: Any = rest_helpers.flatten_query_params

PARTS = ["a", "b", "*", "*", "**", "{x}", "{x=a/*}", "{x=**}"]
TEMPLATES = st.tuples(st.lists(st.sampled_from(PARTS), min_size=1, max_size=4), st.sampled_from(["", "", ":v", ":w"]))
RULES = st.lists(st.tuples(st.sampled_from(["GET", "POST", "HEAD", ANY]), TEMPLATES), min_size=1, max_size=12)
PATHS = st.tuples(
    st.lists(st.sampled_from(["a", "b", "c", "c:w", ""]), min_size=1, max_size=5), st.sampled_from(["", "", ":v", ":"])
)


@settings(max_examples=400, deadline=None)
@given(rules=RULES, asked=st.sampled_from(["GET", "POST", "HEAD", "PUT"]), path=PATHS)
@example(rules=[("GET", (["a", "b"], "")), ("POST", (["a", "*"], ""))], asked="POST", path=(["a", "b"], ""))
@example(rules=[("GET", (["{x=**}"], "")), ("GET", (["a", "**"], ":v"))], asked="GET", path=(["a"], ":v"))
@example(
    rules=[("GET", (["a", "*", "b"], "")), ("GET", (["a", "b", "*"], ""))], asked="GET", path=(["a", "b", "b"], "")
)
@example(
    rules=[("GET", (["a", "*", "b"], "")), ("PUT", (["a", "b", "*"], ""))], asked="GET", path=(["a", "b", "b"], "")
)
def test_the_router_finds_what_a_matcher_of_every_rule_finds(
    rules: Sequence[tuple[str, tuple[list[str], str]]], asked: str, path: tuple[list[str], str]
) -> None:
    router: Router[str] = Router()
    known: dict[tuple[str, str], str] = {}
    for method, (parts, verb) in rules:
        text = "/" + "/".join(parts) + verb
        try:
            template = parse_template(text)
            router.add(method, template, f"{method} {text}")
        except RuleError:
            continue
        known[method, "/".join(template.segments) + verb] = f"{method} {text}"
    target = "/".join(path[0]) + path[1]
    try:
        found = router.find(asked, target.split("/"))
    except GatewayError as error:
        found = error.problem.reason
    assert found == by_trying_all(known, asked, target)


def by_trying_all(known: Mapping[tuple[str, str], str], asked: str, path: str) -> str:
    """The same by regular expressions: first those with the verb of the path, then the most exact."""
    base, _, verb = path.rpartition(":")
    patterns = {pattern for _, pattern in known}
    fitting = {it for it in patterns if verb and it.endswith(f":{verb}") and fits(it.rpartition(":")[0], base)}
    fitting = fitting or {it for it in patterns if ":" not in it and fits(it, path)}
    for pattern in sorted(fitting, key=exactness):
        for method in (asked, "GET" if asked == "HEAD" else asked, ANY):
            if (method, pattern) in known:
                return known[method, pattern]
    return "METHOD_NOT_ALLOWED" if fitting else "NOT_FOUND"


def fits(pattern: str, path: str) -> bool:
    """Whether a path, with a slash before each segment, is one that the segments of a template mean."""
    one_by_one = ("(/[^/]+)*" if it == "**" else "/[^/]+" if it == "*" else f"/{it}" for it in pattern.split("/"))
    return re.fullmatch("".join(one_by_one), f"/{path}") is not None


def exactness(pattern: str) -> list[int]:
    path = pattern.partition(":")[0]
    return [{"*": 1, "**": 2}.get(it, 0) for it in path.split("/")]


TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8).filter(
    lambda text: text not in {".", ".."}
)
LONGS = st.integers(-(1 << 63), (1 << 63) - 1)
# A message that is set and empty is nothing that a query could say.
INNERS = st.fixed_dictionaries({"a": TEXTS}, optional={"count_of_things": st.integers(-5, 1 << 30)})
JOBS = st.fixed_dictionaries(
    {},
    optional={
        "id": TEXTS | st.just("x:cancel") | st.builds("projects/{}/jobs/{}".format, TEXTS, TEXTS),
        "seq": LONGS,
        "state": st.sampled_from([1, 2]),
        "tags": st.lists(TEXTS, max_size=3),
        "inner": INNERS,
        "display_name": TEXTS,
        "shown": TEXTS,
        "flag": st.booleans(),
        "ratio": st.floats(allow_nan=False),
        "blob": st.binary(max_size=5),
        "created_at": st.datetimes(),
        "opt_str": st.just("") | TEXTS,
        "opt_int": st.integers(-5, 5),
        "left": TEXTS,
    },
)
METHODS = st.sampled_from(["Get", "List", "Delete", "Create", "Put", "Cancel", "CancelAll"])


@settings(max_examples=300, deadline=None)
@given(name=METHODS, fields=JOBS)
@example(name="Get", fields={"id": "projects/p/jobs/j", "tags": ["a+b", "c&d"], "inner": {"a": "é"}})
@example(name="Cancel", fields={"id": "x:cancel", "seq": 1 << 60})
def test_what_googles_client_sends_is_the_message_that_it_was_given(name: str, fields: dict[str, Any]) -> None:
    message = message_class("vectors.v1.Job")(**fields)
    method, path, query, body = sent(name, message)
    segments = path.split("/")[1:]
    # A value of several segments may come to ones that no path has here.
    assume(not {"", ".", ".."} & set(segments))
    binder = routes().find(method, segments)
    assert binder.rule.rpc.name == name
    verb = binder.rule.template.verb
    segments[-1] = segments[-1].removesuffix(f":{verb}") if verb else segments[-1]
    got = binder.bind(Incoming(segments=segments, query=query, body=body, content_type="application/json"))
    # Floats that are negative zero are told apart by their text.
    assert str(got) == str(message)


def sent(name: str, message: Message) -> tuple[str, str, str, bytes]:
    """Method, path, query and body of a message, as google.api_core makes them."""
    annotation = vectors_service().methods_by_name[name].GetOptions().Extensions[annotations_pb2.http]
    bindings = list(options(annotation))
    try:
        request = transcode(bindings, message=message)
    except ValueError:
        assume(False)
    # A message that is all defaults is, to that library, no message at all.
    assume(message.ByteSize() > 0)
    left: Any = json_format.MessageToDict(request["query_params"]) if request["query_params"] else {}
    body = json_format.MessageToJson(request["body"]).encode() if "body" in request else b""
    return request["method"].upper(), request["uri"], urlencode(flatten_query_params(left, strict=True)), body


def options(annotation: Any) -> Iterator[dict[str, str]]:
    for rule in (annotation, *annotation.additional_bindings):
        kind = rule.WhichOneof("pattern")
        yield {"method": kind, "uri": getattr(rule, kind), **({"body": rule.body} if rule.body else {})}


@cache
def routes() -> Router[Binder]:
    router: Router[Binder] = Router()
    for method in vectors_service().methods:
        for rule in rules_of(method):
            router.add(rule.method, rule.template, Binder(rule, dialect=Dialect.PROTOJSON))
    return router
