"""What those try who have no token, a wrong one, or one that may do less: each attack through both doors."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import grpc
import pytest
from jobledger.v1 import job_service_pb2 as pb
from jobledger.v1.job_service_pb2_grpc import JobServiceStub
from jobledger_server.core.policy import SERVICES
from support.doors import Door, Refused, RestDoor, server_sent
from support.eventually import eventually
from support.running import RunningServer, output_file, run_cli
from support.tokens import audited, issue, post, with_token

OPEN_PATHS = {"/v1/openapi.json", "/docs", "/healthz", "/readyz"}
ABSENT = f"job_{'0' * 26}"
WRONG = "jl_abcdefgh_" + "Zq7" * 14 + "Z"
# Beyond what a token has open is refused; 100 is the default.
MOST_STREAMS, WATCHES = 100, 1000
SECONDS = 30


def methods() -> Iterator[tuple[str, Any]]:
    for service in SERVICES:
        for method in service.methods:
            yield f"/{service.full_name}/{method.name}", method
    yield "/jobledger.v1.JobService/Nothing", None
    yield "/nobody.v1.Service/Call", None


async def test_without_a_token_no_method_answers(server: RunningServer) -> None:
    """Row 1, gRPC: any method, unknown ones too, with bytes that are no message. Health alone is open."""
    async with grpc.aio.insecure_channel(server.target) as channel:
        for name, _ in methods():
            call: Any = channel.unary_unary(name)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call(b"\xff\xff")
            assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED, name
        health: Any = channel.unary_unary("/grpc.health.v1.Health/Check")
        await health(b"")


async def test_without_a_token_no_path_answers(rest: RestDoor) -> None:
    """Row 1, REST: any path, unknown ones too, and before a body is read that is no JSON."""
    async with rest.session.get(f"{rest.url}/v1/openapi.json") as response:
        paths = (await response.json())["paths"]
    asked = [(path, method) for path, item in paths.items() for method in item if method in ("get", "post", "delete")]
    assert len(asked) > 20
    for path, method in [*asked, ("/v1/nothing", "get")]:
        if path in OPEN_PATHS:
            continue
        url = rest.url + path.replace("{job_id}", ABSENT).replace("{artifact_id}", "1").replace("{token_id}", "x")
        headers = {"Content-Type": "application/json"}
        async with rest.session.request(method, url, data=b"{" if method == "post" else None, headers=headers) as it:
            assert it.status == 401, (path, await it.text())
            assert it.headers["WWW-Authenticate"].startswith("Bearer")


async def test_a_thousand_wrong_tokens_lock_nobody_out(door: Door, rest: RestDoor, server: RunningServer) -> None:
    """Row 2: guessing is slowed down, the right token from the same address works, and no guess is kept anywhere."""
    guesser = with_token(door, WRONG)
    codes = set()
    for _ in range(1000):
        with pytest.raises(Refused) as refused:
            await guesser.call("ListJobs")
        codes.add((refused.value.error_code, refused.value.status))
    limited = ("E_AUTH_RATE_LIMITED", "RESOURCE_EXHAUSTED" if door.name == "grpc" else 429)
    assert limited in codes
    assert codes <= {limited, ("E_AUTH_INVALID", "UNAUTHENTICATED"), ("E_AUTH_INVALID", 401)}
    await door.call("ListJobs", limit=1)
    audit = server.data_dir / "audit" / "audit.jsonl"
    await eventually(lambda: asyncio.to_thread(audit.exists))
    for text in (output_file(server.data_dir).read_text(), audit.read_text()):
        assert WRONG[12:19] not in text
        assert server.token.rpartition("_")[2][:7] not in text
    told = [entry for entry in await audited(rest) if entry["reason"] in ("AUTH_INVALID", "AUTH_RATE_LIMITED")]
    assert 1 <= len(told) <= 8, "a thousand failures do not fill the audit log"


@pytest.mark.parametrize(
    "credentials",
    [
        ["Bearer jl_abcdefgh_" + "é" * 8],
        ["Bearer jl_abcdefgh_A\0A"],
        ["Bearer jl_abcdefgh_" + "A" * 8192],
        ["Bearer {token}", "Bearer {token}"],
        ["Bearer {token}", "Basic dTpw"],
        ["Basic dTpw"],
        ["{token}"],
    ],
    ids=["non-ascii", "nul", "8 KiB", "twice", "two kinds", "basic", "no scheme"],
)
async def test_credentials_of_another_form_are_refused(server: RunningServer, credentials: list[str]) -> None:
    """Rows 3 and 4, REST on a bare socket: what no client would send. Never a fault of the server's."""
    url = urlsplit(server.url)
    lines = [f"authorization: {value.replace('{token}', server.token)}" for value in credentials]
    request = "\r\n".join(["GET /v1/jobs HTTP/1.1", f"Host: {url.netloc}", "Connection: close", *lines, "", ""])
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    writer.write(request.encode())
    status = (await reader.readline()).split()[1]
    writer.close()
    # What HTTP itself does not admit does not come as far as the token.
    admitted = {"nul": b"400"}.get("nul" if "\0" in credentials[0] else "", b"401")
    assert status in ((b"401", b"431") if len(credentials[0]) > 8000 else (admitted, b"401"))


@pytest.mark.parametrize(
    "credentials",
    [
        ["Bearer jl_abcdefgh_" + "A" * 6000],
        ["Bearer {token}", "Bearer {token}"],
        ["Bearer {token}", "Basic dTpw"],
        ["Basic dTpw"],
        ["{token}"],
    ],
    ids=["6 KB", "twice", "two kinds", "basic", "no scheme"],
)
async def test_metadata_of_another_form_is_refused(server: RunningServer, credentials: list[str]) -> None:
    """Rows 3 and 4, gRPC, whose own client does not send what is not ASCII."""
    values = [it.replace("{token}", server.token) for it in credentials]
    async with grpc.aio.insecure_channel(server.target) as channel:
        metadata = tuple(("authorization", value) for value in values)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await JobServiceStub(channel).ListJobs(pb.ListJobsRequest(), metadata=metadata)
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_the_scheme_is_known_in_any_case(server: RunningServer, rest: RestDoor) -> None:
    """Row 4: `bearer` is `Bearer`."""
    async with grpc.aio.insecure_channel(server.target) as channel:
        metadata = (("authorization", f"bearer {server.token}"),)
        await JobServiceStub(channel).ListJobs(pb.ListJobsRequest(limit=1), metadata=metadata)
    headers = {"authorization": f"bearer {server.token}"}
    async with rest.session.get(f"{rest.url}/v1/jobs", headers=headers) as response:
        assert response.status == 200


@pytest.mark.parametrize("name", ["access_token", "token", "authorization", "key"])
async def test_a_token_in_a_url_or_a_cookie_is_not_seen(server: RunningServer, rest: RestDoor, name: str) -> None:
    """Row 5: URLs end up in logs and histories, and browsers send cookies by themselves."""
    for value in (server.token, f"Bearer {server.token}"):
        async with rest.session.get(f"{rest.url}/v1/jobs", params={name: value}) as response:
            assert (response.status, (await response.json())["error_code"]) == (401, "E_AUTH_MISSING")
        async with rest.session.get(f"{rest.url}/v1/jobs", headers={"Cookie": f"{name}={value}"}) as response:
            assert (response.status, (await response.json())["error_code"]) == (401, "E_AUTH_MISSING")


async def test_a_list_can_not_be_widened(door: Door, rest: RestDoor) -> None:
    """Row 7: by a filter that there is none of, or by a page of another caller's."""
    for _ in range(2):
        await rest.create("true", workspace_id="pages")
    page = await door.call("ListJobs", limit=1)
    bound = with_token(door, (await issue(rest, scopes=["jobs:read"], workspaces=["pages"]))[1])
    for request in ({"owner": "*"}, {"limit": 1, "page_token": page["next_page_token"]}):
        with pytest.raises(Refused) as refused:
            await bound.call("ListJobs", **request)
        assert refused.value.error_code == "E_VALIDATION"


async def test_a_viewer_changes_nothing_and_the_attempt_is_told(door: Door, rest: RestDoor) -> None:
    """Row 8: refused for its scope, with an entry in the audit log that says who tried what on which job."""
    job_id = (await rest.create("sleep", "600"))["job_id"]
    token_id, token = await issue(rest, scopes=["jobs:read"])
    viewer = with_token(door, token)
    for verb, request in (("CreateJob", {"spec": {"command": ["true"]}}), ("CancelJob", {"job_id": job_id})):
        with pytest.raises(Refused) as refused:
            await viewer.call(verb, **request)
        assert (refused.value.error_code, refused.value.status) in (
            ("E_FORBIDDEN", 403),
            ("E_FORBIDDEN", "PERMISSION_DENIED"),
        )
    entries = await eventually(lambda: audited(rest, token_id=token_id), until=lambda found: len(found) == 2)
    assert [(it["method"].rpartition("/")[2], it["decision"], it["reason"]) for it in reversed(entries)] == [
        ("CreateJob", "denied", "FORBIDDEN"),
        ("CancelJob", "denied", "FORBIDDEN"),
    ]
    assert entries[0]["object"] == job_id
    assert (await door.get(job_id))["state"] in ("queued", "running")
    await door.cancel(job_id)
    [allowed, *_] = await audited(rest, job_id=job_id)
    assert (allowed["decision"], allowed["method"]) == ("allowed", "jobledger.v1.JobService/CancelJob")
    await door.ended(job_id)


@pytest.fixture
async def silent_job(rest: RestDoor) -> AsyncIterator[str]:
    job_id = (await rest.create("sleep", "600"))["job_id"]
    await eventually(lambda: rest.get(job_id), until=lambda job: job["state"] == "running")
    yield job_id
    await rest.cancel(job_id, grace_period="0s")
    await rest.ended(job_id)


async def test_what_a_token_has_open_ends_when_it_is_revoked(
    server: RunningServer, rest: RestDoor, silent_job: str
) -> None:
    """Row 9, gRPC: streams and a wait, in mid-course."""
    token_id, token = await issue(rest, scopes=["jobs:read"])
    metadata = (("authorization", f"Bearer {token}"),)
    async with grpc.aio.insecure_channel(server.target) as channel, asyncio.timeout(SECONDS):
        stub = JobServiceStub(channel)
        calls: list[Any] = [
            stub.WatchEvents(pb.WatchEventsRequest(), metadata=metadata),
            stub.TailLogs(pb.TailLogsRequest(job_id=silent_job), metadata=metadata),
        ]
        for call in calls:
            await call.initial_metadata()
        wait = stub.WaitJob(pb.WaitJobRequest(job_id=silent_job), metadata=metadata)
        await stub.GetJob(pb.GetJobRequest(job_id=silent_job), metadata=metadata)
        await post(rest, f"/v1/tokens/{token_id}/revoke", {})
        for call in calls:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                _ = [item async for item in call]
            assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert await wait.code() is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize("path", ["/v1/stream", "/v1/jobs/{job_id}/logs/tail"])
async def test_a_stream_of_server_sent_events_tells_that_its_token_was_revoked(
    rest: RestDoor, silent_job: str, path: str
) -> None:
    """Row 9, REST: a marker as the last event, so that a cut is not taken for the end."""
    token_id, token = await issue(rest, scopes=["jobs:read"])
    headers = {"Authorization": f"Bearer {token}", "Accept": "text/event-stream"}
    url = rest.url + path.replace("{job_id}", silent_job)
    async with asyncio.timeout(SECONDS), rest.session.get(url, headers=headers) as response:
        assert response.status == 200
        await post(rest, f"/v1/tokens/{token_id}/revoke", {})
        events = [event async for event in server_sent(response.content)]
    assert json.loads(events[-1]["data"])["error_code"] == "E_AUTH_INVALID"


async def test_a_wait_over_rest_ends_with_its_token(rest: RestDoor, silent_job: str) -> None:
    """Row 9, REST: an answer of its own, and the connection stays good."""
    token_id, token = await issue(rest, scopes=["jobs:read"])
    bound = RestDoor(rest.session, rest.url, token)
    waiting = asyncio.create_task(bound.call("WaitJob", job_id=silent_job, timeout="60s"))
    await bound.get(silent_job)
    await post(rest, f"/v1/tokens/{token_id}/revoke", {})
    async with asyncio.timeout(SECONDS):
        with pytest.raises(Refused) as refused:
            await waiting
    assert (refused.value.status, refused.value.error_code) == (401, "E_AUTH_INVALID")


async def test_a_thousand_watches_of_one_token_leave_the_others_alone(rest: RestDoor) -> None:
    """Row 26: beyond a hundred they are refused, at once, and told when to come back."""
    _, token = await issue(rest, scopes=["jobs:read"])
    headers = {"Authorization": f"Bearer {token}", "Accept": "text/event-stream"}
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
        for _ in range(MOST_STREAMS):
            response = await stack.enter_async_context(session.get(f"{rest.url}/v1/stream", headers=headers))
            assert response.status == 200
        for _ in range(WATCHES - MOST_STREAMS):
            async with session.get(f"{rest.url}/v1/stream", headers=headers) as response:
                assert (response.status, (await response.json())["error_code"]) == (429, "E_RATE_LIMITED")
                assert int(response.headers["Retry-After"]) > 0
        async for event in rest.events(resume_from=0):
            assert event["sequence_number"] >= 1
            break


def test_the_audit_log_and_the_token_are_shown_to_who_may_and_asks(server: RunningServer) -> None:
    """By the program: entries one a line for other programs; the token itself only with --reveal."""
    made = run_cli(server, "token", "create", "--name", "shown", "--scope", "jobs:read", "--json")
    token_id = json.loads(made.stdout)["info"]["token_id"]
    shown = run_cli(server, "audit", "--json", "--since", "1h", "--limit", "1000")
    entries = [json.loads(line) for line in shown.stdout.splitlines()]
    [entry] = [it for it in entries if it["object"] == token_id]
    assert (entry["method"], entry["decision"]) == ("jobledger.v1.EngineService/CreateToken", "allowed")
    assert entry["peer"]
    assert [it["number"] for it in entries] == sorted(it["number"] for it in entries)
    assert token_id in run_cli(server, "audit").stdout
    masked, revealed = run_cli(server, "token", "show"), run_cli(server, "token", "show", "--reveal")
    assert server.token not in masked.stdout
    assert server.token in revealed.stdout
