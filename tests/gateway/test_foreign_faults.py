"""What a service of somebody else's may do, and what its clients are told then."""

import asyncio
import json
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import grpc
import pytest
from gateway.client import Client, eventually
from gateway.foreign import (
    Failure,
    Recorder,
    compile_protos,
    listening,
    message_class,
    reached,
    transcoded,
)
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message_factory import GetMessageClass
from jobledger.v1.annotations_pb2 import StreamRule
from jobledger_gateway.descriptors import load_services
from jobledger_gateway.errors import GatewayError, problem
from jobledger_gateway.framing import Framings, StreamShape
from jobledger_gateway.streaming import StreamEndpoint, StreamSettings, _write_at_once
from jobledger_gateway.transcoder import CHANNEL_OPTIONS, Dialect

Job: Any = message_class("vectors.v1.Job")
Body: Any = message_class("google.api.HttpBody")
PAGE = Path(__file__).parents[2] / "gateway_http" / "README.md"
NDJSON = {"Accept": "application/x-ndjson"}
STREAMS = StreamSettings(ping_seconds=0.05, begin_seconds=0.2)


def serving(recorder: Recorder, channel: Any, dialect: Dialect = Dialect.PLAIN) -> AbstractAsyncContextManager[Client]:
    headers = ("x-cost", "set-cookie")
    return transcoded(recorder.service, channel, dialect=dialect, response_headers=headers, streams=STREAMS)


@pytest.fixture
async def client(recorder: Recorder) -> AsyncIterator[Client]:
    async with reached(recorder, "socket") as channel, serving(recorder, channel) as opened:
        yield opened


@pytest.mark.parametrize(("method", "path", "rpc"), [("GET", "/v1/jobs/x", "Get"), ("POST", "/v1/jobs", "Create")])
async def test_one_tag_of_two_answers_gives_nobody_the_answer_of_another(
    client: Client, recorder: Recorder, method: str, path: str, rpc: str
) -> None:
    """The tag of such a service may count versions, of whatever a path or a caller means."""
    recorder.initial_metadata = (("etag", '"v1"'),)
    more: dict[str, Any] = {} if method == "GET" else {"json": {}}
    for caller in ("alice", "bob", "alice"):
        recorder.answers[rpc] = Job(id=caller)
        answer = await client.ask(method, path, token=f"Bearer {caller}", **more)
        assert (answer.json["id"], answer.headers["ETag"]) == (caller, '"v1"')


@pytest.mark.parametrize(("sent", "told"), [("abc", '"abc"'), ('W/"a"', 'W/"a"'), ('a"b', None), ("a b", None)])
async def test_a_tag_is_quoted_where_the_service_did_not(
    client: Client, recorder: Recorder, sent: str, told: str | None
) -> None:
    recorder.initial_metadata = (("etag", sent),)
    assert (await client.get("/v1/jobs/x")).headers.get("ETag") == told


async def test_all_values_of_passed_metadata_become_headers(client: Client, recorder: Recorder) -> None:
    recorder.initial_metadata = (("x-cost", "1"), ("set-cookie", "a=b"), ("x-cost", "2"), ("set-cookie", "c=d"))
    recorder.answers["Echo"] = Body(data=b"x")
    for answer in (await client.get("/v1/jobs/x"), await client.post("/v1/echo", data=b"x")):
        assert answer.headers.getall("X-Cost") == ["1", "2"]
        assert answer.headers.getall("Set-Cookie") == ["a=b", "c=d"]


async def test_a_refusal_after_silence_is_told_in_the_stream(client: Client, recorder: Recorder) -> None:
    async def refused() -> AsyncIterator[Any]:
        await say.wait()
        if say.is_set():
            raise LookupError
        yield

    say = asyncio.Event()
    recorder.answers["Watch"] = refused()
    async with asyncio.timeout(10), client.session.get(client.base + "/v1/watch/x", headers=NDJSON) as response:
        say.set()
        *_, last = (await response.read()).splitlines()
    assert json.loads(last)["error"]["error_code"] == "E_INTERNAL"


@pytest.mark.parametrize("dialect", list(Dialect))
@pytest.mark.parametrize("kind", ["socket", "in process"])
async def test_what_can_not_be_encoded_ends_a_stream_with_an_error(
    recorder: Recorder, dialect: Dialect, kind: str
) -> None:
    bad = Job(id="bad")
    bad.created_at.seconds = 10**15
    async with reached(recorder, kind) as channel, serving(recorder, channel, dialect) as client:
        for headers in ({}, NDJSON):
            recorder.answers["Watch"] = [Job(id="good"), bad, Job(id="after")]
            body = (await client.get("/v1/watch/x", headers=headers)).body
            assert b"good" in body
            assert b"after" not in body
            assert b"E_INTERNAL" in body.splitlines()[-1 if headers else -2]


@pytest.mark.parametrize("fault", [RuntimeError("a fault"), GatewayError(problem("BAD_REQUEST"))])
async def test_a_fault_after_an_answer_has_begun_breaks_it_and_adds_no_other(
    client: Client, recorder: Recorder, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    """Nothing but the head has been said then, and that may still be on its way."""

    async def fail(*_: object) -> None:
        raise fault

    monkeypatch.setattr(StreamEndpoint, "_send", fail)
    reader, writer = await asyncio.open_connection(client.host, client.port)
    writer.write(b"GET /v1/watch/x HTTP/1.1\r\nHost: localhost\r\n\r\n")
    received = b""
    with suppress(ConnectionResetError):
        received = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    assert b"E_INTERNAL" not in received
    assert b"E_BAD_REQUEST" not in received
    assert b"0\r\n\r\n" not in received
    assert received.count(b"HTTP/1.1 ") <= 1


def test_a_burst_that_can_not_be_encoded_is_left_to_its_writer() -> None:
    """Else the fault would strike who sends it to everybody."""
    bad = Job()
    bad.created_at.seconds = 10**15
    framing = Framings(StreamShape(bad.DESCRIPTOR, StreamRule())).asked_for("")
    request, response = Mock(), Mock()
    assert not _write_at_once(request, response, framing, [bad])
    assert request.mock_calls + response.mock_calls == []


async def test_a_detail_that_can_not_be_encoded_spoils_no_error(client: Client, recorder: Recorder) -> None:
    bad, packed = Job(), AnyMessage()
    bad.created_at.seconds = 10**15
    packed.Pack(bad)
    recorder.answers["Get"] = Failure(5, "gone", [packed])
    answer = await client.get("/v1/jobs/x")
    assert (answer.status, answer.json["message"]) == (404, "gone")
    recorder.answers["Watch"] = [Job(), Failure(5, "gone", [packed])]
    assert b'"gone"' in (await client.get("/v1/watch/x", headers=NDJSON)).body.splitlines()[-1]


@pytest.mark.parametrize(
    ("code", "sent", "status", "told"),
    [
        (14, "back at nine", 503, "back at nine"),
        (14, "", 503, "The gateway can't reach the server"),
        (14, "failed to connect to all addresses; last error: ipv4:10.0.0.1:1", 503, "The gateway can't reach"),
        (14, "Stream removed (Socket closed)", 503, "The gateway can't reach"),
        (14, "Connection reset by peer", 503, "The gateway can't reach"),
        (14, "the payment channel is busy", 503, "the payment channel is busy"),
        (8, "grpc: received message larger than max (9 vs. 8)", 413, "The request is too large"),
        (8, "trying to send message larger than max (9 vs. 8)", 500, "The answer is larger"),
        (8, "SERVER: Received message larger than max (9 vs. 8)", 413, "The request is too large"),
        (8, "SERVER: Sent message larger than max (9 vs. 8)", 500, "The answer is larger"),
        (8, "a month's quota", 429, "a month's quota"),
    ],
)
async def test_errors_are_told_as_what_they_are(
    client: Client, recorder: Recorder, code: int, sent: str, status: int, told: str
) -> None:
    recorder.answers["Get"] = Failure(code, sent)
    answer = await client.get("/v1/jobs/x")
    assert (answer.status, answer.json["message"][: len(told)]) == (status, told)
    assert "10.0.0.1" not in answer.json["message"]


async def test_an_answer_over_the_limit_of_the_channel_is_no_fault_of_the_request(
    client: Client, recorder: Recorder
) -> None:
    recorder.answers["Get"] = Job(id="x" * 5 * 1024 * 1024)
    answer = await client.get("/v1/jobs/x")
    assert (answer.status, answer.json["error_code"]) == (500, "E_INTERNAL")
    assert answer.json["message"].startswith("The answer is larger than the gateway takes")


async def test_credentials_that_can_not_be_passed_on_are_not_held_to_our_form(client: Client) -> None:
    answer = await client.line(b"GET /v1/jobs/x HTTP/1.1", b"Authorization: Basic \xe9", token=False)
    assert (answer.status, answer.json["error_code"]) == (401, "E_AUTH_MALFORMED")
    assert answer.json["message"].startswith("The header Authorization ")


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
async def test_content_that_breaks_off_never_passes_for_the_whole(
    client: Client, recorder: Recorder, version: bytes
) -> None:
    """Before HTTP/1.1 the end of a connection is the end of an answer, unless it is reset."""
    recorder.answers["Download"] = [Body(data=b"a part"), Failure(15, "lost")]
    reader, writer = await asyncio.open_connection(client.host, client.port)
    writer.write(b"GET /v1/downloads/x HTTP/%s\r\nHost: 127.0.0.1\r\n\r\n" % version)
    received = b""
    try:
        async with asyncio.timeout(10):
            while piece := await reader.read(1000):
                received += piece
    except ConnectionResetError:
        assert version == b"1.0"
    else:
        assert version == b"1.1"
        assert not received.endswith(b"0\r\n\r\n")
    finally:
        writer.close()


async def test_a_server_that_comes_back_is_reached_soon(recorder: Recorder) -> None:
    """gRPC's own pauses grow to two minutes: its sixth attempt comes after a quarter of a minute."""
    attempts: list[Any] = []

    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        attempts.append(writer)
        writer.close()

    outage = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    port = outage.sockets[0].getsockname()[1]
    target = f"127.0.0.1:{port}"
    async with grpc.aio.insecure_channel(target, CHANNEL_OPTIONS) as channel, serving(recorder, channel) as client:
        async with outage:
            assert (await client.get("/v1/jobs/x")).status == 503
            await eventually(lambda: len(attempts) >= 6, within=8)
        async with listening(recorder, at=port), asyncio.timeout(8):
            await channel.channel_ready()
            assert (await client.get("/v1/jobs/x")).status == 200


async def test_the_events_of_the_page_have_names_and_numbers_and_are_resumed(tmp_path: Path) -> None:
    (example,) = re.findall(r"```proto\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    (tmp_path / "jobledger/v1").mkdir(parents=True)
    shutil.copy(PAGE.parents[1] / "protos/jobledger/v1/annotations.proto", tmp_path / "jobledger/v1")
    (tmp_path / "feed.proto").write_text(example)
    (service,) = load_services(compile_protos(tmp_path / "set", tmp_path / "feed.proto"))
    recorder = Recorder(service)
    change = GetMessageClass(service.methods_by_name["Watch"].output_type)
    recorder.answers["Watch"] = [change(number=8, kind="renamed")]
    async with reached(recorder, "socket") as channel, serving(recorder, channel) as client:
        body = (await client.get("/v1/changes", headers={"Last-Event-ID": "7"})).body
        assert b'id: 7\n\nevent: renamed\nid: 8\ndata: {"number":8,"kind":"renamed"}\n' in body
        assert recorder.calls[0][1].after == 7
        assert (await client.get("/v1/changes", headers={"Last-Event-ID": "x"})).status == 400
