"""The operators' dashboard under /gateway: C-01 to C-05 and AC-1 to AC-5 of its specification."""

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from support.doors import GrpcDoor, Refused, RestDoor
from support.eventually import eventually
from support.running import RunningServer
from support.tokens import issue, post

NOBODY = "job_00000000000000000000000000"


async def ask(rest: RestDoor, method: str, path: str, **options: Any) -> tuple[int, dict[str, Any]]:
    options.setdefault("headers", rest.headers)
    async with rest.session.request(method, rest.url + path, **options) as response:
        return response.status, await response.json()


async def running(rest: RestDoor) -> str:
    job = await rest.create("sleep", "600")
    await eventually(lambda: rest.get(job["job_id"]), until=lambda seen: seen["state"] == "running")
    return str(job["job_id"])


async def test_c01_jobs_list_returns_deterministic_authenticated_payload(rest: RestDoor) -> None:
    job_id = await running(rest)

    async def twice() -> list[tuple[int, dict[str, Any]]]:
        return [await ask(rest, "GET", "/gateway/jobs") for _ in range(2)]

    # That a job has begun to write its log is its last activity, a moment after its start.
    (status, first), (_, second) = await eventually(twice, until=lambda seen: seen[0][1]["jobs"] == seen[1][1]["jobs"])
    assert status == 200
    assert list(first) == ["schema_version", "generated_unix_ms", "total_jobs", "jobs"]
    assert (first["schema_version"], first["total_jobs"]) == (1, 1)
    job = first["jobs"][0]
    names = ["job_id", "workspace_id", "status", "started_unix_ms", "last_activity_unix_ms", "queued_followups"]
    assert list(job) == names
    assert (job["job_id"], job["workspace_id"], job["status"]) == (job_id, "default", "running")
    assert job["started_unix_ms"] <= job["last_activity_unix_ms"]
    assert list(second) == list(first)
    await ask(rest, "POST", f"/gateway/jobs/{job_id}/cancel")


async def test_c02_job_cancel_cancels_known_job_and_returns_deterministic_payload(rest: RestDoor) -> None:
    job_id = await running(rest)
    status, body = await ask(rest, "POST", f"/gateway/jobs/{job_id}/cancel")
    assert status == 200
    assert list(body) == ["schema_version", "job_id", "status", "cancelled_unix_ms"]
    assert (body["schema_version"], body["job_id"], body["status"]) == (1, job_id, "cancelled")
    assert (await rest.get(job_id))["state"] == "cancelled"
    assert await ask(rest, "POST", f"/gateway/jobs/{job_id}/cancel") == (200, body)


async def test_c03_unknown_job_id_returns_deterministic_404(rest: RestDoor) -> None:
    answers = [await ask(rest, "POST", f"/gateway/jobs/{NOBODY}/cancel") for _ in range(2)]
    assert answers[0] == answers[1]
    status, body = answers[0]
    assert status == 404
    assert (body["error"]["type"], body["error"]["code"]) == ("invalid_request_error", "job_not_found")


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer nonsense"}, {"Authorization": "Basic YTpi"}])
@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/gateway/jobs"), ("POST", f"/gateway/jobs/{NOBODY}/cancel"), ("GET", "/gateway/status")],
)
async def test_c04_unauthorized_requests_return_401(
    rest: RestDoor, method: str, path: str, headers: dict[str, str]
) -> None:
    status, body = await ask(rest, method, path, headers=headers)
    assert status == 401
    assert (body["error"]["type"], body["error"]["code"]) == ("invalid_request_error", "unauthorized")


async def test_c05_status_discovery_includes_jobs_endpoints(rest: RestDoor) -> None:
    status, body = await ask(rest, "GET", "/gateway/status")
    assert (status, body["schema_version"], body["service"]["name"]) == (200, 1, "jobledger")
    ui = body["gateway"]["web_ui"]
    assert ui["jobs_endpoint"] == "/gateway/jobs"
    assert ui["job_cancel_endpoint_template"] == "/gateway/jobs/{job_id}/cancel"
    for name in ("jobs_endpoint", "status_endpoint", "docs_endpoint"):
        async with rest.session.get(rest.url + ui[name], headers=rest.headers) as response:
            assert response.status == 200


async def test_cancelling_a_finished_job_is_409(rest: RestDoor) -> None:
    job_id = (await rest.create("true"))["job_id"]
    await rest.ended(job_id)
    status, body = await ask(rest, "POST", f"/gateway/jobs/{job_id}/cancel")
    assert (status, body["error"]["code"]) == (409, "job_already_finished")


async def test_a_blank_id_is_400(rest: RestDoor) -> None:
    status, body = await ask(rest, "POST", "/gateway/jobs/%20/cancel")
    assert (status, body["error"]["code"]) == (400, "invalid_job_id")


async def test_the_history_is_paged_newest_first(rest: RestDoor) -> None:
    made = [(await rest.create("true"))["job_id"] for _ in range(3)]
    for job_id in made:
        await rest.ended(job_id)
    seen: list[str] = []
    query = {"scope": "all", "limit": "2"}
    while True:
        _, page = await ask(rest, "GET", "/gateway/jobs", params=query)
        seen += [job["job_id"] for job in page["jobs"]]
        assert len(page["jobs"]) <= 2
        if page["next_page_token"] is None:
            break
        query["page_token"] = page["next_page_token"]
    assert seen[:3] == made[::-1]
    assert len(seen) == len(set(seen)) == page["total_jobs"]


async def test_cancel_waits_until_a_stubborn_job_is_dead(rest: RestDoor) -> None:
    stubborn = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
    job_id = (await rest.create("python3", "-c", stubborn))["job_id"]
    await eventually(lambda: rest.call("GetLogs", job_id=job_id), until=lambda page: page["total"] == 1)
    headers = {**rest.headers, "Content-Type": "application/json"}
    status, body = await ask(
        rest, "POST", f"/gateway/jobs/{job_id}/cancel", data='{"grace_period": 0.5}', headers=headers
    )
    assert (status, body["status"]) == (200, "cancelled")


async def test_a_cancel_that_waits_ends_with_its_token_and_is_done(
    server: RunningServer, rest: RestDoor, tmp_path: Path
) -> None:
    """Over gRPC too: only the waiting is the caller's; what it has asked for is stored, and goes on."""
    stubborn = f"trap '' TERM; echo up; while [ ! -e {tmp_path}/end ]; do sleep 0.1; done"
    jobs = [(await rest.create("sh", "-c", stubborn, grace_period="60s"))["job_id"] for _ in range(2)]
    for job_id in jobs:
        await eventually(partial(rest.call, "GetLogs", job_id=job_id), until=lambda page: page["total"] == 1)
    token_id, token = await issue(rest, scopes=["jobs:cancel"])
    headers = {"Authorization": f"Bearer {token}"}
    async with grpc.aio.insecure_channel(server.target) as channel, asyncio.timeout(30):
        over_grpc = asyncio.create_task(GrpcDoor(channel, token).cancel(jobs[0], wait=True))
        over_rest = asyncio.create_task(ask(rest, "POST", f"/gateway/jobs/{jobs[1]}/cancel", headers=headers))
        for job_id in jobs:
            await eventually(partial(rest.get, job_id), until=lambda job: job["state"] == "cancelling")
        await post(rest, f"/v1/tokens/{token_id}/revoke", {})
        with pytest.raises(Refused) as refused:
            await over_grpc
        status, answer = await over_rest
    assert (refused.value.status, refused.value.error_code) == ("UNAUTHENTICATED", "E_AUTH_INVALID")
    assert (status, answer["error"]["message"]) == (401, "The token was revoked")
    assert [(await rest.get(job_id))["state"] for job_id in jobs] == ["cancelling"] * 2
    (tmp_path / "end").touch()
    assert [(await rest.ended(job_id))["state"] for job_id in jobs] == ["cancelled"] * 2
