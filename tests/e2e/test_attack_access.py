"""What those try who have no token, a wrong one, or one that may do less: each attack through both doors."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import grpc
import pytest
from jobledger.v1 import job_service_pb2 as pb
from jobledger.v1.job_service_pb2_grpc import JobServiceStub
from jobledger_server.core.policy import SERVICES
from support.bare import METHOD, said_over_grpc, said_over_rest
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


FORGED: dict[str, list[bytes]] = {
    "not ASCII": ["Bearer jl_abcdefgh_é".encode()],
    "no UTF-8": [b"Bearer jl_abcdefgh_\xff\xfe"],
    "NUL": [b"Bearer jl_abcdefgh_A\0A"],
    "7 KB": [b"Bearer jl_abcdefgh_" + b"A" * 7000],
    "8 KiB": [b"Bearer jl_abcdefgh_" + b"A" * 8192],
    "twice": [b"Bearer {token}", b"Bearer {token}"],
    "two kinds": [b"Bearer {token}", b"Basic dTpw"],
    "basic": [b"Basic dTpw"],
    "no scheme": [b"{token}"],
}


@pytest.mark.parametrize("name", FORGED)
async def test_credentials_of_another_form_are_refused(server: RunningServer, name: str) -> None:
    """Rows 3 and 4, REST. What HTTP or a limit of the transport does not admit does not come as far as the token."""
    values = [value.replace(b"{token}", server.token.encode()) for value in FORGED[name]]
    lines = [b"authorization: " + value for value in values]
    of_transport = {"NUL": (400, "E_BAD_REQUEST"), "8 KiB": (431, "E_HEADERS_TOO_LARGE")}
    assert await said_over_rest(server, *lines) == of_transport.get(name, (401, "E_AUTH_MALFORMED"))


@pytest.mark.parametrize("name", FORGED)
async def test_metadata_of_another_form_is_refused(server: RunningServer, name: str) -> None:
    """Rows 3 and 4, gRPC: in frames by hand, for gRPC's own client does not send what is not ASCII."""
    values = [value.replace(b"{token}", server.token.encode()) for value in FORGED[name]]
    code, message = await said_over_grpc(server, *(("authorization", value) for value in values))
    assert code == grpc.StatusCode.UNAUTHENTICATED.value[0]
    assert message == "The credentials are not one 'Bearer jl_<id>_<secret>'"


@pytest.mark.parametrize(
    ("size", "code"), [(8192, "UNAUTHENTICATED"), (15_000, "UNAUTHENTICATED"), (16_384, "RESOURCE_EXHAUSTED")]
)
async def test_a_long_token_is_refused_by_its_length_and_not_by_chance(
    server: RunningServer, size: int, code: str
) -> None:
    """Row 3, gRPC: between its two limits of metadata it refuses some."""
    metadata = (("authorization", f"Bearer jl_abcdefgh_{'A' * size}"),)
    async with grpc.aio.insecure_channel(server.target) as channel:
        for _ in range(5):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await JobServiceStub(channel).ListJobs(pb.ListJobsRequest(limit=1), metadata=metadata)
            assert refused.value.code().name == code


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
    """Row 5: URLs end up in logs and histories, and browsers send cookies by themselves. Nor in other metadata."""
    for value in (server.token, f"Bearer {server.token}"):
        other = [(other, value.encode()) for other in ("cookie", f"x-{name}")]
        code, message = await said_over_grpc(server, *other, method=f"{METHOD}?{name}={value}")
        assert (code, message[:8]) == (grpc.StatusCode.UNAUTHENTICATED.value[0], "No token")
        code, message = await said_over_grpc(server, *other)
        assert (code, message[:8]) == (grpc.StatusCode.UNAUTHENTICATED.value[0], "No token")
        async with rest.session.get(f"{rest.url}/v1/jobs", params={name: value}) as response:
            assert (response.status, (await response.json())["error_code"]) == (401, "E_AUTH_MISSING")
        async with rest.session.get(f"{rest.url}/v1/jobs", headers={"Cookie": f"{name}={value}"}) as response:
            assert (response.status, (await response.json())["error_code"]) == (401, "E_AUTH_MISSING")
    assert server.token not in output_file(server.data_dir).read_text()


@pytest.mark.parametrize(
    ("first", "lines"),
    [
        (b"GET /v1/nothing HTTP/1.1", [b"Host: evil.example"]),
        (b"POST /v1/jobs HTTP/1.1", [b"Host: 127.0.0.1:1"]),
        (b"OPTIONS /gateway/jobs HTTP/1.1", [b"Host: localhost:1"]),
        (b"GET http://evil.example/v1/jobs HTTP/1.1", []),
        (b"GET /v1/jobs HTTP/1.1", [b"Host: evil.example", b"Authorization: Bearer {token}"]),
    ],
    ids=["name", "port", "preflight", "absolute", "token"],
)
async def test_another_host_is_told_so_before_token_and_path(
    server: RunningServer, first: bytes, lines: list[bytes]
) -> None:
    """Row 11: what a name that was bound anew to this machine leads to."""
    sent = [line.replace(b"{token}", server.token.encode()) for line in lines]
    status, code = await said_over_rest(server, *sent, first=first)
    assert (status, code.removeprefix("E_").lower()) == (421, "host_not_allowed")


@pytest.mark.parametrize("origin", [b"http://evil.example", b"null"])
async def test_a_page_can_neither_call_nor_ask_whether_it_may(server: RunningServer, origin: bytes) -> None:
    """Row 12: with the token of a user, without, and in a preflight, as the server is by default."""
    mine = b"Authorization: Bearer " + server.token.encode()
    preflight = [b"Access-Control-Request-Method: POST", b"Access-Control-Request-Private-Network: true"]
    for first, lines in (
        (b"GET /v1/jobs HTTP/1.1", [mine]),
        (b"GET /v1/nothing HTTP/1.1", []),
        (b"OPTIONS /v1/jobs HTTP/1.1", preflight),
    ):
        said = await said_over_rest(server, b"Origin: " + origin, *lines, first=first)
        assert said == (403, "E_FORBIDDEN")
    form = [mine, b"Content-Type: text/plain", b"Content-Length: 2"]
    said = await said_over_rest(server, *form, first=b"POST /v1/jobs HTTP/1.1", body=b"{}")
    assert said == (415, "E_UNSUPPORTED_MEDIA_TYPE")


async def test_a_list_can_not_be_widened(door: Door, rest: RestDoor, server: RunningServer) -> None:
    """Row 7: by a filter that there is none of, by one that would match all, or by a page of another caller's.

    A field that a message of gRPC has too many is overlooked, as protobuf has it: the list stays as it is.
    """
    for workspace in ("pages", "others", "others"):
        await rest.create("true", workspace_id=workspace)
    page = await door.call("ListJobs", limit=1)
    _, token = await issue(rest, scopes=["jobs:read"], workspaces=["pages"])
    bound = with_token(door, token)
    mine = (await bound.call("ListJobs"))["total"]
    foreign: list[dict[str, Any]] = [{"limit": 1, "page_token": page["next_page_token"]}]
    for request in foreign + ([{"owner": "*"}] if door.name == "rest" else []):
        with pytest.raises(Refused) as refused:
            await bound.call("ListJobs", **request)
        assert refused.value.status == {"grpc": "INVALID_ARGUMENT", "rest": 422}[door.name]
        assert [it["field"] for it in refused.value.details["fields"]] == [[*request][-1]]
    for widened in ({"workspace_id": "*"}, {"workspace_id": "others"}, {"search": "%"}, {"search": "job_%"}):
        assert (await bound.call("ListJobs", **widened))["total"] == 0
    async with grpc.aio.insecure_channel(server.target) as channel:
        call: Any = channel.unary_unary(METHOD, response_deserializer=pb.ListJobsResponse.FromString)
        answer = await call(b"\xfa\x3f\x01*", metadata=(("authorization", f"Bearer {token}"),))
    assert answer.total == mine == len(answer.jobs)
    assert {job.workspace_id for job in answer.jobs} == {"pages"}


async def test_a_viewer_changes_nothing_and_the_attempt_is_told(door: Door, rest: RestDoor) -> None:
    """Row 8: refused for its scope, with an entry in the audit log that says who tried what on which job."""
    job_id = (await rest.create("sleep", "600"))["job_id"]
    token_id, token = await issue(rest, scopes=["jobs:read"])
    viewer = with_token(door, token)
    for verb, request in (("CreateJob", {"spec": {"command": ["true"]}}), ("CancelJob", {"job_id": job_id})):
        with pytest.raises(Refused) as refused:
            await viewer.call(verb, **request)
        denied = {"grpc": "PERMISSION_DENIED", "rest": 403}[door.name]
        assert (refused.value.error_code, refused.value.status) == ("E_FORBIDDEN", denied)
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
