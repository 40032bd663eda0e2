"""A job record as columns, and back."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from jobledger.v1.job_pb2 import Job, JobPriority, JobState

from jobledger_server.core.ports import CancelIntent, JobRecord, Origin
from jobledger_server.core.times import micros

# The columns in the order that `record_of` takes them.
SELECT_RECORDS = (
    "SELECT number, job, last_activity_at, eligible_at, concurrency_groups,"
    " cancel_requested_at, cancel_requested_by, cancel_reason, cancel_grace_seconds, origin FROM jobs"
)

NO_GROUPS = "[]"

TERMINAL = frozenset({JobState.JOB_STATE_COMPLETED, JobState.JOB_STATE_FAILED, JobState.JOB_STATE_CANCELLED})


def record_of(row: Sequence[Any]) -> JobRecord:
    """The record of a row of SELECT_RECORDS."""
    number, job, last_activity_at, eligible_at, groups, requested_at, requested_by, reason, grace_seconds, origin = row
    cancel = None
    if requested_at is not None:
        cancel = CancelIntent(
            requested_at=requested_at, requested_by=requested_by, reason=reason, grace_seconds=grace_seconds
        )
    return JobRecord(
        job=Job.FromString(job),
        number=number,
        last_activity_at=last_activity_at,
        eligible_at=eligible_at,
        cancel=cancel,
        concurrency_groups=() if groups == NO_GROUPS else tuple(json.loads(groups)),
        origin=None if origin is None else Origin(**json.loads(origin)),
    )


def columns_of(record: JobRecord) -> Mapping[str, Any]:
    """Every column of the record but its number."""
    job, cancel = record.job, record.cancel
    return {
        "job_id": job.job_id,
        "state": job.state,
        "attempt": job.attempt,
        "job_type": job.job_type,
        "workspace_id": job.workspace_id,
        "priority": job.spec.priority or JobPriority.JOB_PRIORITY_NORMAL,
        "created_at": micros(job.created_at),
        "queued_at": _instant(job.queued_at, job.HasField("queued_at")),
        "started_at": _instant(job.started_at, job.HasField("started_at")),
        "completed_at": _instant(job.completed_at, job.HasField("completed_at")),
        "eligible_at": record.eligible_at,
        "last_activity_at": record.last_activity_at,
        "cancel_requested_at": cancel and cancel.requested_at,
        "cancel_requested_by": cancel and cancel.requested_by,
        "cancel_reason": cancel and cancel.reason,
        "cancel_grace_seconds": cancel and cancel.grace_seconds,
        "concurrency_groups": groups_column(record.concurrency_groups),
        "origin": record.origin and _origin_column(record.origin),
        "job": job.SerializeToString(deterministic=True),
    }


def row_of(number: int, columns: Mapping[str, Any]) -> Sequence[Any]:
    """The row that SELECT_RECORDS reads once these columns are stored."""
    return (
        number,
        columns["job"],
        columns["last_activity_at"],
        columns["eligible_at"],
        columns["concurrency_groups"],
        columns["cancel_requested_at"],
        columns["cancel_requested_by"],
        columns["cancel_reason"],
        columns["cancel_grace_seconds"],
        columns["origin"],
    )


def groups_column(groups: Sequence[str]) -> str:
    """Concurrency groups as their column has them."""
    return json.dumps(groups)


def _origin_column(origin: Origin) -> str:
    return json.dumps({"attempt": origin.attempt, "inputs": {**origin.inputs}, "source_pins": {**origin.source_pins}})


def _instant(value: Timestamp, is_set: bool) -> int | None:
    return micros(value) if is_set else None
