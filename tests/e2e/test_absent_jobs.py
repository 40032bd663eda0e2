"""A job that a caller may not see is an absent one: the same bytes, by every way to name it, through both doors."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import grpc
from google.protobuf.message_factory import GetMessageClass
from jobledger_server.core.policy import SERVICES
from support.doors import RestDoor
from support.running import RunningServer
from support.tokens import issue

ABSENT = f"job_{'0' * 26}"


def methods() -> Iterator[tuple[str, Any]]:
    for service in SERVICES:
        yield from ((f"/{service.full_name}/{method.name}", method) for method in service.methods)


async def test_another_ones_job_is_byte_for_byte_an_absent_one(rest: RestDoor, server: RunningServer) -> None:
    """Row 6: every method that names a job, and every path."""
    hidden = (await rest.create("echo", "hidden", workspace_id="hidden"))["job_id"]
    await rest.ended(hidden)
    _, token = await issue(rest, scopes=["jobs:read", "jobs:cancel", "jobs:create", "admin"], workspaces=["open"])
    metadata = (("authorization", f"Bearer {token}"),)
    named = [(name, method) for name, method in methods() if _naming(method, ABSENT)]
    assert {"CreateJob", "CancelJobs", "GetJob"} <= {name.rpartition("/")[2] for name, _ in named}
    assert len(named) >= 13
    async with grpc.aio.insecure_channel(server.target) as channel:
        for name, method in named:
            answers = []
            for job_id in (hidden, ABSENT):
                request = GetMessageClass(method.input_type)(**_naming(method, job_id))
                answer = await _answer(channel, name, method, request.SerializeToString(), metadata)
                # What was asked for is named in return, and is all that differs.
                answers.append(repr(answer).replace(job_id, ABSENT))
            assert answers[0] == answers[1], name
            assert "NOT_FOUND" in answers[0] or "administer the engine" in answers[0], name
    async with rest.session.get(f"{rest.url}/v1/openapi.json") as response:
        paths = (await response.json())["paths"]
    headers = {"Authorization": f"Bearer {token}"}
    for path, item in paths.items():
        for method in ("get", "post", "delete"):
            if "{job_id}" in path and method in item:
                bodies = []
                for job_id in (hidden, ABSENT):
                    url = rest.url + path.replace("{job_id}", job_id).replace("{artifact_id}", "1")
                    async with rest.session.request(method, url, headers=headers) as it:
                        bodies.append((it.status, _lasting(it.headers), await it.read()))
                assert bodies[0] == bodies[1], path
                assert bodies[0][0] >= 400


async def test_a_body_that_names_another_ones_job_is_answered_as_for_an_absent_one(
    rest: RestDoor, server: RunningServer
) -> None:
    """Row 6: REST, where the job is not in the path."""
    hidden = (await rest.create("echo", "hidden", workspace_id="hidden"))["job_id"]
    await rest.ended(hidden)
    _, token = await issue(rest, scopes=["jobs:read", "jobs:create", "jobs:cancel"], workspaces=["open"])
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    asked: list[tuple[str, dict[str, Any]]] = [
        ("/v1/jobs", {"spec": {"rerun_of": ABSENT}}),
        ("/v1/jobs", {"spec": {"rerun_of": ABSENT, "command": ["true"], "workspace_id": "open"}}),
        ("/v1/jobs:cancel", {"job_id": [ABSENT]}),
    ]
    for path, body in asked:
        answers = []
        for job_id in (hidden, ABSENT):
            text = json.dumps(body).replace(ABSENT, job_id)
            async with rest.session.post(rest.url + path, data=text, headers=headers) as it:
                answers.append((it.status, _lasting(it.headers), (await it.text()).replace(job_id, ABSENT)))
        assert answers[0] == answers[1], path
        assert "E_JOB_NOT_FOUND" in answers[0][2]


def _lasting(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    """All but what is different of any two answers."""
    return [(name, value) for name, value in headers.items() if name.lower() not in ("date", "x-request-id")]


def _naming(method: Any, job_id: str) -> dict[str, Any]:
    """What a request says to name a job; empty where it can't."""
    fields = {field.name: field for field in method.input_type.fields}
    if method.name == "CreateJob":
        return {"spec": {"rerun_of": job_id}}
    if method.name == "CancelJobs":
        return {"job_id": [job_id]}
    return {"job_id": job_id} if "job_id" in fields and not fields["job_id"].is_repeated else {}


async def _answer(channel: Any, name: str, method: Any, request: bytes, metadata: Any) -> Any:
    call = (channel.unary_stream if method.server_streaming else channel.unary_unary)(name)(request, metadata=metadata)
    try:
        return [item async for item in call] if method.server_streaming else await call
    except grpc.aio.AioRpcError as error:
        begun = {name: value for name, value in await call.initial_metadata() if name != "x-request-id"}
        return error.code(), error.details(), begun, sorted(error.trailing_metadata() or ())
