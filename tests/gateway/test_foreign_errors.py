"""Errors that are too many, too large or too deep, and what a service's conditions and metadata come to."""

import gzip
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import grpc
import pytest
from gateway.client import Client
from gateway.foreign import Failure, Recorder, listening, message_class, reached, transcoded
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.error_details_pb2 import ErrorInfo
from jobledger_gateway.enums import MOST_NAMES, some_of
from jobledger_gateway.errors import MOST_TOLD
from jobledger_gateway.transcoder import CHANNEL_OPTIONS
from jobledger_gateway.violations import MOST_PATH, below

Job: Any = message_class("vectors.v1.Job")
Body: Any = message_class("google.api.HttpBody")
SECRET = "x-secret-key"
LIBRARY: Sequence[tuple[str, int]] = (("grpc.max_metadata_size", 4096), ("grpc.absolute_max_metadata_size", 4096))


def serving(recorder: Recorder, channel: Any) -> AbstractAsyncContextManager[Client]:
    return transcoded(recorder.service, channel, request_headers=("x-one", "x-two", "x-three"))


@pytest.fixture
async def client(recorder: Recorder) -> AsyncIterator[Client]:
    async with reached(recorder, "in process") as channel, serving(recorder, channel) as opened:
        yield opened


@asynccontextmanager
async def over_a_socket(recorder: Recorder, options: Sequence[tuple[str, int]]) -> AsyncIterator[Client]:
    async with (
        listening(recorder) as target,
        grpc.aio.insecure_channel(target, options) as channel,
        serving(recorder, channel) as client,
    ):
        yield client


MANY: dict[str, tuple[str, bytes, bytes]] = {
    "texts": ("/v1/jobs", b'{"tags":[%s]}', b"1"),
    "names of an enum": ("/v1/jobs", b'{"states":[%s]}', b"9"),
    "objects": ("/v1/jobs", b'{"inners":[%s]}', b"1"),
    "values of a map": ("/v1/jobs", b'{"by_number":{"1":{"b":[%s]}}}', b"1"),
    "messages of any type": ("/v1/jobs", b'{"anys":[%s]}', b"1"),
    "members of a field": ("/v1/tags/x", b"[%s]", b"1"),
}


@pytest.mark.parametrize("name", MANY)
async def test_a_small_body_with_half_a_million_faults_gets_a_small_answer(client: Client, name: str) -> None:
    path, form, fault = MANY[name]
    body = gzip.compress(form % b",".join([fault] * 500_000), 1)
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    answer = await client.post(path, data=body, headers=headers)
    assert (answer.status, answer.json["error_code"]) == (422, "E_VALIDATION")
    assert len(answer.body) < 16 * 1024
    told = len(answer.json["details"]["fields"])
    assert told == (1 if name == "values of a map" else MOST_TOLD)
    assert ("only the first 64 faults are told" in answer.json["message"]) == (told == MOST_TOLD)


@pytest.mark.parametrize(
    "form", ['{"%s": 1}', '{"labels": {"%s": [1]}}', '{"any": {"@type": "a/%s"}}', '{"mask": "%s."}']
)
async def test_a_long_name_is_not_told_in_full(client: Client, form: str) -> None:
    answer = await client.post("/v1/jobs", data=form % ("n" * 1_000_000), headers={"Content-Type": "application/json"})
    assert answer.status == 422
    assert len(answer.body) < 4096


def test_the_path_of_what_lies_below_a_long_name_is_short() -> None:
    """Each item of a list has one, and copies of half a megabyte for each are minutes of work."""
    path = ""
    for name in ("n" * 500_000, "m" * 200, "o"):
        path = below(path, name)
    assert path == "n" * MOST_PATH + "..."


async def test_a_mask_of_many_unknown_fields_tells_of_some(client: Client) -> None:
    mask = ",".join(f"no{number}" for number in range(1000))
    answer = await client.ask("PATCH", f"/v1/updates/x?update_mask={mask}", json={"display_name": "x"})
    assert (answer.status, len(answer.json["details"]["fields"])) == (422, MOST_TOLD)


def test_of_many_names_some_are_told() -> None:
    assert some_of(["a", "b"]) == "a, b"
    assert some_of([str(number) for number in range(MOST_NAMES + 3)]).endswith(", 31, and 3 more")


def packed(message: Any) -> AnyMessage:
    found = AnyMessage()
    found.Pack(message)
    return found


async def test_a_detail_too_deep_for_json_is_told_as_bytes(client: Client, recorder: Recorder) -> None:
    deep = packed(Job(id="x"))
    for _ in range(300):
        deep = packed(deep)
    recorder.answers["Get"] = Failure(5, "gone", [deep, packed(Job(id="y"))])
    answer = await client.get("/v1/jobs/x")
    assert (answer.status, answer.json["message"]) == (404, "gone")
    first, second = answer.json["details"]["others"]
    assert set(first) == {"@type", "value"}
    assert second["id"] == "y"


async def test_a_fault_that_a_service_names_leaves_its_text_in_the_log(
    client: Client, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    for code in (2, 13):
        recorder.answers["Get"] = Failure(code, "secret stack", [packed(ErrorInfo(reason="NOT_FOUND", domain="acme"))])
        answer = await client.get("/v1/jobs/x")
        assert (answer.status, answer.json["error_code"]) == (500, "E_NOT_FOUND")
        assert b"secret" not in answer.body
        assert "secret stack" in caplog.text
        assert answer.json["details"]["reference"] in caplog.text
        caplog.clear()


@pytest.mark.parametrize("headers", [{"If-None-Match": '"v1"'}, {"If-None-Match": "*"}, {"If-Match": '"other"'}])
async def test_conditions_are_not_held_against_what_a_change_answers(
    client: Client, recorder: Recorder, headers: dict[str, str]
) -> None:
    """It has happened: 304 or 412 would say that it has not."""
    recorder.initial_metadata = (("etag", '"v1"'),)
    recorder.answers["Upload"] = Body(data=b"done")
    answer = await client.post("/v1/uploads/x", data=b"x", headers=headers)
    assert (answer.status, answer.body, answer.headers["ETag"]) == (200, b"done", '"v1"')
    recorder.answers["Page"] = message_class("vectors.v1.UploadRequest")(file=Body(data=b"page"))
    assert (await client.get("/v1/pages/x", headers=headers)).status in {304, 412}


async def test_errors_with_many_details_come_through_the_gateway_of_the_command(recorder: Recorder) -> None:
    details = [packed(Job(id="x" * 1000)) for _ in range(40)]
    async with over_a_socket(recorder, CHANNEL_OPTIONS) as client:
        recorder.answers["Get"] = Failure(5, "gone", details)
        for _ in range(3):
            answer = await client.get("/v1/jobs/x")
            assert (answer.status, len(answer.json["details"]["others"])) == (404, 40)


@pytest.mark.parametrize("size", [3000, 20_000])
async def test_an_answer_with_too_much_metadata_is_no_quota(recorder: Recorder, size: int) -> None:
    """Of a program whose channel takes less. gRPC's text would list the keys."""
    async with over_a_socket(recorder, LIBRARY) as client:
        recorder.initial_metadata = ((SECRET, "x" * size), ("x-more", "y" * 3000))
        for path in ("/v1/jobs/x", "/v1/watch/x", "/v1/downloads/x"):
            recorder.answers["Watch"] = [Job()]
            answer = await client.get(path)
            assert b"E_INTERNAL" in answer.body
            assert answer.status == 500
            assert b"metadata size" not in answer.body
            assert SECRET.encode() not in answer.body


async def test_a_request_with_more_metadata_than_the_service_takes_is_431(recorder: Recorder) -> None:
    async with over_a_socket(recorder, CHANNEL_OPTIONS) as client:
        headers = dict.fromkeys(("X-One", "X-Two", "X-Three"), "x" * 7000)
        answer = await client.get("/v1/jobs/x", headers=headers)
        assert (answer.status, answer.json["error_code"]) == (431, "E_HEADERS_TOO_LARGE")
        assert b"x-one" not in answer.body
