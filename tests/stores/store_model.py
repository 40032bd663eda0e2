"""A model of the store in plain Python: dictionaries, lists and sorting."""

from collections.abc import Collection
from dataclasses import dataclass, field

from jobledger.v1.events_pb2 import Event
from jobledger.v1.job_pb2 import Artifact
from jobledger_server.core.ports import JobFilter, JobRecord, StoredReceipt
from jobledger_server.core.times import micros
from support.records import QUEUED, TERMINAL


@dataclass
class Model:
    """What a store that does as it promises has to tell."""

    jobs: dict[str, JobRecord] = field(default_factory=dict)
    created: int = 0
    keys: dict[str, tuple[bytes, str]] = field(default_factory=dict)
    receipts: dict[str, StoredReceipt] = field(default_factory=dict)
    artifacts: dict[str, list[Artifact]] = field(default_factory=dict)
    given_ids: int = 0
    events: list[Event] = field(default_factory=list)

    def tell(self, *events: Event) -> None:
        for event in events:
            self.events.append(event)
            event.sequence_number = len(self.events)

    def admitted(self, where: JobFilter) -> list[JobRecord]:
        """Newest first."""
        admitted = [record for record in self.jobs.values() if admits(where, record)]
        return sorted(admitted, key=place, reverse=True)

    def queue(self) -> list[JobRecord]:
        waiting = [record for record in self.jobs.values() if record.job.state == QUEUED]
        return sorted(waiting, key=lambda it: (-it.job.spec.priority, micros(it.job.queued_at), it.job.job_id))

    def startable(self, now: int, full: Collection[str]) -> list[JobRecord]:
        return [it for it in self.queue() if it.eligible_at <= now and not set(it.concurrency_groups) & set(full)]

    def live(self) -> list[JobRecord]:
        live = [record for record in self.jobs.values() if record.job.state not in TERMINAL]

        def key(record: JobRecord) -> tuple[bool, int, str]:
            waits = record.job.state == QUEUED
            return waits, micros(record.job.queued_at if waits else record.job.started_at), record.job.job_id

        return sorted(live, key=key)


def place(record: JobRecord) -> tuple[int, str]:
    return micros(record.job.created_at), record.job.job_id


def admits(where: JobFilter, record: JobRecord) -> bool:
    job = record.job
    return (
        (not where.states or job.state in where.states)
        and (where.created_after is None or micros(job.created_at) >= where.created_after)
        and (where.created_before is None or micros(job.created_at) < where.created_before)
        and all(job.labels.get(name) == value for name, value in where.labels)
        and where.workspace_id in (None, job.workspace_id)
        and where.job_type in (None, job.job_type)
        and (where.workspaces is None or job.workspace_id in where.workspaces)
    )
