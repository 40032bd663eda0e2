"""Jobs as their receipts tell them, for a database that is made anew."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobledger.v1.job_pb2 import (
    ARTIFACT_STATUS_COMPLETE,
    ARTIFACT_STATUS_QUARANTINED,
    JOB_STATE_CANCELLED,
    JOB_STATE_COMPLETED,
    JOB_STATE_FAILED,
    Artifact,
    Job,
)

from jobledger_server.archive.believing import Believed
from jobledger_server.core.ports import CancelIntent, JobRecord, LogSummary, StoredReceipt
from jobledger_server.core.retention import kept_of
from jobledger_server.core.times import micros
from jobledger_server.stores.sqlite.rebuild import KeptJob

STATES = {"completed": JOB_STATE_COMPLETED, "failed": JOB_STATE_FAILED, "cancelled": JOB_STATE_CANCELLED}
TIMES = {"created": "created_at", "started": "started_at", "completed": "completed_at"}


@dataclass(kw_only=True)
class Rebuilding:
    """Turns receipts into jobs, and keeps count of what becomes of them.

    Attributes:
        blobs: directory of the artifacts' bytes.
        deleted: jobs that were deleted after they had been archived.
        job_ids: of all receipts.
        jobs: how many come back as jobs; the others were deleted, and their receipts stay.
        damaged: job and path of each artifact whose bytes are gone or others; it comes back quarantined.
        events: the highest number of an event that was seen.
    """

    blobs: Path
    deleted: frozenset[str] = frozenset()
    job_ids: set[str] = field(default_factory=set)
    jobs: int = 0
    damaged: list[tuple[str, str]] = field(default_factory=list)
    events: int = 0
    _checked: dict[str, bool] = field(default_factory=dict)

    def kept(self, receipts: Iterable[Believed]) -> Iterator[KeptJob]:
        for believed in receipts:
            self.job_ids.add(believed.receipt["job_id"])
            self.events = max(self.events, believed.events)
            self.jobs += not self._is_deleted(believed)
            yield self._kept(believed)

    def _kept(self, believed: Believed) -> KeptJob:
        sealed, receipt = believed.job, believed.receipt
        stored = StoredReceipt(
            receipt=believed.receipt_bytes,
            envelope=sealed.envelope,
            leaf=sealed.leaf,
            leaf_index=sealed.leaf_index,
            workspace_id=sealed.workspace_id,
        )
        if sealed.job is None or self._is_deleted(believed):
            return KeptJob(job_id=receipt["job_id"], receipt=stored)
        record = record_of(sealed.job, receipt, number=sealed.number)
        summary = receipt["summary"]
        worst = LogSummary(warnings=summary["warnings_count"], errors=summary["errors_count"])
        return KeptJob(
            job_id=record.job.job_id,
            receipt=stored,
            record=record,
            artifacts=[self._artifact(record.job.job_id, it) for it in _receipted(sealed.artifacts, receipt)],
            kept=kept_of(record.job.state, worst),
        )

    def _is_deleted(self, believed: Believed) -> bool:
        return believed.job.job is None or believed.receipt["job_id"] in self.deleted

    def _artifact(self, job_id: str, artifact: Artifact) -> Artifact:
        if artifact.status != ARTIFACT_STATUS_COMPLETE or self._is_there(artifact.sha256):
            return artifact
        self.damaged.append((job_id, artifact.path))
        quarantined = Artifact()
        quarantined.CopyFrom(artifact)
        quarantined.status = ARTIFACT_STATUS_QUARANTINED
        return quarantined

    def _is_there(self, sha256: str) -> bool:
        if sha256 not in self._checked:
            self._checked[sha256] = _hash(self.blobs / sha256[:2] / sha256[2:]) == sha256
        return self._checked[sha256]


def record_of(job: Job, receipt: dict[str, Any], *, number: int) -> JobRecord:
    """The job as it ended. What the receipt tells of it is as the receipt tells it."""
    told, summary = Job(), receipt["summary"]
    told.CopyFrom(job)
    told.job_id, told.run_id, told.attempt = receipt["job_id"], receipt["run_id"], receipt["attempt"]
    told.state, told.created_by = STATES[summary["status"]], receipt["requested_by"]
    told.spec.command[:] = receipt["command"]
    for name, field_name in TIMES.items():
        told.ClearField(field_name)  # type: ignore[arg-type]
        if receipt["timestamps"][name] is not None:
            getattr(told, field_name).FromJsonString(receipt["timestamps"][name])
    for name in ("exit_code", "signal", "error_code", "error_message"):
        told.ClearField(name)  # type: ignore[arg-type]
        if summary[name] is not None:
            setattr(told, name, summary[name])
    return JobRecord(job=told, number=number, last_activity_at=micros(told.completed_at), cancel=_cancel(told, receipt))


def _cancel(job: Job, receipt: dict[str, Any]) -> CancelIntent | None:
    if receipt["cancelled_by"] is None:
        return None
    at = micros(job.cancel_requested_at if job.HasField("cancel_requested_at") else job.completed_at)
    return CancelIntent(requested_at=at, requested_by=receipt["cancelled_by"], reason="", grace_seconds=0)


def _receipted(artifacts: Iterable[Artifact], receipt: dict[str, Any]) -> Iterator[Artifact]:
    """Those that the receipt has, and those that were never collected."""
    outputs = {output["path"]: output["sha256"] for output in receipt["outputs"]}
    for artifact in artifacts:
        told = outputs.get(artifact.path)
        if told is None and artifact.sha256:
            continue
        if told is not None and (told != artifact.sha256 or artifact.status == ARTIFACT_STATUS_QUARANTINED):
            # It was found damaged since: whether it still is shows now.
            artifact.sha256, artifact.status = told, ARTIFACT_STATUS_COMPLETE
        yield artifact


def _hash(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None
