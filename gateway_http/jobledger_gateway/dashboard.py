"""The operators' view under `/gateway`: the same calls as `/v1`, in the shapes that dashboards know."""

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import grpc
from aiohttp import web
from google.protobuf.timestamp_pb2 import Timestamp
from jobledger.v1 import engine_service_pb2, job_pb2, job_service_pb2

from jobledger_gateway.binding import Binder
from jobledger_gateway.calls import Rpc
from jobledger_gateway.enums import short_names
from jobledger_gateway.errors import GatewayError, Problem, problem
from jobledger_gateway.exchange import Exchange

PREFIX = "gateway"
SCHEMA_VERSION = 1

STATES = short_names(job_pb2.JobState.DESCRIPTOR)
JOBS = job_service_pb2.DESCRIPTOR.services_by_name["JobService"]

WEB_UI = {
    "jobs_endpoint": "/gateway/jobs",
    "job_cancel_endpoint_template": "/gateway/jobs/{job_id}/cancel",
    "status_endpoint": "/gateway/status",
    "stream_endpoint": "/v1/stream",
    "docs_endpoint": "/docs",
}


def render(told: Problem) -> dict[str, Any]:
    """An error in the dashboards' shape."""
    code = "unauthorized" if told.status == 401 else told.reason.lower()
    kind = "server_error" if told.status >= 500 else "invalid_request_error"
    return {"error": {"type": kind, "code": code, "message": told.message}}


class View:
    """A binding below `/gateway`: the request as its rule says, the answer in the dashboards' shape."""

    def __init__(self, binder: Binder, show: Callable[[Exchange, Any], Awaitable[web.Response]]) -> None:
        self._binder = binder
        self._show = show

    async def answer(self, exchange: Exchange) -> web.StreamResponse:
        return await self._show(exchange, self._binder.bind(exchange.incoming))


class Dashboard:
    """The views, by full name of the method that each binds."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        engine = engine_service_pb2.DESCRIPTOR.services_by_name["EngineService"]
        self._list = Rpc(channel, JOBS.methods_by_name["ListLiveJobs"])
        self._cancel = Rpc(channel, JOBS.methods_by_name["CancelJob"])
        self._status = Rpc(channel, engine.methods_by_name["GetStatus"])
        self.views: Mapping[str, Callable[[Exchange, Any], Awaitable[web.Response]]] = {
            self._list.method.full_name: self.jobs,
            self._cancel.method.full_name: self.cancel,
            self._status.method.full_name: self.status,
        }

    async def jobs(self, exchange: Exchange, request: Any) -> web.Response:
        """The live view, or with `scope=all` a page of all jobs."""
        reply = await self._list(request, metadata=exchange.metadata, deadline=exchange.deadline)
        page = reply.message
        shown: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "generated_unix_ms": time.time_ns() // 1_000_000,
            "total_jobs": page.total,
            "jobs": [_job(job) for job in page.jobs],
        }
        if request.scope == job_service_pb2.LIVE_SCOPE_ALL:
            shown["next_page_token"] = page.next_page_token if page.HasField("next_page_token") else None
        return web.json_response(shown)

    async def status(self, exchange: Exchange, request: Any) -> web.Response:
        """How the service is, and where the other endpoints are."""
        reply = await self._status(request, metadata=exchange.metadata, deadline=exchange.deadline)
        engine = reply.message
        service = {
            name: getattr(engine, name)
            for name in ("name", "version", "health", "uptime_ms", "active_jobs", "queue_depth")
        }
        return web.json_response({"schema_version": SCHEMA_VERSION, "service": service, "gateway": {"web_ui": WEB_UI}})

    async def cancel(self, exchange: Exchange, request: Any) -> web.Response:
        """Cancels and waits until the job is dead, within its grace period and a margin."""
        if not request.job_id.strip():
            raise GatewayError(INVALID_JOB_ID)
        request.wait = True
        job = (await self._cancel(request, metadata=exchange.metadata, deadline=exchange.deadline)).message
        if job.state in {job_pb2.JOB_STATE_COMPLETED, job_pb2.JOB_STATE_FAILED}:
            raise GatewayError(
                problem("JOB_ALREADY_FINISHED", f"The job {STATES[job.state]} before it could be cancelled"),
                token_first=False,
            )
        done = job.state == job_pb2.JOB_STATE_CANCELLED
        shown = {
            "schema_version": SCHEMA_VERSION,
            "job_id": request.job_id,
            "status": STATES[job.state],
            "cancelled_unix_ms": _millis(job, "completed_at") if done else None,
        }
        return web.json_response(shown, status=200 if done else 202)


INVALID_JOB_ID = Problem(reason="INVALID_JOB_ID", status=400, message="The job_id is blank")


def _job(job: job_service_pb2.LiveJob) -> dict[str, Any]:
    timed_out = job.state == job_pb2.JOB_STATE_FAILED and job.error_code == "E_JOB_TIMED_OUT"
    return {
        "job_id": job.job_id,
        "workspace_id": job.workspace_id,
        "status": "timed_out" if timed_out else STATES[job.state],
        "started_unix_ms": _millis(job, "started_at"),
        "last_activity_unix_ms": _millis(job, "last_activity_at"),
        "queued_followups": job.queued_followups,
    }


def _millis(message: Any, name: str) -> int | None:
    """An instant in milliseconds since the epoch; None where it is unset."""
    if not message.HasField(name):
        return None
    instant: Timestamp = getattr(message, name)
    return instant.seconds * 1000 + instant.nanos // 1_000_000
