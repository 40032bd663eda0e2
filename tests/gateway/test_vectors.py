"""Vectors: requests in data files, with the call that they become or the error that they get.

Each line of `vectors/*.jsonl` is a request: `ask`, `headers`, `body` (bytes as Latin-1). What comes of it is `call` and
`request` (the message, in canonical ProtoJSON), or `status`, `code`, `field` and what the message `says`. `answer` or
`fails` scripts the service; `json`, `holds`, `empty`, `has` and `without` are held against what the client gets.
`anchors` names those of grpc-gateway (gw; gwR in its mode that keeps reserved characters), Envoy (env) and Vanguard
(van) that answer otherwise: why ours does is in `deviations.jsonl`.
"""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from gateway.client import Answer, Client, parse
from gateway.foreign import VECTORS, Failure, Recorder, reached, vectors_service
from google.protobuf import json_format
from google.protobuf.message_factory import GetMessageClass
from jobledger_gateway.transcoder import Dialect, TranscoderOptions, serve, transcode

FILES = ("path", "query", "body", "errors")
ANCHORS = {"gw", "gwR", "env", "van"}


def lines(name: str) -> Iterator[dict[str, Any]]:
    for line in (VECTORS / f"{name}.jsonl").read_text().splitlines():
        yield json.loads(line)


@asynccontextmanager
async def transcoded(recorder: Recorder, kind: str, dialect: Dialect) -> AsyncIterator[Client]:
    options = TranscoderOptions(dialect=dialect, request_headers=("x-trace-bin",))
    async with (
        reached(recorder, kind) as channel,
        serve(transcode([recorder.service], channel, options=options), host="127.0.0.1", port=0) as at,
        aiohttp.ClientSession() as session,
    ):
        yield Client(session, at.host, at.port)


@pytest.mark.parametrize("dialect", list(Dialect))
@pytest.mark.parametrize("kind", ["in process", "socket"])
@pytest.mark.parametrize("file", FILES)
async def test_every_vector_is_answered_as_it_says(file: str, kind: str, dialect: Dialect) -> None:
    recorder, wrong = Recorder(vectors_service()), {}
    async with transcoded(recorder, kind, dialect) as client:
        for vector in lines(file):
            if vector.get("dialect", dialect) == dialect:
                told = await run(client, recorder, vector)
                if told:
                    wrong[vector["id"]] = told
    assert wrong == {}


async def run(client: Client, recorder: Recorder, vector: dict[str, Any]) -> list[str]:
    """What is wrong with the answer to a vector."""
    recorder.calls.clear()
    recorder.answers = script(vector)
    answer = await client.raw(request_bytes(vector))
    return [*of_call(recorder, vector), *of_answer(answer, vector)]


def script(vector: dict[str, Any]) -> dict[str, Any]:
    if "fails" in vector:
        return {vector["call"]: Failure(vector["fails"], vector.get("message", "text"))}
    if "answer" not in vector:
        return {}
    return {vector["call"]: message_of(vectors_service().methods_by_name[vector["call"]].output_type, vector["answer"])}


def message_of(descriptor: Any, value: Any) -> Any:
    return json_format.ParseDict(value, GetMessageClass(descriptor)(), descriptor_pool=descriptor.file.pool)


def request_bytes(vector: dict[str, Any]) -> bytes:
    body = filled(vector, vector.get("body", "")).encode("latin-1")
    headers = {
        "Host": "localhost",
        "Connection": "close",
        "Content-Type": "application/json",
        **vector.get("headers", {}),
    }
    if body or "body" in vector:
        headers["Content-Length"] = str(len(body))
    head = [f"{filled(vector, vector['ask'])} HTTP/1.1"]
    head += [f"{name}: {filled(vector, value)}" for name, value in headers.items() if value is not None]
    return "\r\n".join([*head, "", ""]).encode("latin-1") + body


def filled(vector: dict[str, Any], text: str) -> str:
    for mark, (piece, times) in vector.get("replace", {}).items():
        text = text.replace(mark, piece * times)
    return text


def of_call(recorder: Recorder, vector: dict[str, Any]) -> Iterator[str]:
    names = [name for name, _ in recorder.calls]
    if names != ([vector["call"]] if "call" in vector else []):
        yield f"called {names}"
    elif names:
        (_, request), descriptor = recorder.calls[0], recorder.service.methods_by_name[names[0]].input_type
        wanted = message_of(descriptor, vector["request"])
        # The bytes within an Any may have their fields in another order.
        if str(request) != str(wanted) and _canonical(request) != _canonical(wanted):
            yield f"with {_canonical(request)}"


def _canonical(message: Any) -> str:
    return json_format.MessageToJson(message, indent=None, descriptor_pool=message.DESCRIPTOR.file.pool)


def of_answer(answer: Answer, vector: dict[str, Any]) -> Iterator[str]:
    if answer.status != vector.get("status", 200):
        yield f"status {answer.status}: {answer.body[:200]!r}"
        return
    if "code" in vector and answer.json["error_code"] != vector["code"]:
        yield f"code {answer.json['error_code']}"
    if "field" in vector and answer.json["details"]["fields"][0]["field"] != vector["field"]:
        yield f"fields {answer.json['details']['fields']}"
    if vector.get("says", "") not in (answer.json["message"] if "says" in vector else ""):
        yield f"says {answer.json['message']}"
    if "status" in vector and vector["status"] >= 400 and set(answer.json) != {"error_code", "message", "details"}:
        yield f"error of another shape: {answer.body!r}"
    yield from of_content(answer, vector)


def of_content(answer: Answer, vector: dict[str, Any]) -> Iterator[str]:
    if "json" in vector and answer.json != vector["json"]:
        yield f"json {answer.body!r}"
    held = {name: answer.json.get(name) for name in vector.get("holds", {})}
    if held != vector.get("holds", {}):
        yield f"holds {held}"
    if "empty" in vector and answer.body:
        yield f"body {answer.body!r}"
    if "allow" in vector and answer.headers.get("Allow") != vector["allow"]:
        yield f"allow {answer.headers.get('Allow')}"
    for name, value in vector.get("has", {}).items():
        if answer.headers.get(name) != value:
            yield f"{name}: {answer.headers.get(name)}"
    for name in vector.get("without", ()):
        if name in answer.headers:
            yield f"{name}: {answer.headers[name]}"


def test_every_deviation_has_a_reason_and_every_reason_a_deviation() -> None:
    vectors = [vector for file in FILES for vector in lines(file)]
    differing = {vector["id"]: set(vector["anchors"].split()) for vector in vectors if "anchors" in vector}
    reasons = list(lines("deviations"))
    explained = [name for reason in reasons for name in reason["vectors"]]
    assert len({vector["id"] for vector in vectors}) == len(vectors), "an id is used twice"
    assert set().union(*differing.values()) <= ANCHORS
    assert sorted(explained) == sorted(differing)
    assert all(len(reason["reason"]) > 20 for reason in reasons)


def test_answers_on_a_socket_are_read_to_their_end() -> None:
    """The reader that the vectors rely on."""
    assert parse(b"HTTP/1.1 200 OK\r\nA: b\r\n\r\nbody").body == b"body"
