"""Vectors: requests in data files, with the call that they become and the answer that they get.

Each line of `vectors/*.jsonl` is one, under an `id` of its own. It is run in both dialects, unless `dialect` names the
one that it is of, and with the service within the process as well as on a socket. Bytes are written as Latin-1.

What is asked:
    ask         method and target, as the first line has them
    headers     by name: a text, a list of them for several of that name, null for none
    body        the body
    coded       `gzip` or `deflate`: the body is sent so, and a header says it
    replace     by a mark in the target, the headers or the body: what stands for it, and how many times
What the service does:
    sends       initial metadata, as pairs
    answer      its message, in canonical ProtoJSON; of a stream a list of them
    fails       number of the status with which it ends instead (of a stream: after its messages), with its `message`,
                and `details`: of each the type, and its JSON or its bytes in base64
What the service gets:
    call        the method; where there is none, nothing gets as far as that
    request     the message, in canonical ProtoJSON
    passes      all metadata by name, without what is gRPC's own and the gateway's
    peer        address of the client
    seconds     that it has for the call, a second more or two less; null for as long as it likes
What the client gets:
    status      of the answer; 200 where it isn't said
    code, field, says   error_code, the first field of details, and what the message holds
    json, text  the body as JSON, or as it stands
    holds       members of the JSON
    empty       that there is no body
    allow, has, without     the header Allow, headers by name, names of headers that there are not

`anchors` names those of grpc-gateway (gw; gwR in its mode that keeps reserved characters), Envoy (env) and Vanguard
(van) that answer otherwise: why ours does is in `deviations.jsonl`.
"""

import base64
import gzip
import json
import zlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from gateway.client import Answer, Client, parse
from gateway.foreign import VECTORS, Failure, Recorder, message_class, reached, transcoded, vectors_service
from google.protobuf import json_format
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2
from jobledger_gateway.metadata import PEER
from jobledger_gateway.streaming import StreamSettings
from jobledger_gateway.transcoder import Dialect

FILES = ("path", "query", "body", "errors", "metadata", "streams")
ANCHORS = {"gw", "gwR", "env", "van"}
ASKS = {"id", "dialect", "anchors", "ask", "headers", "body", "coded", "replace"}
SCRIPTS = {"sends", "answer", "fails", "message", "details"}
GETS = {"call", "request", "passes", "peer", "seconds"}
TOLD = {"status", "code", "field", "says", "json", "text", "holds", "empty", "allow", "has", "without"}
KINDS = ("in process", "socket")
CODINGS: Mapping[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "deflate": zlib.compress}
STREAMS = StreamSettings()


def lines(name: str) -> Iterator[dict[str, Any]]:
    for line in (VECTORS / f"{name}.jsonl").read_text().splitlines():
        yield json.loads(line)


@asynccontextmanager
async def answering(
    recorder: Recorder, kind: str, dialect: Dialect, streams: StreamSettings = STREAMS
) -> AsyncIterator[Client]:
    async with (
        reached(recorder, kind) as channel,
        transcoded(
            recorder.service,
            channel,
            dialect=dialect,
            request_headers=("x-tenant", "x-trace-bin"),
            response_headers=("x-cost", "x-signature-bin"),
            streams=streams,
        ) as client,
    ):
        yield client


@pytest.mark.parametrize("dialect", list(Dialect))
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("file", FILES)
async def test_every_vector_is_answered_as_it_says(file: str, kind: str, dialect: Dialect) -> None:
    recorder, wrong = Recorder(vectors_service()), {}
    async with answering(recorder, kind, dialect) as client:
        for vector in lines(file):
            if vector.get("dialect", dialect) == dialect:
                told = await run(client, recorder, vector)
                if told:
                    wrong[vector["id"]] = told
    assert wrong == {}


async def run(client: Client, recorder: Recorder, vector: dict[str, Any]) -> list[str]:
    """What is wrong with the answer to a vector."""
    prepare(recorder, vector)
    answer = await client.raw(request_bytes(vector))
    return [*of_call(recorder, vector), *of_answer(answer, vector)]


def prepare(recorder: Recorder, vector: dict[str, Any]) -> None:
    """Has the service do what the vector says."""
    recorder.forget()
    sends = vector.get("sends", ())
    recorder.initial_metadata = [
        (name, value.encode("latin-1") if name.endswith("-bin") else value) for name, value in sends
    ]
    if "call" not in vector:
        return
    method = vectors_service().methods_by_name[vector["call"]]
    answers = vector.get("answer", [] if method.server_streaming else {})
    messages = [message_of(method.output_type, it) for it in (answers if method.server_streaming else [answers])]
    details = [detail(*it) for it in vector.get("details", ())]
    failure = Failure(vector["fails"], vector.get("message", "text"), details) if "fails" in vector else None
    if method.server_streaming:
        recorder.answers[method.name] = [*messages, *([failure] if failure else [])]
    else:
        recorder.answers[method.name] = failure or messages[0]


def message_of(descriptor: Any, value: Any) -> Any:
    return json_format.ParseDict(value, GetMessageClass(descriptor)(), descriptor_pool=descriptor.file.pool)


def detail(name: str, value: Any) -> AnyMessage:
    """A detail of a status: of a type by its JSON, or of any by its bytes in base64."""
    url = f"type.googleapis.com/{name}"
    if isinstance(value, str):
        return AnyMessage(type_url=url, value=base64.b64decode(value))
    package, _, short = name.rpartition(".")
    is_standard = package == error_details_pb2.DESCRIPTOR.package
    kind = getattr(error_details_pb2, short) if is_standard else message_class(name)
    return AnyMessage(type_url=url, value=message_of(kind.DESCRIPTOR, value).SerializeToString())


def request_bytes(vector: dict[str, Any]) -> bytes:
    body = filled(vector, vector.get("body", "")).encode("latin-1")
    headers = {"Host": "localhost", "Connection": "close", "Content-Type": "application/json"}
    if "coded" in vector:
        headers["Content-Encoding"] = vector["coded"]
        body = CODINGS[vector["coded"]](body)
    headers.update(vector.get("headers", {}))
    if body or "body" in vector:
        headers["Content-Length"] = str(len(body))
    head = [f"{filled(vector, vector['ask'])} HTTP/1.1"]
    head += [f"{name}: {filled(vector, value)}" for name, values in headers.items() for value in listed(values)]
    return "\r\n".join([*head, "", ""]).encode("latin-1") + body


def listed(values: Any) -> Sequence[str]:
    return values if isinstance(values, list) else [] if values is None else [values]


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
        yield from of_metadata(recorder, vector)


def _canonical(message: Any) -> str:
    return json_format.MessageToJson(message, indent=None, descriptor_pool=message.DESCRIPTOR.file.pool)


def of_metadata(recorder: Recorder, vector: dict[str, Any]) -> Iterator[str]:
    passed: dict[str, list[str]] = {}
    for name, value in recorder.metadata[0]:
        if name not in {PEER, "user-agent"}:
            passed.setdefault(name, []).append(value.decode("latin-1") if isinstance(value, bytes) else value)
    if "passes" in vector and passed != {name: listed(values) for name, values in vector["passes"].items()}:
        yield f"passes {passed}"
    if "peer" in vector and recorder.peers != [vector["peer"]]:
        yield f"peer {recorder.peers}"
    (left,), wanted = recorder.seconds, vector.get("seconds")
    is_wanted = left is wanted is None or (left and wanted and wanted - 2 < left <= wanted + 1)
    if "seconds" in vector and not is_wanted:
        yield f"seconds {left}"


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
    yield from of_headers(answer.headers, vector)


def of_content(answer: Answer, vector: dict[str, Any]) -> Iterator[str]:
    if "json" in vector and answer.json != vector["json"]:
        yield f"json {answer.body!r}"
    if "text" in vector and answer.body.decode() != vector["text"]:
        yield f"text {answer.body.decode()!r}"
    held = {name: answer.json.get(name) for name in vector.get("holds", {})}
    if held != vector.get("holds", {}):
        yield f"holds {held}"
    if "empty" in vector and answer.body:
        yield f"body {answer.body!r}"
    if "allow" in vector and answer.headers.get("Allow") != vector["allow"]:
        yield f"allow {answer.headers.get('Allow')}"


def of_headers(headers: Any, vector: dict[str, Any]) -> Iterator[str]:
    for name, value in vector.get("has", {}).items():
        if headers.get(name) != value:
            yield f"{name}: {headers.get(name)}"
    for name in vector.get("without", ()):
        if name in headers:
            yield f"{name}: {headers[name]}"


def test_every_vector_has_only_words_that_mean_something() -> None:
    """One that is misspelt would demand nothing."""
    for file in FILES:
        for vector in lines(file):
            assert set(vector) <= ASKS | SCRIPTS | GETS | TOLD, vector["id"]


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
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert parse(b"HTTP/1.1 200 OK\r\nA: b\r\n\r\nbody").body == b"body"
    assert parse(head + b"3\r\nabc\r\na\r\n0123456789\r\n0\r\n\r\n").body == b"abc0123456789"
    for cut in (b"3\r\nabc\r\n", b"3\r\nab", b""):
        with pytest.raises(ValueError, match="int"):
            parse(head + cut)
