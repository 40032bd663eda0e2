"""The operators' view."""

from typing import Any

import pytest
from gateway.client import Client
from gateway.engine import Engine, Refusal
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from jobledger.v1 import engine_service_pb2, job_pb2, job_service_pb2

CANCEL = "/gateway/jobs/job_1/cancel"


def live(state: job_pb2.JobState.ValueType, **fields: Any) -> job_service_pb2.LiveJob:
    return job_service_pb2.LiveJob(job_id="job_1", workspace_id="w", state=state, **fields)


async def test_the_list_has_exactly_these_fields(client: Client, engine: Engine) -> None:
    job = live(job_pb2.JOB_STATE_RUNNING, started_at=Timestamp(seconds=1, nanos=5_999_999), queued_followups=2)
    engine.on("ListLiveJobs", job_service_pb2.ListLiveJobsResponse(jobs=[job], total=7))
    answer = await client.get("/gateway/jobs")
    shown = answer.json
    assert shown.pop("generated_unix_ms") > 1_700_000_000_000
    assert shown == {
        "schema_version": 1,
        "total_jobs": 7,
        "jobs": [
            {
                "job_id": "job_1",
                "workspace_id": "w",
                "status": "running",
                "started_unix_ms": 1005,
                "last_activity_unix_ms": None,
                "queued_followups": 2,
            }
        ],
    }


@pytest.mark.parametrize(
    ("state", "error_code", "status"),
    [
        (1, None, "queued"),
        (3, None, "cancelling"),
        (4, None, "completed"),
        (5, "E_JOB_EXIT_NONZERO", "failed"),
        (5, "E_JOB_TIMED_OUT", "timed_out"),
        (6, None, "cancelled"),
    ],
)
async def test_a_status_is_the_state_but_for_a_timeout(
    client: Client, engine: Engine, state: Any, error_code: str | None, status: str
) -> None:
    engine.on("ListLiveJobs", job_service_pb2.ListLiveJobsResponse(jobs=[live(state, error_code=error_code)]))
    assert (await client.get("/gateway/jobs")).json["jobs"][0]["status"] == status


async def test_history_has_pages(client: Client, engine: Engine) -> None:
    engine.on("ListLiveJobs", job_service_pb2.ListLiveJobsResponse(next_page_token="t"))
    assert (await client.get("/gateway/jobs?scope=all&limit=1")).json["next_page_token"] == "t"
    assert "next_page_token" not in (await client.get("/gateway/jobs")).json
    engine.on("ListLiveJobs", job_service_pb2.ListLiveJobsResponse())
    assert (await client.get("/gateway/jobs?scope=all")).json["next_page_token"] is None
    assert engine.requests("ListLiveJobs")[0].limit == 1


async def test_the_status_tells_where_everything_is(client: Client, engine: Engine) -> None:
    status = engine_service_pb2.EngineStatus(name="jobledger", version="1", health="ok", uptime_ms=5, active_jobs=2)
    engine.on("GetStatus", status)
    assert (await client.get("/gateway/status")).json == {
        "schema_version": 1,
        "service": {
            "name": "jobledger",
            "version": "1",
            "health": "ok",
            "uptime_ms": 5,
            "active_jobs": 2,
            "queue_depth": 0,
        },
        "gateway": {
            "web_ui": {
                "jobs_endpoint": "/gateway/jobs",
                "job_cancel_endpoint_template": "/gateway/jobs/{job_id}/cancel",
                "status_endpoint": "/gateway/status",
                "stream_endpoint": "/v1/stream",
                "docs_endpoint": "/docs",
            }
        },
    }


def cancelling(engine: Engine, then: job_pb2.JobState.ValueType) -> None:
    """A job that is in the state `then` when CancelJob has waited for it."""
    at = None if then == job_pb2.JOB_STATE_CANCELLING else Timestamp(seconds=2)
    engine.on("CancelJob", job_service_pb2.CancelJobResponse(job_id="job_1", state=then, completed_at=at))


async def test_cancelling_waits_until_the_job_is_dead(client: Client, engine: Engine) -> None:
    cancelling(engine, job_pb2.JOB_STATE_CANCELLED)
    answer = await client.post(CANCEL, json={"grace_period": "1s"})
    assert answer.status == 200
    assert answer.json == {
        "schema_version": 1,
        "job_id": "job_1",
        "status": "cancelled",
        "cancelled_unix_ms": 2000,
    }
    [asked] = engine.requests("CancelJob")
    assert asked == job_service_pb2.CancelJobRequest(job_id="job_1", grace_period=Duration(seconds=1), wait=True)
    assert [call.method for call in engine.calls] == ["CancelJob"]


async def test_a_job_that_outlives_the_wait_is_still_being_cancelled(client: Client, engine: Engine) -> None:
    cancelling(engine, job_pb2.JOB_STATE_CANCELLING)
    answer = await client.post(CANCEL)
    assert answer.status == 202
    assert (answer.json["status"], answer.json["cancelled_unix_ms"]) == ("cancelling", None)


async def test_a_job_that_ends_by_itself_meanwhile_had_finished(client: Client, engine: Engine) -> None:
    cancelling(engine, job_pb2.JOB_STATE_COMPLETED)
    answer = await client.post(CANCEL)
    assert (answer.status, answer.json["error"]["code"]) == (409, "job_already_finished")


@pytest.mark.parametrize(
    ("reason", "status", "kind", "code"),
    [
        ("JOB_NOT_FOUND", 404, "invalid_request_error", "job_not_found"),
        ("JOB_ALREADY_FINISHED", 409, "invalid_request_error", "job_already_finished"),
        ("AUTH_INVALID", 401, "invalid_request_error", "unauthorized"),
        ("AUTH_TOKEN_EXPIRED", 401, "invalid_request_error", "unauthorized"),
        ("FORBIDDEN", 403, "invalid_request_error", "forbidden"),
        ("ENGINE_SAFE_MODE", 503, "server_error", "engine_safe_mode"),
        ("INTERNAL", 500, "server_error", "internal"),
    ],
)
async def test_errors_have_the_dashboards_shape(
    client: Client, engine: Engine, reason: str, status: int, kind: str, code: str
) -> None:
    engine.on("CancelJob", Refusal(reason, "why"))
    answer = await client.post(CANCEL)
    assert answer.status == status
    assert answer.json == {"error": {"type": kind, "code": code, "message": "why"}}
    assert ("WWW-Authenticate" in answer.headers) == (status == 401)


@pytest.mark.parametrize("segment", ["%20", "%20%E2%80%83"])
async def test_a_blank_id_is_invalid(client: Client, engine: Engine, segment: str) -> None:
    answer = await client.post(f"/gateway/jobs/{segment}/cancel")
    assert (answer.status, answer.json["error"]["code"]) == (400, "invalid_job_id")
    assert engine.requests("CancelJob") == []


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/gateway", 404, "not_found"),
        ("GET", "/gateway/nope", 404, "not_found"),
        ("GET", "/gateway/jobs/", 404, "not_found"),
        ("PUT", "/gateway/jobs", 405, "method_not_allowed"),
        ("GET", "/gateway/jobs?nope=1", 422, "validation"),
        ("POST", "/gateway/jobs/%zz/cancel", 400, "bad_request"),
    ],
)
async def test_errors_of_the_gateway_have_it_too(
    client: Client, method: str, path: str, status: int, code: str
) -> None:
    answer = await client.ask(method, path)
    assert (answer.status, answer.json["error"]["code"]) == (status, code)
    stranger = await client.ask(method, path, token=None)
    assert (stranger.status, stranger.json["error"]["code"]) == (401, "unauthorized")


async def test_an_absolute_target_has_the_dashboards_errors_too(client: Client) -> None:
    answer = await client.line(b"GET http://localhost/gateway/nope HTTP/1.1")
    assert answer.json["error"]["code"] == "not_found"


async def test_a_name_that_only_begins_alike_is_no_dashboard(client: Client) -> None:
    assert "error_code" in (await client.get("/gatewayx")).json
