"""The operators' view under `/gateway`: the same calls as `/v1`, in the shapes that dashboards know."""

import math
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import grpc
from aiohttp import web
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from jobledger.v1 import engine_service_pb2, job_pb2, job_service_pb2

from jobledger_gateway.binding import Binder
from jobledger_gateway.calls import Rpc
from jobledger_gateway.enums import short_names
from jobledger_gateway.errors import GatewayError, Problem, problem, problem_of
from jobledger_gateway.exchange import Exchange

PREFIX = "gateway"
SCHEMA_VERSION = 1

# Cancelling waits for the job's grace period and this margin, in seconds, within what WaitJob allows.
MARGIN = 5.0
DEFAULT_GRACE = 10.0
LONGEST_WAIT = 300.0

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
        self._wait = Rpc(channel, JOBS.methods_by_name["WaitJob"])
        self._get = Rpc(channel, JOBS.methods_by_name["GetJob"])
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
        reply = await self._cancel(request, metadata=exchange.metadata, deadline=exchange.deadline)
        try:
            job = await self._ended(exchange, request)
        except grpc.aio.AioRpcError as failure:
            if problem_of(failure).reason != "FORBIDDEN":
                raise
            # The token may cancel, but not read: the cancellation stands, its time can't be told.
            return _cancelled(request.job_id, reply.message.state, None)
        if job.state in {job_pb2.JOB_STATE_COMPLETED, job_pb2.JOB_STATE_FAILED}:
            raise GatewayError(
                problem("JOB_ALREADY_FINISHED", f"The job {STATES[job.state]} before it could be cancelled"),
                token_first=False,
            )
        return _cancelled(request.job_id, job.state, _millis(job, "completed_at"))

    async def _ended(self, exchange: Exchange, request: Any) -> Any:
        """The job once it has ended, or as it is when the wait is over."""
        current = (await self._get(_get_job(request.job_id), metadata=exchange.metadata)).message
        if current.state != job_pb2.JOB_STATE_CANCELLING:
            return current
        asked = request if request.HasField("grace_period") else current.spec
        grace = _seconds(asked.grace_period) if asked.HasField("grace_period") else DEFAULT_GRACE
        bound = min(grace + MARGIN, LONGEST_WAIT, exchange.deadline or LONGEST_WAIT)
        timeout = Duration(seconds=math.ceil(bound))
        wait = job_service_pb2.WaitJobRequest(job_id=request.job_id, timeout=timeout)
        return (await self._wait(wait, metadata=exchange.metadata)).message


INVALID_JOB_ID = Problem(reason="INVALID_JOB_ID", status=400, message="The job_id is blank")


def _get_job(job_id: str) -> job_service_pb2.GetJobRequest:
    return job_service_pb2.GetJobRequest(job_id=job_id)


def _seconds(span: Duration) -> float:
    return span.seconds + span.nanos / 1e9


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


def _cancelled(job_id: str, state: int, at: int | None) -> web.Response:
    done = state == job_pb2.JOB_STATE_CANCELLED
    shown = {
        "schema_version": SCHEMA_VERSION,
        "job_id": job_id,
        "status": STATES[state],
        "cancelled_unix_ms": at if done else None,
    }
    return web.json_response(shown, status=200 if done else 202)
