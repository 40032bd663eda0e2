"""Services of shapes that are seldom seen: requests that are one value, bytes within messages, streams of requests.

Messages that can't be read, too; and what the document says of them all.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import Mock

import aiohttp
import grpc
import pytest
from gateway import channels
from gateway.client import Client
from gateway.foreign import VECTORS, Recorder, compile_protos, reached, transcoded
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass
from jobledger_gateway.descriptors import services_in
from jobledger_gateway.dialect import Dialect
from jobledger_gateway.routes import routes_of
from jobledger_gateway.streaming import StreamSettings
from jobledger_gateway.transcoder import RuleError, transcode
from openapi_spec_validator import OpenAPIV31SpecValidator

VALUES = {"Value", "List", "Struct", "Number", "Time", "Any", "Nothing", "Rest"}
BOOK = "type.googleapis.com/shapes.v1.Book"


@cache
def shapes() -> bytes:
    with TemporaryDirectory() as directory:
        return compile_protos(Path(directory) / "set", VECTORS / "shapes.proto").read_bytes()


@cache
def service() -> ServiceDescriptor:
    (found,) = services_in(shapes(), name="shapes.proto")
    return found


def made(name: str, **fields: Any) -> Any:
    return GetMessageClass(service().file.pool.FindMessageTypeByName(name))(**fields)


class Echo(Recorder):
    """Answers with what it was asked, where that is of the same type."""

    async def unary(self, method: Any, request: Any, context: Any) -> Any:
        self.answers = {**self.answers, method.name: request} if method.name in VALUES else self.answers
        return await super().unary(method, request, context)


@pytest.fixture
def recorder() -> Recorder:
    return Echo(service())


@pytest.fixture(params=list(Dialect))
async def client(recorder: Recorder, request: pytest.FixtureRequest) -> AsyncIterator[Client]:
    async with reached(recorder, "socket") as channel, transcoded(service(), channel, dialect=request.param) as opened:
        yield opened


@pytest.mark.parametrize(
    ("ask", "body"),
    [
        ("POST /value", "null"),
        ("POST /value", "5"),
        ("POST /value", '[1,{"a":null}]'),
        ("POST /value", '{"a":"b"}'),
        ("POST /list", '["a",[1]]'),
        ("POST /struct", '{"a":{"b":[]}}'),
        ("POST /any", f'{{"@type":"{BOOK}","about":"x"}}'),
        ("POST /any", "{}"),
        ("DELETE /nothing", "{}"),
    ],
)
async def test_a_request_that_is_one_value_is_that_value_in_json(client: Client, ask: str, body: str) -> None:
    method, _, path = ask.partition(" ")
    answer = await client.ask(method, path, data=body, headers={"Content-Type": "application/json"})
    assert answer.status == 200, answer.body
    expected = json.loads(body)
    held = answer.json
    assert held == expected or {key: held[key] for key in expected} == expected


async def test_so_are_wrappers_and_times(client: Client, recorder: Recorder) -> None:
    for body in ('"5"', "5"):
        assert (await client.post("/number", data=body, headers={"Content-Type": "application/json"})).status == 200
    assert (await client.get("/number/5")).json in {"5", 5}
    assert [request.value for _, request in recorder.calls] == [5, 5, 5]
    answer = await client.post("/time", json="2024-01-02T03:04:05Z")
    assert answer.json[:19] == "2024-01-02T03:04:05"


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        ("/list", "{}", "The body must be a list"),
        ("/number", '{"value":5}', "The body must be a whole number"),
        ("/time", "5", "The body must be a time"),
        ("/any", '{"a":1}', "The body must name a type"),
    ],
)
async def test_one_that_is_another_value_is_refused_in_words(client: Client, path: str, body: str, says: str) -> None:
    answer = await client.post(path, data=body, headers={"Content-Type": "application/json"})
    assert (answer.status, answer.json["details"]["fields"][0]["field"]) == (422, "")
    assert answer.json["message"].startswith(says)


async def test_an_empty_body_leaves_the_value_unset(client: Client, recorder: Recorder) -> None:
    assert (await client.post("/value")).json is None
    assert recorder.calls[0][1].WhichOneof("kind") is None


@pytest.mark.parametrize("rest", ["", ',"value":{}'])
async def test_an_empty_in_an_any_may_be_written_as_go_does(client: Client, recorder: Recorder, rest: str) -> None:
    url = "type.googleapis.com/google.protobuf.Empty"
    body = f'{{"@type":"{url}"{rest}}}'
    answer = await client.post("/any", data=body, headers={"Content-Type": "application/json"})
    assert (answer.status, answer.json) == (200, {"@type": url})
    assert recorder.calls[0][1].value == b""


async def test_a_stream_whose_response_body_is_bytes_is_those_bytes(client: Client, recorder: Recorder) -> None:
    body = made("google.api.HttpBody", content_type="text/csv", data=b"a,")
    recorder.answers["Chunks"] = [made("shapes.v1.Chunk", body=body), made("shapes.v1.Chunk", note="none")]
    answer = await client.get("/chunks")
    assert (answer.headers["Content-Type"], answer.body) == ("text/csv", b"a,")


async def test_a_message_that_can_not_be_read_never_passes_for_the_end_or_for_an_answer() -> None:
    """grpc.aio has None for it."""

    async def pieces(_: Any, __: Any) -> AsyncIterator[bytes]:
        yield made("google.api.HttpBody", data=b"whole").SerializeToString()
        yield b"\x12\x22"

    async def answer(_: Any, __: Any) -> bytes:
        return b"\x0a\x22"

    handlers: dict[str, Any] = {
        "Pieces": grpc.unary_stream_rpc_method_handler(pieces),
        "Rest": grpc.unary_unary_rpc_method_handler(answer),
    }
    generic = grpc.method_handlers_generic_handler(service().full_name, handlers)
    async with (
        channels.reached([generic], "socket") as channel,
        transcoded(service(), channel, dialect=Dialect.PROTOJSON) as client,
    ):
        with pytest.raises(aiohttp.ClientPayloadError):
            await client.get("/pieces")
        refused = await client.post("/anything", json={})
    assert (refused.status, refused.json["error_code"]) == (500, "E_INTERNAL")


async def test_streams_of_requests_are_answered_for_and_keep_nothing_else_from_being_served(
    client: Client, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    for method, path, name in (
        ("POST", "/collect", "Collect"),
        ("PUT", "/collected", "Collect"),
        ("POST", "/chats/x", "Chat"),
    ):
        answer = await client.ask(method, path, data=b"any thing")
        assert (answer.status, answer.json["error_code"]) == (501, "E_UNIMPLEMENTED")
        says = rf"shapes\.v1\.Shapes\.{name} takes a stream of requests, .*: call it by gRPC"
        assert re.fullmatch(says, answer.json["message"])
    assert recorder.calls == []
    assert (await client.post("/collected", json={})).status == 200
    assert [(name, request.name) for name, request in recorder.calls] == [("Rest", "collected")]
    transcode([service()], Mock())
    (told,) = [record.getMessage() for record in caplog.records if record.name == "jobledger_gateway.unserved"]
    assert "shapes.v1.Shapes.Collect, shapes.v1.Shapes.Chat" in told


def test_jobledger_itself_never_starts_with_a_stream_of_requests() -> None:
    own = services_in(_own(), name="own")
    with pytest.raises(RuleError, match=r"jobledger\.v1\.S\.A: POST /x: a stream of requests"):
        list(routes_of(own, Mock(), StreamSettings(), asyncio.Event()))


def _own() -> bytes:
    text = (
        'syntax = "proto3"; package jobledger.v1; import "google/api/annotations.proto"; message M {} service S { '
        'rpc A(stream M) returns (M) { option (google.api.http) = {post: "/x" body: "*"}; } }'
    )
    with TemporaryDirectory() as directory:
        (Path(directory) / "own.proto").write_text(text)
        return compile_protos(Path(directory) / "set", Path(directory) / "own.proto").read_bytes()


async def test_the_document_says_what_is_served(client: Client) -> None:
    openapi = (await client.get("/v1/openapi.json")).json
    assert [error.message for error in OpenAPIV31SpecValidator(openapi).iter_errors()] == []
    paths = openapi["paths"]
    assert not paths.keys() & {"/collect", "/collected", "/chats/{name}"}
    assert _body(paths["/list"]) == {"type": "array", "items": {}}
    assert _body(paths["/struct"])["type"] == "object"
    assert list(paths["/chunks"]["get"]["responses"]["200"]["content"]) == ["*/*"]
    # A dot in a name is a part of an object to many programs, and the field must stay in the body.
    put = paths["/shelves/{book_name_1}/books/{book_name_2}"]["put"]
    assert put["deprecated"] is True
    assert "book" in put["requestBody"]["content"]["application/json"]["schema"]["properties"]
    assert "null" in put["responses"]["200"]["content"]["application/json"]["schema"]["type"]
    # Null is no object: it is refused.
    assert _body(paths["/book"]) == {"$ref": "#/components/schemas/shapes.v1.Book.Input"}
    cover = re.compile(openapi["components"]["schemas"]["shapes.v1.Book.Input"]["properties"]["cover"]["pattern"])
    assert all(map(cover.search, ("", "AA", "AAE=", "-_8", "AAAA")))
    assert not any(map(cover.search, ("A", "AAAAA", "é", "A A=")))


def _body(path: Any) -> Any:
    return path["post"]["requestBody"]["content"]["application/json"]["schema"]
