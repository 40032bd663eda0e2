"""What `jobledger.v1.http_response` may say of a method, by a table: anything else stops the start."""

import tempfile
from functools import cache
from pathlib import Path

import grpc
import pytest
from gateway.foreign import Recorder, compile_protos, reached, transcoded
from google.protobuf.descriptor import MethodDescriptor
from jobledger_gateway.descriptors import services_in
from jobledger_gateway.http_rule import RuleError, rules_of
from jobledger_gateway.response_rules import check_response
from jobledger_gateway.transcoder import transcode

HEAD = """
syntax = "proto3";
package bad.v1;
import "google/api/annotations.proto";
import "google/api/httpbody.proto";
import "google/protobuf/timestamp.proto";
import "jobledger/v1/annotations.proto";
enum Kind { KIND_UNSPECIFIED = 0; }
message Request {
  string text = 1; int32 short = 2; uint64 unsigned = 3; optional int64 long = 4; repeated int64 longs = 5;
  bool flag = 6; google.protobuf.Timestamp at = 7; uint32 short_unsigned = 8;
}
message Answer {
  string text = 1; int64 number = 2; repeated string texts = 3; double real = 4; Kind kind = 5; Answer inner = 6;
  repeated Answer inners = 7; optional uint64 optional_number = 8; google.api.HttpBody file = 9;
  repeated int64 longs = 10;
}
"""
RPC = """rpc %s(Request) returns (%s) {
  option (google.api.http) = {%s};
  option (jobledger.v1.http_response) = {%s};
}
"""
MESSAGES, BYTES, ONE = "stream Answer", "stream google.api.HttpBody", "Answer"
AT = 'get: "/v1/%d"'

BAD = [
    (MESSAGES, 'stream: {id_field: "text"}', "stream.id_field: 'bad.v1.Answer.text' is not a single integer"),
    (MESSAGES, 'stream: {id_field: "longs"}', "stream.id_field: 'bad.v1.Answer.longs' is not a single integer"),
    (MESSAGES, 'stream: {id_field: "real"}', "stream.id_field: 'bad.v1.Answer.real' is not a single integer"),
    (MESSAGES, 'stream: {id_field: "kind"}', "is not a single integer"),
    (MESSAGES, 'stream: {id_field: "inner.number"}', "stream.id_field: bad.v1.Answer has no field 'inner.number'"),
    (MESSAGES, 'stream: {item_field: "file" id_field: "number"}', "google.api.HttpBody has no field 'number'"),
    (MESSAGES, 'stream: {event_field: "kind"}', "stream.event_field: 'bad.v1.Answer.kind' is not a single string"),
    (MESSAGES, 'stream: {event_field: "number"}', "is not a single string"),
    (MESSAGES, 'stream: {event_field: "texts"}', "is not a single string"),
    (MESSAGES, 'stream: {resume_field: "text"}', "stream.resume_field: 'bad.v1.Request.text' is not a single integer"),
    (MESSAGES, 'stream: {id_field: "number" resume_field: "at"}', "'bad.v1.Request.at' is not a single integer"),
    (MESSAGES, 'stream: {resume_field: "longs"}', "is not a single integer"),
    (MESSAGES, 'stream: {resume_field: "flag"}', "is not a single integer"),
    (MESSAGES, 'stream: {batch_size_field: "text"}', "stream.batch_size_field: 'bad.v1.Request.text'"),
    (MESSAGES, 'stream: {bookmark_field: "inner.text"}', "stream.bookmark_field: 'bad.v1.Answer.text'"),
    (MESSAGES, 'stream: {bookmark_field: "inners.number"}', "stream.bookmark_field: 'inners' is not a single message"),
    (MESSAGES, 'stream: {bookmark_field: "number"}', "is not a field within a message of the item"),
    (MESSAGES, 'stream: {item_field: "text"}', "stream.item_field: 'bad.v1.Answer.text' is not a single message"),
    (MESSAGES, 'stream: {item_field: "inners"}', "stream.item_field: 'bad.v1.Answer.inners' is not a single message"),
    (MESSAGES, 'stream: {end_field: "number"}', "stream.end_field: 'bad.v1.Answer.number' is not a single message"),
    (MESSAGES, 'stream: {batch_field: "texts"}', "batch_field 'texts' is not a repeated bad.v1.Answer"),
    (MESSAGES, r'stream: {event_name: "a\nb"}', "stream.event_name: a name can't have line breaks or NUL"),
    (MESSAGES, r'stream: {error_event: "a\rb"}', "stream.error_event: a name"),
    (MESSAGES, r'stream: {start_metadata: "a\000b"}', "stream.start_metadata: a name"),
    (MESSAGES, 'stream: {resume_field: "long" resume_error: "NOPE"}', "stream.resume_error: there is no error 'NOPE'"),
    (MESSAGES, 'error: "NOPE"', "error: there is no error 'NOPE'"),
    (MESSAGES, "success_status: 201", "success_status: is for methods that answer with one message"),
    (MESSAGES, 'range: {offset_field: "long" length_field: "long"}', "range: is for methods that answer with a stream"),
    (BYTES, 'stream: {id_field: "data"}', "stream: is for methods that answer with a stream of messages"),
    (BYTES, 'range: {offset_field: "text" length_field: "long"}', "'bad.v1.Request.text' is not a single signed"),
    (BYTES, 'range: {offset_field: "unsigned" length_field: "long"}', "is not a single signed integer of 64 bits"),
    (BYTES, 'range: {offset_field: "short_unsigned" length_field: "long"}', "is not a single signed"),
    (BYTES, 'range: {offset_field: "long" length_field: "short"}', "is not a single integer of 64 bits"),
    (BYTES, 'range: {offset_field: "long"}', "range.length_field: names no field"),
    (BYTES, 'range: {length_field: "long"}', "range.offset_field: names no field"),
    (ONE, 'stream: {id_field: "nope"}', "stream: is for methods that answer with a stream of messages"),
    (ONE, 'range: {offset_field: "long" length_field: "long"}', "range: is for methods"),
    (ONE, "success_status: 999", "success_status: 999 is not from 200 to 299"),
    (ONE, "success_status: -5", "success_status: -5 is not from"),
    (ONE, "success_status: 302", "success_status: 302 is not from"),
    (ONE, "success_status: 204", "success_status: an answer of 204 has no body"),
]  # fmt: skip
GOOD = [
    (MESSAGES, AT, 'stream: {id_field: "number" event_field: "text" resume_field: "short_unsigned"}'),
    (MESSAGES, AT, 'stream: {item_field: "inner" id_field: "optional_number" end_field: "file"}'),
    (MESSAGES, AT, 'stream: {bookmark_field: "inner.number" batch_field: "inners" batch_size_field: "short"}'),
    (MESSAGES, AT + ' response_body: "file" additional_bindings {get: "/v1/all"}', 'stream: {id_field: "number"}'),
    (MESSAGES, AT + ' response_body: "file"', 'range: {offset_field: "long" length_field: "unsigned"}'),
    (ONE, AT, 'success_status: 201 etag: true error: "JOB_NOT_FOUND"'),
]


@cache
def methods() -> list[MethodDescriptor]:
    """Those of the bad rules, then those of the good ones: each a service, which can be served alone."""
    given = [*((answer, AT, rule) for answer, rule, _ in BAD), *GOOD]
    texts = []
    for number, (answer, binding, rule) in enumerate(given):
        rpc = RPC % ("Do", answer, binding % number if "%d" in binding else binding, rule)
        texts.append(f"service S{number} {{ {rpc} }}\n")
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "bad.proto"
        path.write_text(HEAD + "".join(texts))
        data = compile_protos(Path(directory) / "set", path).read_bytes()
    return [service.methods_by_name["Do"] for service in services_in(data, name="bad")]


@pytest.mark.parametrize("number", range(len(BAD)), ids=[rule for _, rule, _ in BAD])
async def test_what_can_not_be_served_stops_the_start_by_method_and_rule(number: int) -> None:
    async with grpc.aio.insecure_channel("unix:none") as channel:
        with pytest.raises(RuleError) as refused:
            transcode([methods()[number].containing_service], channel)
    assert BAD[number][2] in str(refused.value)
    assert str(refused.value).startswith(f"bad.v1.S{number}.Do: ")


@pytest.mark.parametrize("number", range(len(BAD), len(BAD) + len(GOOD)), ids=[rule for *_, rule in GOOD])
async def test_what_can_be_served_is(number: int) -> None:
    method = methods()[number]
    check_response(method, rules_of(method))
    async with grpc.aio.insecure_channel("unix:none") as channel:
        transcode([method.containing_service], channel)


async def test_a_number_that_the_field_can_not_hold_resumes_nothing() -> None:
    """By a field of 32 bits here: the stream must not begin, nor fail when it has."""
    recorder = Recorder(methods()[len(BAD)].containing_service)
    async with (
        reached(recorder, "in process") as channel,
        transcoded(recorder.service, channel) as client,
    ):
        answer = await client.get(f"/v1/{len(BAD)}", headers={"Last-Event-ID": str(2**32)})
        assert (answer.status, answer.json["error_code"]) == (400, "E_BAD_REQUEST")
        answer = await client.get(f"/v1/{len(BAD)}", headers={"Last-Event-ID": str(2**32 - 1)})
        assert b"id: 4294967295\n" in answer.body
    assert [request.short_unsigned for _, request in recorder.calls] == [2**32 - 1]
