"""What the service needs of the world, and what each implementation must promise.

One contract suite for each port runs over every implementation (`tests/contracts`). Instants are microseconds since the
epoch (UTC); messages handed out are the caller's to read, never to change: copy first.
"""

import enum
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from jobledger.v1.events_pb2 import Event
from jobledger.v1.job_pb2 import Artifact, Job, JobState


class Clock(Protocol):
    """Time and randomness, so that both can be simulated."""

    def now(self) -> int:
        """Wall clock, microseconds since the epoch. Never goes back within a process."""

    def monotonic(self) -> float:
        """Seconds on a clock that only goes forward."""

    def random(self, count: int) -> bytes:
        """`count` unpredictable bytes."""


# --- jobs -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelIntent:
    """Someone wants the job gone. Stored before anything is signalled."""

    requested_at: int
    requested_by: str
    reason: str
    grace_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRecord:
    """A job as it is stored: what clients see, and what only the engine needs.

    Attributes:
        job: what clients see, but for `artifacts`, `queue_position` and `queued_followups`, which are read when asked.
        number: counts jobs from 1; 0 until stored. Base of the ids of its log entries.
        last_activity_at: the latest of state change, log entry, progress, follow-up.
        eligible_at: not to be started before (backoff between attempts).
        cancel: the intent to cancel, if any.
    """

    job: Job
    number: int = 0
    last_activity_at: int
    eligible_at: int = 0
    cancel: CancelIntent | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredReceipt:
    """A receipt as it was signed: bytes that never change.

    Attributes:
        receipt: canonical JSON of the receipt.
        envelope: the DSSE envelope around it.
        leaf: what the Merkle log holds of it: SHA-256 of the envelope's payload, 32 bytes.
        leaf_index: its place in the log, from 0; given by the store.
    """

    receipt: bytes
    envelope: bytes
    leaf: bytes
    leaf_index: int = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class JobChange:
    """What one transaction writes: the record, its events in order, and at the end artifacts and receipt."""

    record: JobRecord
    events: Sequence[Event] = ()
    artifacts: Sequence[Artifact] = ()
    receipt: StoredReceipt | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class IdempotencyKey:
    """Key that a caller gave to a request, and the SHA-256 of the request."""

    principal: str
    key: str
    request_hash: bytes
    expires_at: int


class IdempotencyConflictError(Exception):
    """The key was used for another request."""


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


class JobStore(Protocol):
    """Jobs. Every write is durable when it returns, and all of it or nothing happened."""

    async def create_job(
        self, record: JobRecord, events: Sequence[Event], idempotency: IdempotencyKey | None = None
    ) -> JobRecord:
        """Stores a new job with its events; or, where the key is known with the same hash, returns that key's job.

        The caller tells the two apart by the job_id. A key past its `expires_at` is unknown.

        Raises:
            IdempotencyConflictError: the key is known with another hash; nothing is stored.
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

    async def queued_jobs(self, *, now: int, limit: int) -> Sequence[JobRecord]:
        """Queued jobs with `eligible_at` <= now, by priority (high first), then queued_at, then job_id."""

    async def unfinished_jobs(self) -> Sequence[JobRecord]:
        """Every job that is not terminal, oldest first."""

    async def queue_position(self, job_id: str) -> int | None:
        """Place among the queued jobs in the order of `queued_jobs` (eligible or not), from 1; None unless queued."""

    async def record_activity(self, job_id: str, at: int) -> None:
        """Raises `last_activity_at` to `at` where that is later. May be lost in a crash."""

    async def count_by_state(self) -> Mapping[JobState.ValueType, int]:
        """How many jobs are in each state; states without jobs may be absent."""

    async def delete_job(self, job_id: str) -> bool:
        """Deletes job, artifacts and idempotency keys; its receipt and its events stay. False: there was none."""

    async def reserve_artifact_ids(self, count: int) -> int:
        """The first of `count` consecutive ids that were never given before and never will be again."""

    async def artifacts(self, job_id: str) -> Sequence[Artifact]:
        """By path."""

    async def set_artifact_status(self, artifact: Artifact) -> None:
        """Stores the artifact anew, found by its id."""


# --- events, receipts, tokens ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class EventBounds:
    """Numbers of the first event that is kept and of the last that was ever stored.

    With none stored: first 1, last 0. With all dropped: first = last + 1.
    """

    first: int
    last: int


class EventStore(Protocol):
    """Events. Numbers are dense from 1, in commit order, and never given twice."""

    async def append_events(self, events: Sequence[Event]) -> None:
        """Stores events that belong to no job."""

    async def events_after(self, sequence: int, *, limit: int) -> Sequence[Event]:
        """Up to `limit` stored events with a number > sequence, in order."""

    async def event_bounds(self) -> EventBounds:
        """What is kept."""

    def on_events(self, listener: Callable[[Sequence[Event]], None]) -> None:
        """Calls `listener` in the event loop after each commit, with what it stored, in commit order."""


class ReceiptStore(Protocol):
    """Receipts, and the leaves of the Merkle log over them."""

    async def receipt(self, job_id: str) -> StoredReceipt | None:
        """The receipt as it was stored."""

    async def receipt_leaves(self, start: int = 0) -> Sequence[bytes]:
        """The leaves from index `start` on, in the order of their index."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRecord:
    """A token without its secret. `digest` is SHA-256 of the whole token. 0 means unset for the instants."""

    token_id: str
    digest: bytes
    name: str
    scopes: tuple[str, ...]
    workspaces: tuple[str, ...] = ()
    created_at: int
    expires_at: int = 0
    revoked_at: int = 0
    last_used_at: int = 0


class TokenStore(Protocol):
    """Tokens."""

    async def put_token(self, token: TokenRecord, events: Sequence[Event] = ()) -> None:
        """Stores a token, new or changed, with the events that tell of it."""

    async def token(self, token_id: str) -> TokenRecord | None:
        """The token, expired and revoked ones too."""

    async def note_token_use(self, token_id: str, at: int) -> None:
        """Raises `last_used_at` to `at` where that is later. May be lost in a crash."""

    async def tokens(self) -> Sequence[TokenRecord]:
        """All tokens, oldest first."""


class Store(JobStore, EventStore, ReceiptStore, TokenStore, Protocol):
    """All of the above in one database, so that a change can be one transaction."""


class StoreUnavailableError(Exception):
    """The store can't write just now (disk full, I/O error, locked). What was being written may or may not exist."""


# --- running --------------------------------------------------------------------------------------------------------


class EndReason(enum.StrEnum):
    """Why an attempt ended."""

    EXITED = "exited"  # by itself: exit code or a signal from elsewhere
    CANCELLED = "cancelled"  # after our signal, because cancellation was asked
    TIMED_OUT = "timed_out"  # after our signal, because its time was over
    SPAWN_FAILED = "spawn_failed"  # it never started
    UNKILLABLE = "unkillable"  # something of it survived SIGKILL past the bound
    LOST = "lost"  # its supervisor is gone and left no word
    CPU_LIMIT = "cpu_limit"
    OUT_OF_MEMORY = "out_of_memory"
    DISK_LIMIT = "disk_limit"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSummary:
    """What became of an attempt's log: entries in the job's whole log so far, and SHA-256 of its kept bytes."""

    entries: int = 0
    sha256: str = ""
    warnings: int = 0
    errors: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How an attempt ended. `exit_code` and `signal` are of the first process; both None where unknown."""

    reason: EndReason
    exit_code: int | None = None
    signal: int | None = None
    message: str = ""
    started_at: int = 0
    ended_at: int = 0
    log: LogSummary = field(default_factory=LogSummary)


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """An attempt to start.

    Attributes:
        argv, env, working_dir: as the process gets them; env is complete.
        stdin: bytes to write at the start; `stdin_open`: keep it open for follow-ups.
        timeout_seconds: None for as long as it likes.
        log_bytes: cap of the job's log.
    """

    job_id: str
    attempt: int
    argv: Sequence[str]
    env: Mapping[str, str]
    working_dir: Path
    job_dir: Path
    log_dir: Path
    stdin: bytes = b""
    stdin_open: bool = False
    timeout_seconds: float | None = None
    grace_seconds: float = 10.0
    log_bytes: int = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """An attempt that has started: the process's id and when it started."""

    pid: int
    started_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgressReport:
    """How far a job says it is. None: it did not say."""

    phase: str | None = None
    percent: float | None = None
    items_completed: int | None = None
    items_total: int | None = None
    eta_seconds: float | None = None


class ExecutorListener(Protocol):
    """Whom an executor tells. All are called in the event loop, and return at once."""

    def attempt_ended(self, job_id: str, attempt: int, outcome: Outcome) -> None:
        """The attempt is over and nothing of its process tree is left (but for UNKILLABLE). Told once at least."""

    def job_progressed(self, job_id: str, attempt: int, report: ProgressReport) -> None:
        """The job said how far it is; at most ten times a second for each job."""

    def log_grew(self, job_id: str) -> None:
        """There are new log entries. Coalesced."""


class Executor(Protocol):
    """Runs attempts of jobs. An attempt, (job_id, attempt), starts at most once, whatever crashes."""

    async def start(self, launch: Launch) -> Running | Outcome:
        """Starts the attempt, or says how it ended if that is already known (SPAWN_FAILED among them).

        Asking again for an attempt that was started before answers for that one.

        Raises:
            OSError: it could not be started just now (no processes, files or memory left); ask again later.
        """

    async def find(self, job_id: str, attempt: int) -> Running | Outcome | None:
        """What is known of an attempt: it runs (and is watched from now on), it ended, or it was never started.

        An attempt that was started and left no word ended with LOST.
        """

    async def cancel(self, job_id: str, attempt: int, *, grace_seconds: float) -> None:
        """Asks for the end: SIGTERM, after the grace period SIGKILL, descendants included. Asking again may shorten it.

        Returns when the request is durable; `attempt_ended` tells of the end. Nothing happens if it has ended.
        """

    async def send_input(self, job_id: str, attempt: int, data: bytes, *, close: bool) -> int:
        """Queues bytes for the standard input, durably. Returns how many follow-ups the process has not taken yet."""

    def queued_inputs(self, job_id: str, attempt: int) -> int:
        """How many follow-ups the process has not taken yet; 0 where nothing is known."""

    async def release(self, job_id: str, attempt: int) -> None:
        """Forgets an attempt whose end is stored."""


class Blobs(Protocol):
    """Bytes by their SHA-256 (lower-case hex)."""

    async def put(self, descriptor: int) -> tuple[str, int]:
        """Copies what an open file holds, durably. Returns its hash and size in bytes."""

    def read(self, sha256: str, offset: int, length: int) -> AsyncIterator[bytes]:
        """The bytes in chunks of at most 256 KiB.

        Raises:
            BlobDamagedError: before the last chunk of a whole read, where the bytes don't match the hash.
            FileNotFoundError: there is no such blob.
        """

    async def verify(self, sha256: str) -> bool:
        """Whether the bytes are there and match."""

    async def delete(self, sha256: str) -> None:
        """Nothing happens where there is none."""


class BlobDamagedError(Exception):
    """The bytes no longer match their hash."""
