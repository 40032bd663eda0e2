"""Builders of what the stores hold: coherent by default, so that a test names only what it is about."""

import hashlib
import itertools
from collections.abc import Mapping
from dataclasses import replace

from jobledger.v1.events_pb2 import Event, EventJob, StateChanged
from jobledger.v1.job_pb2 import Artifact, ArtifactStatus, ArtifactType, Job, JobPriority, JobSpec, JobState
from jobledger_server.core.ids import ulid
from jobledger_server.core.ports import (
    CancelIntent,
    IdempotencyKey,
    JobChange,
    JobRecord,
    StoredReceipt,
    TokenRecord,
)
from jobledger_server.core.times import SECOND, timestamp

QUEUED = JobState.JOB_STATE_QUEUED
RUNNING = JobState.JOB_STATE_RUNNING
CANCELLING = JobState.JOB_STATE_CANCELLING
COMPLETED = JobState.JOB_STATE_COMPLETED
FAILED = JobState.JOB_STATE_FAILED
CANCELLED = JobState.JOB_STATE_CANCELLED
STATES = (QUEUED, RUNNING, CANCELLING, COMPLETED, FAILED, CANCELLED)
TERMINAL = (COMPLETED, FAILED, CANCELLED)

# 2026-01-02T03:04:05Z
NOW = 1_767_323_045 * SECOND

_serial = itertools.count(1)


def a_job_id(created_at: int = NOW) -> str:
    """A new id; later ones sort after earlier ones of the same instant."""
    return f"job_{ulid(created_at, next(_serial).to_bytes(10))}"


def a_record(
    state: JobState.ValueType = QUEUED,
    *,
    job_id: str | None = None,
    created_at: int = NOW,
    queued_at: int | None = None,
    started_at: int | None = None,
    job_type: str = "command",
    workspace_id: str = "default",
    labels: Mapping[str, str] | None = None,
    priority: JobPriority.ValueType = JobPriority.JOB_PRIORITY_NORMAL,
    eligible_at: int = 0,
    cancel: CancelIntent | None = None,
    queue: str = "default",
    concurrency_groups: tuple[str, ...] = (),
) -> JobRecord:
    """A record that is not stored yet: of a job that has come as far as `state`, a second a step."""
    job_id = job_id or a_job_id(created_at)
    queued_at = created_at if queued_at is None else queued_at
    job = Job(
        job_id=job_id,
        run_id=job_id.replace("job_", "run_"),
        state=QUEUED,
        job_type=job_type,
        created_at=timestamp(created_at),
        queued_at=timestamp(queued_at),
        workspace_id=workspace_id,
        labels=labels,
        spec=JobSpec(
            job_type=job_type,
            command=["true"],
            labels=labels,
            workspace_id=workspace_id,
            priority=priority,
            queue=queue,
        ),
        created_by="token",
    )
    record = JobRecord(
        job=job,
        last_activity_at=queued_at,
        eligible_at=eligible_at,
        cancel=cancel,
        concurrency_groups=concurrency_groups,
    )
    if state == QUEUED:
        return record
    started = moved(record, RUNNING, at=queued_at + SECOND if started_at is None else started_at)
    return started if state == RUNNING else moved(started, state, at=started.last_activity_at + SECOND)


def moved(record: JobRecord, state: JobState.ValueType, *, at: int | None = None) -> JobRecord:
    """The record after a change of state at an instant, by default a second after its last activity."""
    at = record.last_activity_at + SECOND if at is None else at
    job = Job()
    job.CopyFrom(record.job)
    job.state = state
    if state == RUNNING:
        job.attempt += 1
        job.started_at.CopyFrom(timestamp(at))
    elif state == QUEUED:
        job.queued_at.CopyFrom(timestamp(at))
    elif state == CANCELLING:
        job.cancel_requested_at.CopyFrom(timestamp(at))
    else:
        job.completed_at.CopyFrom(timestamp(at))
    if state == FAILED:
        job.error_code, job.error_message, job.exit_code = "E_JOB_EXIT_NONZERO", "It ended with exit code 1", 1
    return replace(record, job=job, last_activity_at=at)


def a_change(
    record: JobRecord, state: JobState.ValueType, *, at: int | None = None, receipt: StoredReceipt | None = None
) -> JobChange:
    """A change of state with its event."""
    after = moved(record, state, at=at)
    return JobChange(record=after, events=[state_changed(after, record.job.state)], receipt=receipt)


def state_changed(record: JobRecord, old_state: JobState.ValueType | None = None) -> Event:
    """The event of a record's latest change of state."""
    job = record.job
    return Event(
        event_type="job.state_changed",
        timestamp_utc=timestamp(record.last_activity_at),
        job=EventJob(job_id=job.job_id, run_id=job.run_id, workspace_id=job.workspace_id),
        state_changed=StateChanged(old_state=old_state, new_state=job.state, attempt=job.attempt),
    )


def an_event(at: int = NOW) -> Event:
    """An event of no job."""
    return Event(event_type="engine.shutting_down", timestamp_utc=timestamp(at))


def a_key(
    key: str = "key",
    *,
    principal: str = "token",
    request: bytes = b"request",
    expires_at: int = NOW + 86_400 * SECOND,
    workspaces: tuple[str, ...] | None = None,
) -> IdempotencyKey:
    return IdempotencyKey(
        principal=principal,
        key=key,
        request_hash=hashlib.sha256(request).digest(),
        expires_at=expires_at,
        workspaces=workspaces,
    )


def a_receipt(job_id: str) -> StoredReceipt:
    receipt = f'{{"job_id":"{job_id}"}}'.encode()
    return StoredReceipt(receipt=receipt, envelope=b"envelope of " + receipt, leaf=hashlib.sha256(receipt).digest())


def an_artifact(artifact_id: int, path: str = "result.txt") -> Artifact:
    return Artifact(
        id=artifact_id,
        name=path.rpartition("/")[2],
        path=path,
        artifact_type=ArtifactType.ARTIFACT_TYPE_OUTPUT,
        size_bytes=6,
        sha256=hashlib.sha256(path.encode()).hexdigest(),
        status=ArtifactStatus.ARTIFACT_STATUS_COMPLETE,
        created_at=timestamp(NOW),
    )


def a_token(token_id: str = "token", *, created_at: int = NOW, name: str = "a token") -> TokenRecord:
    return TokenRecord(
        token_id=token_id,
        digest=hashlib.sha256(token_id.encode()).digest(),
        name=name,
        scopes=("jobs:read", "jobs:create"),
        workspaces=("default", "other"),
        created_at=created_at,
    )
