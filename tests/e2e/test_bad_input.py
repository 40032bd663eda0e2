"""Bad input gets exactly the status and the code that the contract gives it: never a 500, never a traceback."""

import io
import json
from typing import Any

import grpc
import pytest
from jobledger.v1 import job_service_pb2 as pb
from support.doors import Door, GrpcDoor, Refused, RestDoor
from support.running import RunningServer
from yarl import URL

NOBODY = "job_00000000000000000000000000"
JSON = {"Content-Type": "application/json"}


async def ask(rest: RestDoor, method: str, path: str, **options: Any) -> tuple[int, dict[str, Any]]:
    """Status and body of a request whose path is sent as it is written."""
    options.setdefault("headers", rest.headers)
    async with rest.session.request(method, URL(rest.url + path, encoded=True), **options) as response:
        text = await response.text()
        assert "Traceback" not in text
        return response.status, json.loads(text)


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        (f"/v1/jobs/{NOBODY}", 404, "E_JOB_NOT_FOUND"),
        ("/v1/jobs/nobody", 404, "E_JOB_NOT_FOUND"),
        ("/v1/jobs/%20", 404, "E_JOB_NOT_FOUND"),
        ("/v1/jobs/" + "x" * 5000, 404, "E_JOB_NOT_FOUND"),
        ("/v1/jobs/a%2Fb", 404, "E_JOB_NOT_FOUND"),
        ("/v1/jobs/a%00b", 400, "E_BAD_REQUEST"),
        ("/v1/jobs/a%zz", 400, "E_BAD_REQUEST"),
        ("/v1/jobs/%ff", 400, "E_BAD_REQUEST"),
        ("/v1/jobs/", 404, "E_NOT_FOUND"),
        ("/v1/jobs//logs", 404, "E_NOT_FOUND"),
        ("/v1/nothing", 404, "E_NOT_FOUND"),
        (f"/v1/jobs/{NOBODY}/artifacts/1/content", 404, "E_JOB_NOT_FOUND"),
        (f"/v1/jobs/{NOBODY}/artifacts/one/content", 422, "E_VALIDATION"),
        (f"/v1/jobs/{NOBODY}/artifacts/%2e%2e%2fx/content", 422, "E_VALIDATION"),
        ("/v1/jobs?limit=0", 422, "E_VALIDATION"),
        ("/v1/jobs?limit=-1", 422, "E_VALIDATION"),
        ("/v1/jobs?limit=1001", 422, "E_VALIDATION"),
        ("/v1/jobs?limit=abc", 422, "E_VALIDATION"),
        ("/v1/jobs?limit=5&limit=6", 422, "E_VALIDATION"),
        ("/v1/jobs?colour=red", 422, "E_VALIDATION"),
        ("/v1/jobs?state=sleeping", 422, "E_VALIDATION"),
        ("/v1/jobs?state=", 422, "E_VALIDATION"),
        ("/v1/jobs?label=broken", 422, "E_VALIDATION"),
        ("/v1/jobs?page_token=nonsense", 422, "E_VALIDATION"),
        ("/v1/jobs?page_token=nonsense&offset=1", 422, "E_VALIDATION"),
        ("/v1/jobs?created_after=yesterday", 422, "E_VALIDATION"),
        (f"/v1/jobs/{NOBODY}?job_id=x", 400, "E_BAD_REQUEST"),
        (f"/v1/jobs/{NOBODY}/logs?limit=10001", 422, "E_VALIDATION"),
        (f"/v1/jobs/{NOBODY}/logs?level=warning", 422, "E_VALIDATION"),
        (f"/v1/jobs/{NOBODY}/logs?level=warn,", 422, "E_VALIDATION"),
        (f"/v1/jobs/{NOBODY}/logs?offset=1&after_sequence=1", 422, "E_VALIDATION"),
        (f"/v1/jobs/{NOBODY}/wait?timeout=301", 422, "E_VALIDATION"),
        ("/v1/stream?resume_from=99999999", 400, "E_STREAM_INVALID_SEQUENCE"),
        ("/v1/stream?resume_from=-1", 400, "E_STREAM_INVALID_SEQUENCE"),
        ("/v1/stream?type=job.nothing", 422, "E_VALIDATION"),
        ("/gateway/nothing", 404, "not_found"),
    ],
)
async def test_a_bad_path_or_query_is_named(rest: RestDoor, path: str, status: int, code: str) -> None:
    got, body = await ask(rest, "GET", path)
    assert (got, body.get("error_code") or body["error"]["code"]) == (status, code)
    if code == "E_VALIDATION":
        assert all(set(field) == {"field", "description"} for field in body["details"]["fields"])
        assert body["details"]["fields"]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 422, "E_VALIDATION"),
        (b"{", 400, "E_BAD_JSON"),
        (b"nonsense", 400, "E_BAD_JSON"),
        (b"[]", 400, "E_BAD_JSON"),
        (b"null", 400, "E_BAD_JSON"),
        (b"5", 400, "E_BAD_JSON"),
        (b'{"spec": {}, "spec": {}}', 400, "E_BAD_JSON"),
        (b'{"spec": {"labels": {"a": "1", "a": "2"}}}', 400, "E_BAD_JSON"),
        (b'{"spec": {"config": {"x": NaN}}}', 400, "E_BAD_JSON"),
        (b'{"spec": {"config": {"x": 1e999}}}', 400, "E_BAD_JSON"),
        (b'{"spec": {"config": {"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}}}", 400, "E_BAD_JSON"),
        (b'{"spec": {"command": ["true"], "limits": {"memory_bytes": 9223372036854775808}}}', 422, "E_VALIDATION"),
        (b'{"spec": ' + b'{"config": ' * 70 + b"{}" + b"}" * 71, 400, "E_BAD_JSON"),
        (b'{"spec": {"command": ["true"], "config": ' + b'{"a":' * 31 + b"1" + b"}" * 33, 422, "E_VALIDATION"),
        (b'{"spec": {"command": ["true"], "config": ' + b'{"a":' * 62 + b"1" + b"}" * 64, 422, "E_VALIDATION"),
        (b'{"spec": {"command": ["true"], "config": {"a":' + b"[" * 61 + b"]" * 61 + b"}}}", 422, "E_VALIDATION"),
        (b'{"spec": {"command": ["true"]}} trailing', 400, "E_BAD_JSON"),
        (b'{"spec": {"command": ["\xff"]}}', 400, "E_BAD_JSON"),
        (b'{"spec": {"command": ["true"], "shell": "yes"}}', 422, "E_VALIDATION"),
        (b'{"spec": {"command": []}}', 422, "E_VALIDATION"),
        (b'{"spec": {"command": [""]}}', 422, "E_VALIDATION"),
        (b'{"spec": {"command": ["a\\u0000b"]}}', 422, "E_VALIDATION"),
        (b'{"spec": {"command": ["true"], "priority": "urgent"}}', 422, "E_VALIDATION"),
        (b'{"spec": {"command": ["true"], "max_attempts": 0}}', 422, "E_VALIDATION"),
        (b'{"spec": {"command": ["true"], "timeout": "soon"}}', 422, "E_VALIDATION"),
        (b'{"spec": {"command": ["true"], "env": {"1A": "x"}}}', 422, "E_VALIDATION"),
        (b'{"spec": {"command": ["true"], "env": {"JOBLEDGER_JOB_ID": "x"}}}', 422, "E_VALIDATION"),
        (b'{"spec": {"command": ["true"], "job_type": "unheard-of"}}', 422, "E_VALIDATION"),
        (b'{"spec": {"command": ["true"], "working_dir": "/etc"}}', 403, "E_PATH_NOT_ALLOWED"),
        (b'{"spec": {"command": ["true"], "working_dir": "/tmp/../etc"}}', 403, "E_PATH_TRAVERSAL"),
        (b'{"spec": {"command": ["true"], "working_dir": "tmp"}}', 422, "E_VALIDATION"),
        (b'{"spec": {"command": ["true"], "inputs": [{"type": "file"}]}}', 422, "E_VALIDATION"),
        (b'{"spec": {"command": ["true"], "tools": ["../sh"]}}', 422, "E_VALIDATION"),
        (b'{"spec": {"command": ["true"], "tools": ["sh", "sh"]}}', 422, "E_VALIDATION"),
        (b'{"spec": {"command": ["true"]}, "idempotency_key": "' + b"k" * 129 + b'"}', 422, "E_VALIDATION"),
        (b'{"spec": {"command": ["true"], "rerun_of": "job_x"}}', 404, "E_JOB_NOT_FOUND"),
        (b'{"spec": {"command": ["' + b"x" * 2_000_000 + b'"]}}', 413, "E_TOO_LARGE"),
    ],
)
async def test_a_bad_body_is_named_and_makes_no_job(rest: RestDoor, body: bytes, status: int, code: str) -> None:
    before = (await rest.call("ListJobs"))["total"]
    got, answer = await ask(rest, "POST", "/v1/jobs", data=io.BytesIO(body), headers={**rest.headers, **JSON})
    assert (got, answer["error_code"]) == (status, code)
    assert (await rest.call("ListJobs"))["total"] == before


async def test_the_deepest_config_that_is_taken_goes_through_all_that_tells_of_the_job(rest: RestDoor) -> None:
    config: Any = 1
    for _ in range(30):
        config = {"a": config}
    body = json.dumps({"spec": {"command": ["true"], "config": config}}).encode()
    headers = {**rest.headers, **JSON}
    status, job = await ask(rest, "POST", "/v1/jobs", data=io.BytesIO(body), headers=headers)
    path = f"/v1/jobs/{job['job_id']}"
    ended = await ask(rest, "GET", f"{path}/wait?timeout=30")
    told, receipt = await ask(rest, "GET", path), await ask(rest, "GET", f"{path}/receipt")
    assert (status, ended[0], told[0], receipt[0]) == (201, 200, 200, 200)
    assert (told[1]["state"], told[1]["spec"]["config"]) == ("completed", config)


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "application/xml"])
async def test_a_body_of_another_media_type_is_415(rest: RestDoor, kind: str) -> None:
    headers = {**rest.headers, "Content-Type": kind}
    assert (await ask(rest, "POST", "/v1/jobs", data=b"{}", headers=headers))[1]["error_code"] == (
        "E_UNSUPPORTED_MEDIA_TYPE"
    )


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PUT", "/v1/jobs", {"GET", "POST", "HEAD", "OPTIONS"}),
        ("POST", f"/v1/jobs/{NOBODY}/logs", {"GET", "HEAD", "OPTIONS"}),
        ("DELETE", "/gateway/jobs", {"GET", "HEAD", "OPTIONS"}),
        ("GET", f"/v1/jobs/{NOBODY}/cancel", {"POST", "OPTIONS"}),
    ],
)
async def test_a_wrong_method_is_405_with_allow(rest: RestDoor, method: str, path: str, allow: set[str]) -> None:
    async with rest.session.request(method, rest.url + path, headers=rest.headers) as response:
        assert response.status == 405
        assert {it.strip() for it in response.headers["Allow"].split(",")} == allow


@pytest.mark.parametrize(
    ("authorization", "code"),
    [
        ([], "E_AUTH_MISSING"),
        (["Bearer"], "E_AUTH_MALFORMED"),
        (["Bearer nonsense"], "E_AUTH_MALFORMED"),
        (["Basic YTpi"], "E_AUTH_MALFORMED"),
        (["Bearer jl_aaaaaaaa_" + "x" * 43], "E_AUTH_INVALID"),
        (["Bearer jl_aaaaaaaa_" + "x" * 43, "Bearer jl_aaaaaaaa_" + "x" * 43], "E_AUTH_MALFORMED"),
        (["Bearer jl_größe_xyz"], "E_AUTH_MALFORMED"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/nothing", f"/v1/jobs/{NOBODY}", "/v1/jobs?limit=abc"])
async def test_without_a_good_token_nothing_is_told(
    rest: RestDoor, authorization: list[str], code: str, path: str
) -> None:
    """The token comes before path, syntax, validation and existence."""
    headers = [("Authorization", value) for value in authorization]
    async with rest.session.get(rest.url + path, headers=headers) as response:
        body = await response.json()
        if body["error_code"] == "E_AUTH_RATE_LIMITED":
            assert (response.status, code) == (429, "E_AUTH_INVALID")
            assert int(response.headers["Retry-After"]) >= 1
            return
        assert (response.status, body["error_code"]) == (401, code)
        assert response.headers["WWW-Authenticate"] == "Bearer"


async def test_a_valid_token_is_never_refused_for_the_wrong_ones_of_its_peer(door: Door) -> None:
    token = ("authorization", "Bearer jl_aaaaaaaa_" + "x" * 43)
    codes: list[str | int] = []
    for _ in range(15):
        if isinstance(door, GrpcDoor):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await door.jobs.ListJobs(pb.ListJobsRequest(), metadata=(token,))
            codes.append(refused.value.code().name)
        elif isinstance(door, RestDoor):
            async with door.session.get(door.url + "/v1/jobs", headers={"Authorization": token[1]}) as response:
                codes.append(response.status)
    assert codes[-1] in ("RESOURCE_EXHAUSTED", 429)
    assert (await door.call("ListJobs"))["jobs"] is not None


@pytest.mark.parametrize("job_id", ["", " ", "x" * 5000, "a/b", "job_ÄÖÜ"])
async def test_an_odd_id_is_an_unknown_job_over_grpc(server: RunningServer, job_id: str) -> None:
    async with grpc.aio.insecure_channel(server.target) as channel:
        with pytest.raises(Refused) as refused:
            await GrpcDoor(channel, server.token).get(job_id)
    assert refused.value.error_code == "E_JOB_NOT_FOUND"


async def test_an_id_with_nul_is_a_bad_request_over_grpc(server: RunningServer) -> None:
    async with grpc.aio.insecure_channel(server.target) as channel:
        with pytest.raises(Refused) as refused:
            await GrpcDoor(channel, server.token).get("a\0b")
    assert (refused.value.error_code, refused.value.status) == ("E_BAD_REQUEST", "INVALID_ARGUMENT")


async def test_a_program_that_is_not_there_fails_the_job_with_its_reason(door: Door) -> None:
    job_id = (await door.create("no-such-program-anywhere"))["job_id"]
    job = await door.ended(job_id)
    assert (job["state"], job["error_code"]) == ("failed", "E_JOB_SPAWN_FAILED")
    assert "no-such-program-anywhere" in job["error_message"]
    assert json.loads((await door.receipt(job_id))[0])["summary"]["error_code"] == "E_JOB_SPAWN_FAILED"


async def test_a_foreign_host_header_is_421(rest: RestDoor) -> None:
    status, body = await ask(rest, "GET", "/v1/jobs", headers={**rest.headers, "Host": "evil.example"})
    assert (status, body["error_code"]) == (421, "E_HOST_NOT_ALLOWED")


async def test_a_page_of_another_origin_is_403(rest: RestDoor) -> None:
    status, body = await ask(rest, "GET", "/v1/jobs", headers={**rest.headers, "Origin": "http://evil.example"})
    assert (status, body["error_code"]) == (403, "E_FORBIDDEN")


async def test_the_same_key_with_another_body_is_a_conflict(door: Door) -> None:
    key = f"key-{door.name}"
    first = await door.create("true", key=key)
    assert (await door.create("true", key=key))["job_id"] == first["job_id"]
    with pytest.raises(Refused) as refused:
        await door.create("false", key=key)
    assert refused.value.error_code == "E_IDEMPOTENCY_CONFLICT"
    assert refused.value.status == {"grpc": "ALREADY_EXISTS", "rest": 409}[door.name]


async def test_input_to_a_job_that_takes_none_is_refused(door: Door) -> None:
    job_id = (await door.create("sleep", "600"))["job_id"]
    with pytest.raises(Refused) as refused:
        await door.call("SendInput", job_id=job_id, text="hello\n")
    assert refused.value.error_code == "E_JOB_INPUT_CLOSED"
    await door.cancel(job_id)
    await door.ended(job_id)
