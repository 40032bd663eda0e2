"""Gives a change that ends a job what belongs to it: its artifacts, their events, and the signed receipt."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from jobledger.v1.events_pb2 import ArtifactCollected, Event
from jobledger.v1.job_pb2 import (
    ARTIFACT_STATUS_COMPLETE,
    ARTIFACT_TYPE_OUTPUT,
    ARTIFACT_TYPE_PARTIAL,
    JOB_STATE_COMPLETED,
    Artifact,
)

from jobledger_server.core.ports import JobChange, JobRecord, LogSummary
from jobledger_server.core.receipts import Environment, build_receipt, seal
from jobledger_server.core.states import is_terminal
from jobledger_server.core.times import timestamp
from jobledger_server.core.transitions import event_job
from jobledger_server.service.collecting import Collected
from jobledger_server.service.signing import KeyRing
from jobledger_server.service.workspace import Workspaces

NOTHING = Collected((), ())


class Sealer:
    """Completes terminal changes. Its work is pure and quick, so it can be done inside the transaction."""

    def __init__(self, *, keys: KeyRing, workspaces: Workspaces, environment: Environment) -> None:
        self._keys = keys
        self._workspaces = workspaces
        self._environment = environment

    def seal(
        self,
        change: JobChange | None,
        *,
        log: LogSummary | None = None,
        collected: Collected = NOTHING,
        first_artifact_id: int = 0,
    ) -> JobChange | None:
        """The change with artifacts and receipt, where it ends its job; else as it is.

        Args:
            first_artifact_id: ids from here on are reserved for the outputs.
        """
        if change is None or not is_terminal(change.record.job.state):
            return change
        artifacts = _artifacts(change.record, collected, first_artifact_id)
        receipt = build_receipt(
            record=change.record,
            log=log or LogSummary(),
            environment=self._environment,
            inputs=self._inputs(change.record),
            outputs=[(output.path, output.size, output.sha256) for output in collected.outputs],
            refused=[(refusal.path, refusal.reason) for refusal in collected.refused],
        )
        events = [*_events(change.record, artifacts), *change.events]
        return replace(change, artifacts=artifacts, events=events, receipt=seal(receipt, self._keys))

    def _inputs(self, record: JobRecord) -> dict[str, str]:
        return self._workspaces.input_hashes(record.job.job_id) if record.job.spec.inputs else {}


def _artifacts(record: JobRecord, collected: Collected, first_id: int) -> list[Artifact]:
    completed = record.job.state == JOB_STATE_COMPLETED
    return [
        Artifact(
            id=first_id + index,
            name=PurePosixPath(output.path).name,
            path=output.path,
            artifact_type=ARTIFACT_TYPE_OUTPUT if completed else ARTIFACT_TYPE_PARTIAL,
            size_bytes=output.size,
            sha256=output.sha256,
            status=ARTIFACT_STATUS_COMPLETE,
            created_at=record.job.completed_at,
        )
        for index, output in enumerate(collected.outputs)
    ]


def _events(record: JobRecord, artifacts: Sequence[Artifact]) -> list[Event]:
    return [
        Event(
            event_type="job.artifact",
            timestamp_utc=timestamp(record.last_activity_at),
            job=event_job(record.job),
            artifact=ArtifactCollected(artifact=artifact),
        )
        for artifact in artifacts
    ]
