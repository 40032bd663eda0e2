"""Schemas of the operators' view, for the OpenAPI document."""

from collections.abc import Mapping
from typing import Any

from jobledger_gateway.dashboard import SCHEMA_VERSION, WEB_UI

MILLIS = {"type": ["integer", "null"], "format": "int64", "description": "Milliseconds since the epoch."}
STATUSES = ["queued", "running", "cancelling", "completed", "failed", "timed_out", "cancelled"]


def _object(properties: Mapping[str, Any], *, optional: tuple[str, ...] = ()) -> dict[str, Any]:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "required": required, "properties": dict(properties)}


def _texts(*names: str) -> dict[str, Any]:
    return {name: {"type": "string"} for name in names}


def _numbers(*names: str) -> dict[str, Any]:
    return {name: {"type": "integer", "format": "int64"} for name in names}


VERSION = {"schema_version": {"const": SCHEMA_VERSION}}

COMPONENTS: Mapping[str, Any] = {
    "DashboardJob": _object(
        {
            **_texts("job_id", "workspace_id"),
            "status": {"type": "string", "enum": STATUSES},
            "started_unix_ms": MILLIS,
            "last_activity_unix_ms": MILLIS,
            **_numbers("queued_followups"),
        }
    ),
    "DashboardJobs": _object(
        {
            **VERSION,
            **_numbers("generated_unix_ms", "total_jobs"),
            "jobs": {"type": "array", "items": {"$ref": "#/components/schemas/DashboardJob"}},
            "next_page_token": {"type": ["string", "null"], "description": "Only with `scope=all`."},
        },
        optional=("next_page_token",),
    ),
    "DashboardCancel": _object(
        {
            **VERSION,
            **_texts("job_id"),
            "status": {"type": "string", "enum": ["cancelled", "cancelling"]},
            "cancelled_unix_ms": MILLIS,
        }
    ),
    "DashboardStatus": _object(
        {
            **VERSION,
            "service": _object(
                {**_texts("name", "version", "health"), **_numbers("uptime_ms", "active_jobs", "queue_depth")}
            ),
            "gateway": _object({"web_ui": _object(_texts(*WEB_UI))}),
        }
    ),
    "DashboardError": _object(
        {
            "error": _object(
                {
                    "type": {"type": "string", "enum": ["invalid_request_error", "server_error"]},
                    **_texts("code", "message"),
                }
            )
        }
    ),
}


def _to(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


# By full name of the method: status, what it means, schema.
RESPONSES: Mapping[str, tuple[tuple[int, str, Mapping[str, Any]], ...]] = {
    "jobledger.v1.JobService.ListLiveJobs": ((200, "The jobs.", _to("DashboardJobs")),),
    "jobledger.v1.JobService.CancelJob": (
        (200, "The job is dead.", _to("DashboardCancel")),
        (202, "The job is still being cancelled.", _to("DashboardCancel")),
    ),
    "jobledger.v1.EngineService.GetStatus": ((200, "How the service is.", _to("DashboardStatus")),),
}

# By full name of the method: what it does here, where that differs from what its comment begins with.
TEXTS: Mapping[str, str] = {
    "jobledger.v1.JobService.CancelJob": (
        "Cancels a job and waits until it is dead, within its grace period and 5 s more. Where that passes first the "
        "answer is 202, and the job is still being cancelled. One that was cancelled already answers 200 with the time "
        "at which it was."
    ),
}
