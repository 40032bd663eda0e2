"""Path, query and body, as the engine receives them or the client is refused."""

import io
from typing import Any

import pytest
from gateway.client import Client
from gateway.engine import Engine, Refusal
from google.protobuf.duration_pb2 import Duration
from jobledger.v1 import job_pb2, job_service_pb2

# What is tested here lies before the channel: one kind of it will do.
pytestmark = pytest.mark.parametrize("client", ["in process"], indirect=True)

JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("segment", "job_id"),
    [
        ("abc", "abc"),
        ("a%20b", "a b"),
        ("a+b", "a+b"),
        ("%E2%82%AC", "€"),
        ("a%2Fb", "a/b"),
        ("a%252Fb", "a%2Fb"),
        ("%20", " "),
        ("a" * 5000, "a" * 5000),
        ("abc:nope", "abc:nope"),
        ("..%2F..%2Fetc", "../../etc"),
    ],
)
async def test_a_segment_reaches_the_engine_decoded_once(
    client: Client, engine: Engine, segment: str, job_id: str
) -> None:
    engine.on("GetJob", Refusal("JOB_NOT_FOUND"))
    answer = await client.get(f"/v1/jobs/{segment}")
    assert answer.json["error_code"] == "E_JOB_NOT_FOUND"
    assert engine.requests("GetJob")[0].job_id == job_id


QUERIES: list[tuple[str, dict[str, Any]]] = [
    ("limit=5&offset=0", {"limit": 5, "offset": 0}),
    ("state=running,queued", {"state": [2, 1]}),
    ("state=running&state=JOB_STATE_QUEUED&state=3", {"state": [2, 1, 3]}),
    ("label=a%3Db%2Cc&label=d=e", {"label": ["a=b,c", "d=e"]}),
    ("pageToken=x", {"page_token": "x"}),
    ("search=", {"search": ""}),
    ("created_after=1970-01-01T00:00:01%2B00:00", {"created_after": {"seconds": 1}}),
    ("", {}),
]


@pytest.mark.parametrize(("query", "fields"), QUERIES)
async def test_a_query_sets_fields(client: Client, engine: Engine, query: str, fields: dict[str, Any]) -> None:
    answer = await client.get(f"/v1/jobs?{query}")
    assert answer.status == 200
    assert engine.requests("ListJobs") == [job_service_pb2.ListJobsRequest(**fields)]


BAD_QUERIES = [
    ("nope=1", "nope", "no such parameter"),
    ("state[]=running", "state[]", "no such parameter"),
    ("limit=1&limit=2", "limit", "only once"),
    ("limit=1&limit=1", "limit", "only once"),
    ("limit=%205", "limit", "whole number"),
    ("limit=007", "limit", "whole number"),
    ("limit=%2B5", "limit", "whole number"),
    ("limit=1.0", "limit", "whole number"),
    ("limit=", "limit", "whole number"),
    ("limit", "limit", "whole number"),
    ("limit=2147483648", "limit", "from -2147483648 to 2147483647"),
    ("offset=9223372036854775808", "offset", "from -9223372036854775808"),
    ("offset=" + "9" * 5000, "offset", "whole number"),
    ("state=nope", "state", "queued, running, cancelling, completed, failed, cancelled"),
    ("state=99", "state", "queued, running"),
    ("state=running,", "state", "empty element"),
    ("state=", "state", "empty element"),
    ("state=Running", "state", "queued, running"),
    ("created_after=2024-01-02T03:04:05+02:00", "created_after", "%2B"),
    ("created_after=yesterday", "created_after", "a time such as"),
    ("created_after.seconds=5", "created_after.seconds", "no such parameter"),
    ("created_after=2024-01-01T00:00:00Z&created_after.nanos=-5", "created_after.nanos", "no such parameter"),
]


@pytest.mark.parametrize(("query", "field", "why"), BAD_QUERIES)
async def test_a_parameter_that_breaks_a_rule_is_named(
    client: Client, engine: Engine, query: str, field: str, why: str
) -> None:
    answer = await client.get(f"/v1/jobs?{query}")
    assert answer.status == 422
    assert answer.json["error_code"] == "E_VALIDATION"
    (violation,) = answer.json["details"]["fields"]
    assert violation["field"] == field
    assert why in violation["description"]
    assert engine.requests("ListJobs") == []


async def test_strings_that_are_declared_so_may_have_commas_between(client: Client, engine: Engine) -> None:
    await client.get("/v1/stream?type=job.progress,job.artifact&job_id=a,b")
    request = engine.requests("WatchEvents")[0]
    assert list(request.type) == ["job.progress", "job.artifact"]
    assert list(request.job_id) == ["a,b"]


@pytest.mark.parametrize("given", ["1.5s", "1.5"])
async def test_a_duration_in_a_query_may_be_bare_seconds(client: Client, engine: Engine, given: str) -> None:
    await client.get(f"/v1/jobs/job_1/wait?timeout={given}")
    assert engine.requests("WaitJob")[0].timeout == Duration(seconds=1, nanos=500_000_000)


BAD_REQUESTS = [
    ("GET", "/v1/jobs/job_1?job_id=job_2", None),  # a query must not override the path
    ("GET", "/v1/jobs/job_1?jobId=job_1", None),
    ("POST", "/v1/jobs?idempotency_key=k", b"{}"),  # the body is the whole request
    ("GET", "/v1/jobs/a%zz", None),
    ("GET", "/v1/jobs/a%2", None),
    ("GET", "/v1/jobs/a%00b", None),
    ("GET", "/v1/jobs/%ff", None),
    ("GET", "/v1/jobs/%2e%2e", None),
    ("GET", "/v1/jobs?search=%ff", None),
    ("GET", "/v1/jobs?search=%00", None),
    ("GET", "/v1/jobs/job_1", b'{"job_id":"job_2"}'),  # a rule without body takes none
    ("POST", "/v1/jobs/job_1/cancel", b'{"job_id":"job_2"}'),
    ("POST", "/v1/jobs/job_1/cancel", b'{"jobId":""}'),
]


@pytest.mark.parametrize(("method", "path", "body"), BAD_REQUESTS)
async def test_what_can_not_be_read_is_a_bad_request(
    client: Client, engine: Engine, method: str, path: str, body: bytes | None
) -> None:
    answer = await client.ask(method, path, data=body, headers=JSON)
    assert (answer.status, answer.json["error_code"]) == (400, "E_BAD_REQUEST")
    assert [call.method for call in engine.calls] == ["WhoAmI"]


async def test_a_body_may_repeat_what_the_path_says(client: Client, engine: Engine) -> None:
    answer = await client.post("/v1/jobs/job_1/cancel", json={"job_id": "job_1", "reason": "r"})
    assert answer.status == 200
    assert engine.requests("CancelJob") == [job_service_pb2.CancelJobRequest(job_id="job_1", reason="r")]


async def test_an_empty_body_is_an_empty_object(client: Client, engine: Engine) -> None:
    assert (await client.post("/v1/jobs/job_1/cancel")).status == 200
    assert (await client.post("/v1/jobs:cancel", data=b"")).status == 200


async def test_a_path_variable_of_another_kind_is_held_to_it(client: Client, engine: Engine) -> None:
    answer = await client.get("/v1/jobs/job_1/artifacts/abc/content")
    assert (answer.status, answer.json["details"]["fields"][0]["field"]) == (422, "artifact_id")


async def test_violations_of_query_and_path_come_together(client: Client) -> None:
    answer = await client.get("/v1/jobs/job_1/artifacts/abc/content?nope=1")
    assert [found["field"] for found in answer.json["details"]["fields"]] == ["artifact_id", "nope"]


async def test_syntax_comes_before_validation(client: Client) -> None:
    assert (await client.get("/v1/jobs?limit=x&search=%ff")).json["error_code"] == "E_BAD_REQUEST"
    answer = await client.post("/v1/jobs/job_1/cancel", data=b'{"reason":5,"reason":6}', headers=JSON)
    assert answer.json["error_code"] == "E_BAD_JSON"


@pytest.mark.parametrize(
    "content_type", ["application/json", "Application/JSON; charset=UTF-8", 'application/json;charset="utf-8"']
)
async def test_json_goes_by_its_name_in_any_case(client: Client, engine: Engine, content_type: str) -> None:
    answer = await client.post("/v1/jobs", data=b"{}", headers={"Content-Type": content_type})
    assert answer.status == 201


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/xml", "application/x-www-form-urlencoded", "application/json; charset=latin-1"],
)
async def test_another_media_type_is_refused(client: Client, content_type: str) -> None:
    answer = await client.post("/v1/jobs", data=b"{}", headers={"Content-Type": content_type})
    assert (answer.status, answer.json["error_code"]) == (415, "E_UNSUPPORTED_MEDIA_TYPE")


async def test_a_body_over_the_limit_is_too_large_even_for_strangers(client: Client, engine: Engine) -> None:
    big = b'{"spec":{"stdin":"' + b"x" * (1024 * 1024) + b'"}}'
    assert (await client.post("/v1/jobs", data=io.BytesIO(big), token=None)).status == 413

    async def chunks() -> Any:
        yield big[:600_000]
        yield big[600_000:]

    answer = await client.post("/v1/jobs", data=chunks())
    assert (answer.status, answer.json["error_code"]) == (413, "E_TOO_LARGE")
    assert engine.requests("CreateJob") == []


async def test_a_method_override_is_ignored(client: Client, engine: Engine) -> None:
    answer = await client.post("/v1/jobs:cancel", headers={"X-HTTP-Method-Override": "DELETE"})
    assert answer.status == 200
    assert [call.method for call in engine.calls] == ["CancelJobs"]


async def test_deleting_answers_with_an_empty_object(client: Client, engine: Engine) -> None:
    assert (await client.ask("DELETE", "/v1/jobs/job_1")).body == b"{}"


async def test_a_list_is_answered_with_every_field(client: Client, engine: Engine) -> None:
    engine.on(
        "ListJobs", job_service_pb2.ListJobsResponse(jobs=[job_pb2.JobSummary(job_id="job_1")], total=1, limit=50)
    )
    answer = await client.get("/v1/jobs")
    assert list(answer.json) == ["jobs", "total", "offset", "limit", "next_page_token"]
    assert answer.json["next_page_token"] is None
    assert answer.headers["Content-Type"].startswith("application/json")
