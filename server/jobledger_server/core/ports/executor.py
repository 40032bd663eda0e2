"""Attempts as they run."""

import enum
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

# Of follow-ups that the process has not taken: bytes, as many as a specification's `stdin` may have, and how many.
MOST_WAITING_BYTES = 1024 * 1024
MOST_WAITING = 10_000


class EndReason(enum.StrEnum):
    """Why an attempt ended."""

    EXITED = "exited"  # by itself: exit code or a signal from elsewhere
    CANCELLED = "cancelled"  # after our signal, because cancellation was asked
    TIMED_OUT = "timed_out"  # after our signal, because its time was over
    SPAWN_FAILED = "spawn_failed"  # it never started
    UNKILLABLE = "unkillable"  # something of it survived SIGKILL past the bound
    LOST = "lost"  # its supervisor is gone and left no word
    CPU_LIMIT = "cpu_limit"  # past Limits.cpu_seconds
    OUT_OF_MEMORY = "out_of_memory"  # past Limits.memory_bytes
    DISK_LIMIT = "disk_limit"  # past Limits.disk_bytes or Limits.file_size_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSummary:
    """What became of an attempt's log: entries in the job's whole log so far, and SHA-256 of its kept bytes."""

    entries: int = 0
    sha256: str = ""
    warnings: int = 0
    errors: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How an attempt ended.

    Attributes:
        exit_code, signal: of the first process; both None where unknown.
        declared: every path that the job declared as an artifact, relative to `output/`.
        misdeclared: the first of what it declared that no artifact can be called: as it said that, cut where too long.
        withheld: inodes of files and directories under `output/` whose names hold a secret of the job.
        ignored_messages: how many of its messages could not be understood.
        isolation: what it was started under, such as `none`.
    """

    reason: EndReason
    exit_code: int | None = None
    signal: int | None = None
    message: str = ""
    started_at: int = 0
    ended_at: int = 0
    log: LogSummary = field(default_factory=LogSummary)
    declared: Sequence[str] = ()
    misdeclared: Sequence[str] = ()
    withheld: Sequence[int] = ()
    ignored_messages: int = 0
    isolation: str = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What an attempt may use; None for as much as it likes.

    Attributes:
        cpu_seconds: CPU time of all its processes together; past it, it ends with CPU_LIMIT.
        memory_bytes: memory of all its processes together, what they share counted once; OUT_OF_MEMORY.
        open_files: of each process; past it, opening another one fails.
        file_size_bytes: of each file that it writes; DISK_LIMIT, unless the process handles SIGXFSZ.
        disk_bytes: on disk, of all that is in the job's directory; DISK_LIMIT.
    """

    cpu_seconds: float | None = None
    memory_bytes: int | None = None
    open_files: int | None = None
    file_size_bytes: int | None = None
    disk_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """An attempt to start.

    Attributes:
        argv, env, working_dir: as the process gets them; env is complete but for `secret_env`. `working_dir` is without
            links: one that comes there before the start is refused.
        secret_env: variables beside and before those of `env` that are written nowhere: not to disk, nor into the log.
        stdin: bytes to write at the start; `stdin_open`: keep it open for follow-ups.
        timeout_seconds: None for as long as it likes.
        log_bytes: cap of the job's log.
        limits: what it may use.
    """

    job_id: str
    attempt: int
    argv: Sequence[str]
    env: Mapping[str, str]
    working_dir: Path
    job_dir: Path
    log_dir: Path
    secret_env: Mapping[str, str] = field(default_factory=dict, repr=False)
    stdin: bytes = b""
    stdin_open: bool = False
    timeout_seconds: float | None = None
    grace_seconds: float = 10.0
    log_bytes: int = 256 * 1024 * 1024
    limits: Limits = field(default_factory=Limits)


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

    def artifacts_declared(self, job_id: str, attempt: int, paths: Sequence[str]) -> None:
        """The job declared artifacts: all paths so far, relative to `output/`. At most ten times a second."""

    def log_grew(self, job_id: str) -> None:
        """There are new log entries. Coalesced."""


class InputClosedError(Exception):
    """The standard input was closed: by a follow-up that said so, or by the process."""


class InputFullError(Exception):
    """What a process has not taken yet of its follow-ups is as much as may wait for it."""


class NewerAttemptError(Exception):
    """A newer version has started the attempt, and this one can't take it over: nothing was touched."""


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

        Raises:
            NewerAttemptError: it is a newer version's; the message says what to do.
        """

    async def end_unknown(self, job_id: str, attempt: int) -> Outcome:
        """Ends an attempt that ran once, and of which `find` knows nothing: whatever of it can be recognized.

        Returns LOST when nothing of it is left, UNKILLABLE where something is.
        """

    async def cancel(self, job_id: str, attempt: int, *, grace_seconds: float) -> None:
        """Asks for the end: SIGTERM, after the grace period SIGKILL, descendants included. Asking again may shorten it.

        Returns when the request is durable; `attempt_ended` tells of the end. Nothing happens if it has ended.
        """

    async def send_input(self, job_id: str, attempt: int, data: bytes, *, close: bool) -> int:
        """Queues bytes for the standard input, durably. Returns how many follow-ups the process has not taken yet.

        Raises:
            InputClosedError: it takes no more; nothing is queued.
            InputFullError: with what waits it would be more than MOST_WAITING_BYTES, or, where it does not close the
                input, than MOST_WAITING follow-ups; nothing is queued.
            OSError: it can't be stored just now.
        """

    def queued_inputs(self, job_id: str, attempt: int) -> int:
        """How many follow-ups the process has not taken yet; 0 where nothing is known."""

    async def release(self, job_id: str, attempt: int) -> None:
        """Forgets an attempt whose end is stored."""

    async def release_others(self, kept: Collection[tuple[str, int]]) -> None:
        """Forgets every attempt, (job_id, attempt), but these: a crash may have come before it was released."""
