"""Jobs as they are stored."""

import enum
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from jobledger.v1.events_pb2 import Event
from jobledger.v1.job_pb2 import Artifact, Job, JobState

from jobledger_server.core.ports.retention import Kept


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelIntent:
    """Someone wants the job gone. Stored before anything is signalled."""

    requested_at: int
    requested_by: str
    reason: str
    grace_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What an attempt is made from, as it was before anything of the attempt ran.

    Attributes:
        attempt: which one.
        inputs: SHA-256 (lower-case hex) of each input file that was copied, by the path that the specification gives.
        source_pins: names of what it is made from, with their versions.
    """

    attempt: int
    inputs: Mapping[str, str] = field(default_factory=dict)
    source_pins: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRecord:
    """A job as it is stored: what clients see, and what only the engine needs.

    Attributes:
        job: what clients see, but for `artifacts`, `queue_position` and `queued_followups`, which are read when asked.
        number: counts jobs from 1; 0 until stored. Base of the ids of its log entries.
        last_activity_at: the latest of state change, log entry, progress, follow-up.
        eligible_at: not to be started before (backoff between attempts).
        cancel: the intent to cancel, if any.
        concurrency_groups: those in which it counts, as `core.concurrency` names them.
        origin: of the attempt that was made ready last, where there is anything to say of it.
    """

    job: Job
    number: int = 0
    last_activity_at: int
    eligible_at: int = 0
    cancel: CancelIntent | None = None
    concurrency_groups: tuple[str, ...] = ()
    origin: Origin | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredReceipt:
    """A receipt as it was signed: bytes that never change.

    Attributes:
        receipt: canonical JSON of the receipt.
        envelope: the DSSE envelope around it.
        leaf: what the Merkle log holds of it: SHA-256 of the envelope's payload, 32 bytes.
        leaf_index: its place in the log, from 0; given by the store.
        workspace_id: workspace of its job; given by the store.
    """

    receipt: bytes
    envelope: bytes
    leaf: bytes
    leaf_index: int = -1
    workspace_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobChange:
    """What one transaction writes: the record, its events in order, artifacts, and at the end the receipt.

    Attributes:
        artifacts: added to those that the job has, or in place of them where `artifacts_anew`.
        kept: with the end of the job, what it leaves that retention is to remove.
    """

    record: JobRecord
    events: Sequence[Event] = ()
    artifacts: Sequence[Artifact] = ()
    artifacts_anew: bool = False
    receipt: StoredReceipt | None = None
    kept: Sequence[Kept] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class IdempotencyKey:
    """Key that a caller gave to a request, and the SHA-256 of the request.

    Attributes:
        workspaces: those that the caller sees (None: all). It has no key for a job elsewhere, whoever it was before.
    """

    principal: str
    key: str
    request_hash: bytes
    expires_at: int
    workspaces: tuple[str, ...] | None = None


class IdempotencyConflictError(Exception):
    """The key was used for another request."""


class KeyedJobDeletedError(Exception):
    """The job that the key made was deleted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFilter:
    """Which jobs. Empty and None mean any; `workspaces` None means all that there are.

    Attributes:
        id_prefix: beginning of the job_id, taken literally.
        labels: pairs that must all hold.
        created_after: inclusive; `created_before`: exclusive.
        workspaces: what the caller may see.
    """

    states: tuple[JobState.ValueType, ...] = ()
    created_after: int | None = None
    created_before: int | None = None
    id_prefix: str = ""
    job_ids: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    workspace_id: str | None = None
    job_type: str | None = None
    workspaces: tuple[str, ...] | None = None


class JobOrder(enum.Enum):
    """Order of a page of jobs.

    NEWEST: by created_at, then job_id, both descending. LIVE: started ones (running and cancelling) by started_at, then
    queued ones by queued_at, then by job_id.
    """

    NEWEST = "newest"
    LIVE = "live"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPage:
    """Records of a page and how many the filter admits in all, from one snapshot."""

    records: Sequence[JobRecord]
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SerializedJobs:
    """Jobs of a page, each the bytes of its record's `job`, and how many the filter admits in all; of one snapshot."""

    jobs: Sequence[bytes]
    total: int


class JobStore(Protocol):
    """Jobs. Every write is durable when it returns, and all of it or nothing happened."""

    @property
    def revision(self) -> int | None:
        """While this stays the same number, so does all that is read of any `JobRecord.job`.

        No write of a job becomes visible, and none returns, before the number has changed. None: one becomes visible
        just now.
        """

    async def create_job(
        self, record: JobRecord, events: Sequence[Event], idempotency: IdempotencyKey | None = None
    ) -> JobRecord:
        """Stores a new job with its events; or, where the key is known with the same hash, returns that key's job.

        The caller tells the two apart by the job_id. A key past its `expires_at` is unknown.

        Raises:
            IdempotencyConflictError: the key is known with another hash; nothing is stored.
            KeyedJobDeletedError: the key's job was deleted meanwhile; nothing is stored.
        """

    async def get_job(self, job_id: str) -> JobRecord | None:
        """The record, or None."""

    async def update_job(self, job_id: str, decide: Callable[[JobRecord], JobChange | None]) -> JobRecord | None:
        """Lets `decide` see the stored record and stores what it answers, in one transaction.

        `decide` is pure and quick, and may run in another thread. Where it answers None nothing changes; where it
        raises, nothing changes and the exception comes out here.

        Returns:
            The record as it is now stored, or None where there is no such job.
        """

    async def list_jobs(
        self,
        where: JobFilter,
        *,
        limit: int,
        offset: int = 0,
        after: tuple[int, str] | None = None,
        order: JobOrder = JobOrder.NEWEST,
    ) -> JobPage:
        """A page. `after` is (created_at, job_id) of the last one before it, and only for NEWEST."""

    async def list_serialized(
        self, where: JobFilter, *, limit: int, offset: int = 0, after: tuple[int, str] | None = None
    ) -> SerializedJobs:
        """The jobs of the page that `list_jobs` gives, newest first, as they are stored: nothing is parsed."""

    async def queued_jobs(self, *, now: int, limit: int, full: Collection[str] = ()) -> Sequence[JobRecord]:
        """Queued jobs with `eligible_at` <= now, by priority (high first), then queued_at, then job_id.

        Args:
            full: concurrency groups whose jobs are left out, however many of them wait, at no cost for each.
        """

    async def set_concurrency_groups(self, groups: Mapping[str, Sequence[str]]) -> None:
        """Stores the groups of each job_id anew, in one transaction: the limits are others than they were."""

    async def unfinished_jobs(self) -> Sequence[JobRecord]:
        """Every job that is not terminal, oldest first."""

    async def queue_position(self, job_id: str) -> int | None:
        """Place among the queued jobs in the order of `queued_jobs` (eligible or not), from 1; None unless queued."""

    async def record_activity(self, job_id: str, at: int) -> None:
        """Raises `last_activity_at` to `at` where that is later. May be lost in a crash."""

    async def count_by_state(self, workspaces: Sequence[str] | None = None) -> Mapping[JobState.ValueType, int]:
        """How many jobs of these workspaces (None: of all) are in each state; states without jobs may be absent."""

    async def delete_job(self, job_id: str) -> bool:
        """Deletes job and artifacts; its receipt, its events and its idempotency key stay. False: there was none."""

    async def reserve_artifact_ids(self, count: int) -> int:
        """The first of `count` consecutive ids that were never given before and never will be again."""

    async def artifacts(self, job_id: str) -> Sequence[Artifact]:
        """By path."""

    async def set_artifact_status(self, artifact: Artifact, events: Sequence[Event] = ()) -> bool:
        """Stores the artifact anew, found by its id, with events. False: it was so before, or there is none."""
