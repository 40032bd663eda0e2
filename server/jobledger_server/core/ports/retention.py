"""What is kept for a time only, and what a store must tell and do so that the rest can go."""

import enum
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


class Kept(enum.Enum):
    """What is kept for as long as a rule of its own says; the values are the names of the rules.

    A log is kept by the worst that is in it, a job's directory by how the job ended. JOBS is the job itself, once
    neither its log nor its directory is kept any more.
    """

    EVENTS = "events"
    LOGS_INFO = "logs.info"
    LOGS_WARN = "logs.warn"
    LOGS_ERROR = "logs.error"
    JOB_DIRS_COMPLETED = "job_dirs.completed"
    JOB_DIRS_FAILED = "job_dirs.failed"
    JOB_DIRS_CANCELLED = "job_dirs.cancelled"
    JOBS = "jobs"
    AUDIT = "audit"


LOGS = (Kept.LOGS_INFO, Kept.LOGS_WARN, Kept.LOGS_ERROR)
JOB_DIRS = (Kept.JOB_DIRS_COMPLETED, Kept.JOB_DIRS_FAILED, Kept.JOB_DIRS_CANCELLED)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedJob:
    """A job of which something is kept: its number, and when it ended."""

    job_id: str
    number: int
    ended_at: int


class RetentionStore(Protocol):
    """Finds what is old, and drops it in transactions as short as the caller's batches."""

    async def ended_jobs(
        self, kept: Kept, *, before: int, limit: int, after: EndedJob | None = None
    ) -> Sequence[EndedJob]:
        """Jobs of which `kept` is still kept and that ended before an instant, oldest first, behind `after`.

        What a job leaves is noted when it ends (`JobChange.kept`).
        """

    async def forget(self, kept: Kept, job_ids: Collection[str], *, at: int) -> None:
        """Notes that this is gone since `at`. A job of which nothing else is left is from then on kept as one of JOBS.

        The job says so from then on: it has `log_removed_at`, unless it never ran; or no `job_dir` any more.
        """

    async def drop_events(self, through: int) -> int:
        """Deletes the events up to and with this number. Returns how many. Numbers are never given again."""

    async def count_expired_keys(self, now: int) -> int:
        """How many idempotency keys are past their time."""

    async def drop_expired_keys(self, now: int, *, limit: int) -> int:
        """Deletes up to `limit` of them. Returns how many."""

    async def size(self) -> int:
        """What the database takes on the disk, bytes. What is deleted makes room for what comes, not on the disk."""

    async def unknown_jobs(self, job_ids: Collection[str]) -> set[str]:
        """Those of the ids that no job has."""

    async def count_due_jobs(self, due: Mapping[Kept, int]) -> int:
        """How many jobs would go if all went that ended before the instant of its class. A class without one is kept.

        That is all that is kept of them, and they themselves, by the instant of JOBS.
        """

    async def unneeded_blobs(self, hashes: Collection[str], *, due: Mapping[Kept, int] | None = None) -> set[str]:
        """Those of the hashes that no artifact has, or would have if the jobs that are `due` were gone."""
