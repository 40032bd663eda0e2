"""A job's artifacts as pure functions: declared while it runs, settled when it ends."""

from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from google.protobuf.timestamp_pb2 import Timestamp
from jobledger.v1.events_pb2 import ArtifactCollected, Event
from jobledger.v1.job_pb2 import (
    ARTIFACT_STATUS_COMPLETE,
    ARTIFACT_STATUS_FAILED,
    ARTIFACT_STATUS_PENDING,
    ARTIFACT_TYPE_OUTPUT,
    ARTIFACT_TYPE_PARTIAL,
    JOB_STATE_COMPLETED,
    Artifact,
    ArtifactStatus,
    Job,
)

from jobledger_server.core.ports import JobChange, JobRecord
from jobledger_server.core.states import ACTIVE
from jobledger_server.core.times import timestamp
from jobledger_server.core.transitions import event_job


class Output(NamedTuple):
    """A file that was collected: path relative to `output/`, bytes, SHA-256 in hex."""

    path: str
    size: int
    sha256: str


def declared(record: JobRecord, attempt: int, paths: Sequence[str], *, first_id: int, now: int) -> JobChange | None:
    """The attempt says that it is going to leave these files. None where it has ended meanwhile.

    Args:
        first_id: ids from here on are reserved for them.
    """
    if record.job.state not in ACTIVE or record.job.attempt != attempt:
        return None
    artifacts = [
        _artifact(record.job, path, number, at=timestamp(now), status=ARTIFACT_STATUS_PENDING)
        for number, path in enumerate(paths, first_id)
    ]
    return JobChange(record=record, artifacts=artifacts, events=events(record.job, artifacts, now))


def settled(job: Job, outputs: Iterable[Output], *, pending: Iterable[Artifact], first_id: int) -> Sequence[Artifact]:
    """What a job that has ended leaves, by path: what was collected, and what was declared and is not there.

    Args:
        pending: what was declared; what becomes of it keeps its id.
        first_id: ids from here on are reserved for the outputs.
    """
    promised = {artifact.path: artifact for artifact in pending}
    artifacts = []
    for number, output in enumerate(outputs, first_id):
        known = promised.pop(output.path, None)
        artifact = _artifact(
            job, output.path, known.id if known else number, at=job.completed_at, status=ARTIFACT_STATUS_COMPLETE
        )
        artifact.size_bytes, artifact.sha256 = output.size, output.sha256
        artifacts.append(artifact)
    artifacts += [
        _artifact(job, path, known.id, at=known.created_at, status=ARTIFACT_STATUS_FAILED)
        for path, known in promised.items()
    ]
    return sorted(artifacts, key=lambda artifact: artifact.path)


def events(job: Job, artifacts: Iterable[Artifact], now: int) -> Sequence[Event]:
    """An event for each."""
    return [
        Event(
            event_type="job.artifact",
            timestamp_utc=timestamp(now),
            job=event_job(job),
            artifact=ArtifactCollected(artifact=artifact),
        )
        for artifact in artifacts
    ]


def _artifact(job: Job, path: str, number: int, *, at: Timestamp, status: ArtifactStatus.ValueType) -> Artifact:
    completed = job.state == JOB_STATE_COMPLETED
    return Artifact(
        id=number,
        name=PurePosixPath(path).name,
        path=path,
        artifact_type=ARTIFACT_TYPE_OUTPUT if completed else ARTIFACT_TYPE_PARTIAL,
        status=status,
        created_at=at,
    )
