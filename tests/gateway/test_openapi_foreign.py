"""The OpenAPI document of services that share names, paths and methods; and what generators of clients stumble over."""

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from gateway.foreign import VECTORS, Recorder, compile_protos, reached, transcoded, vectors_service
from jobledger_gateway.about import about_services
from jobledger_gateway.codec import Codec
from jobledger_gateway.comments import comments_in
from jobledger_gateway.descriptors import services_in
from jobledger_gateway.dialect import Dialect
from jobledger_gateway.openapi import document
from jobledger_gateway.openapi_file import openapi_text
from jobledger_gateway.routes import RECEIVABLE, routes_of
from jobledger_gateway.streaming import StreamSettings
from jobledger_gateway.transcoder import RuleError, transcode
from openapi_spec_validator import OpenAPIV31SpecValidator

HEAD = 'syntax = "proto3"; package %s; import "google/api/annotations.proto"; '
THING = "message %s { string id = 1; string name = 2; Shelf shelf = 3; } message Shelf { string name = 1; } "
CHANGING = {"put", "post", "delete", "patch"}
RPC = "rpc %s(%s) returns (%s) { option (google.api.http) = { %s }; } "


def written(directory: Path, **files: str) -> bytes:
    """The descriptor set of files by name."""
    paths = [directory / f"{name}.proto" for name in files]
    for path, text in zip(paths, files.values(), strict=True):
        path.write_text(text)
    return compile_protos(directory / "set.binpb", *paths, more=("--include_source_info",)).read_bytes()


async def openapi_of(data: bytes, dialect: Dialect = Dialect.PLAIN) -> Any:
    services = services_in(data, name="set")
    codec = Codec(dialect=dialect, pool=services[0].file.pool)
    async with grpc.aio.insecure_channel("unix:none") as channel:
        routes = list(routes_of(services, channel, StreamSettings(), asyncio.Event(), codec))
        return document(routes, about_services(services, dialect=dialect, texts=comments_in(data)))


def things(*rules: str) -> str:
    """A service with a method for each rule."""
    rpcs = "".join(RPC % (f"M{number}", "Thing", "Thing", rule) for number, rule in enumerate(rules))
    return HEAD % "p" + THING % "Thing" + "service Things { " + rpcs + "}"


def operations(openapi: Any) -> Iterator[tuple[str, str, Any]]:
    for path, methods in openapi["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def nodes(value: Any) -> Iterator[Any]:
    yield value
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from nodes(part)


def referred(value: Any) -> Iterator[str]:
    return (node["$ref"] for node in nodes(value) if isinstance(node, dict) and "$ref" in node)


def check_generators_can_read(openapi: Any) -> None:
    assert [error.message for error in OpenAPIV31SpecValidator(openapi).iter_errors()] == []
    ids = [operation["operationId"] for _, _, operation in operations(openapi) if "operationId" in operation]
    assert len(ids) == len(set(ids))
    tags = [tag["name"] for tag in openapi["tags"]]
    assert len(tags) == len(set(tags))
    shapes = [re.sub(r"\{[^}]*\}", "{}", path) for path in openapi["paths"]]
    assert len(shapes) == len(set(shapes))
    for node in nodes(openapi):
        if isinstance(node, dict) and isinstance(node.get("enum"), list):
            kinds = {type(value) for value in node["enum"] if value is not None}
            assert len(kinds) == 1, node
            assert "type" in node
    for path, _, operation in operations(openapi):
        for status, response in operation["responses"].items():
            assert "$ref" in response or response.get("content") or status == "304", (path, status)


async def test_generators_of_clients_can_read_our_document() -> None:
    openapi = json.loads(await openapi_text())
    check_generators_can_read(openapi)
    for name, schema in openapi["components"]["schemas"].items():
        if name.endswith(".Input"):
            assert f"#/components/schemas/{name}" not in referred(schema)
    receipt = openapi["paths"]["/v1/jobs/{job_id}/receipt"]["get"]["responses"]["200"]["content"]
    assert next(iter(receipt)) == "application/json"
    assert not [path for path, _, operation in operations(openapi) if "*/*" in json.dumps(operation)]


async def test_our_document_says_of_each_cancel_what_it_does() -> None:
    openapi = json.loads(await openapi_text())
    assert "at once" in openapi["paths"]["/v1/jobs/{job_id}/cancel"]["post"]["summary"]
    view = openapi["paths"]["/gateway/jobs/{job_id}/cancel"]["post"]
    assert "waits" in view["summary"]
    assert "at once" not in view["description"]
    assert '{"error": {"type", "code", "message"}}' in openapi["info"]["description"]


@pytest.mark.parametrize("dialect", Dialect)
async def test_services_of_one_name_are_told_apart_by_their_packages(tmp_path: Path, dialect: Dialect) -> None:
    def version(number: int) -> str:
        rpcs = RPC % ("Get", "Thing", "Thing", f'get: "/v{number}/{{id}}"')
        return HEAD % f"shop.v{number}" + THING % "Thing" + f"\n// Number {number}.\nservice Orders {{ {rpcs} }}"

    gateway = HEAD % "x" + THING % "Thing" + "service Gateway { " + RPC % ("Get", "Thing", "Thing", 'get: "/x"') + "}"
    openapi = await openapi_of(written(tmp_path, v1=version(1), v2=version(2), x=gateway), dialect)
    check_generators_can_read(openapi)
    ids = {path: operation.get("operationId") for path, _, operation in operations(openapi)}
    assert (ids["/v1/{id}"], ids["/v2/{id}"], ids["/x"]) == (
        "shop_v1_Orders_Get", "shop_v2_Orders_Get", "x_Gateway_Get",
    )  # fmt: skip
    told = {tag["name"]: tag["description"] for tag in openapi["tags"]}
    assert (told["shop.v1.Orders"], told["shop.v2.Orders"], told["Gateway"]) == (
        "Number 1.", "Number 2.", "The gateway itself.",
    )  # fmt: skip


async def test_ids_that_would_come_out_alike_do_not(tmp_path: Path) -> None:
    more = 'get: "/a" additional_bindings { get: "/b" }'
    rpcs = RPC % ("Get", "Thing", "Thing", more) + RPC % ("Get_1", "Thing", "Thing", 'get: "/c"')
    text = HEAD % "p" + THING % "Thing" + "service Things { " + rpcs + "}"
    check_generators_can_read(await openapi_of(written(tmp_path, p=text)))


@pytest.mark.parametrize(
    ("rules", "path", "methods"),
    [
        (('get: "/a/{id}"', 'post: "/a/{name}"'), "/a/{id}", {"get", "post"}),
        (
            ('get: "/v1/{name=shelves/*}"', 'patch: "/v1/{shelf.name=shelves/*}"'),
            "/v1/shelves/{name}",
            {"get", "patch"},
        ),
        (('get: "/a/{id}:x"', 'get: "/a/{name}"', 'delete: "/a/*"'), "/a/{name}", {"get", "delete"}),
        (('get: "/a/{id=**}"', 'post: "/a/{name}"'), "/a/{name}", {"get", "post"}),
        (('custom { kind: "*" path: "/a/{id}" }', 'put: "/a/{id}"'), "/a/{id}", {"get", *CHANGING}),
        (('custom { kind: "*" path: "/a/{id}" } body: "*"',), "/a/{id}", CHANGING),
    ],
)
async def test_paths_of_one_shape_are_one_path(
    tmp_path: Path, rules: tuple[str, ...], path: str, methods: set[str]
) -> None:
    openapi = await openapi_of(written(tmp_path, p=things(*rules)))
    check_generators_can_read(openapi)
    assert openapi["paths"][path].keys() == methods
    (name,) = {parameter["name"] for each in openapi["paths"][path].values() for parameter in each["parameters"][:1]}
    assert f"{{{name}}}" in path


@pytest.mark.parametrize("turned", [False, True])
async def test_what_openapi_can_not_tell_apart_is_named_and_replaces_nothing(tmp_path: Path, turned: bool) -> None:
    rules = ('get: "/a/{id}"', 'get: "/a/{id=**}"')
    openapi = await openapi_of(written(tmp_path, p=things(*(rules[::-1] if turned else rules))))
    check_generators_can_read(openapi)
    operation = openapi["paths"]["/a/{id}"]["get"]
    one, many = ("M1", "M0") if turned else ("M0", "M1")
    assert operation["operationId"] == f"Things_{one}"
    assert f"`p.Things.{many}` (`GET /a/{{id=**}}`)" in operation["description"]


async def test_a_method_that_no_request_can_have_stops_the_start(tmp_path: Path) -> None:
    data = written(tmp_path, p=things('custom { kind: "FROB" path: "/a" }'))
    with pytest.raises(RuleError, match=r"p\.Things\.M0: FROB /a: no request can have the method FROB.*'\*'"):
        transcode(services_in(data, name="set"), grpc.aio.insecure_channel("x:1"))


async def test_every_other_method_reaches_its_rule_and_one_for_all_lists_the_usual(tmp_path: Path) -> None:
    kinds = sorted(RECEIVABLE - {"HEAD"})
    rules = [*(f'custom {{ kind: "{kind}" path: "/a/{kind}" }}' for kind in kinds), 'custom { kind: "*" path: "/b" }']
    (service,) = services_in(written(tmp_path, p=things(*rules)), name="set")
    recorder = Recorder(service)
    async with (
        reached(recorder, "in process") as channel,
        transcoded(service, channel) as client,
    ):
        for kind in kinds:
            assert (await client.ask(kind, f"/a/{kind}")).status == 200, kind
        listed = await client.ask("OPTIONS", "/b")
        assert listed.headers["Allow"] == "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"
    assert len(recorder.calls) == len(kinds)


async def test_the_vectors_can_be_read_by_generators_too() -> None:
    async with grpc.aio.insecure_channel("unix:none") as channel:
        service = vectors_service()
        routes = list(routes_of([service], channel, StreamSettings(), asyncio.Event()))
        check_generators_can_read(document(routes, about_services([service], dialect=Dialect.PLAIN, texts={})))


async def test_a_query_lists_nested_fields_while_they_are_not_too_many(tmp_path: Path) -> None:
    """Twenty fields of twenty fields of twenty are more than anybody reads, or a document should hold."""

    def of(name: str, inner: str, wide: int) -> str:
        return f"message {name} {{ string id = 1000; " + "".join(f"{inner} f{n} = {n}; " for n in range(1, wide)) + "}"

    for wide, deepest in ((4, "f1.f1.f1"), (21, "f1.id"), (600, "id")):
        rpc = RPC % ("Get", "A", "A", 'get: "/a"')
        text = HEAD % "p" + of("A", "B", wide) + of("B", "C", wide) + of("C", "string", wide) + f"service S {{ {rpc} }}"
        openapi = await openapi_of(written(tmp_path, p=text))
        names = [parameter["name"] for parameter in openapi["paths"]["/a"]["get"]["parameters"]]
        assert len(names) <= 500
        assert "id" in names
        assert max(names, key=lambda name: name.count(".")).count(".") == deepest.count(".")


async def test_what_proto2_requires_is_required(tmp_path: Path) -> None:
    files = (VECTORS / "awkward.proto", VECTORS / "required.proto")
    openapi = await openapi_of(compile_protos(tmp_path / "set.binpb", *files).read_bytes())
    path = openapi["paths"]["/required"]
    needed = {parameter["name"]: parameter.get("required", False) for parameter in path["get"]["parameters"]}
    assert (needed["id"], needed["count"], needed["self.id"]) == (True, False, False)
    body = path["post"]["requestBody"]
    assert body["required"]
    assert body["content"]["application/json"]["schema"]["required"] == ["id"]
