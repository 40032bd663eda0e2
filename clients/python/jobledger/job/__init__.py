"""For the authors of jobs: say how far the job is, write log entries, learn of cancellation, leave artifacts, and go on
where the attempt before stopped.

    from jobledger import job

    for row in job.track(rows, phase="reading"):
        job.raise_if_cancelled()
        work(row)

Standard library alone, in this one folder. A report never blocks for long and never ends the job: what can't be said is
left out, and a log entry goes to standard output instead. Outside a job, reports do nothing and nothing is ever
cancelled; whatever only a job has raises NotAJobError. All of it may be called from any thread, and after a fork.

    id: str         this job's id, such as `job_01j9...`
    run_id: str     the id of its run, such as `run_01j9...`
    attempt: int    which attempt of the job this is, from 1
"""

from typing import TYPE_CHECKING, Any, Final

from .cancellation import CancelledError, cancelled, raise_if_cancelled
from .channel import NotAJobError, variable
from .entries import LogHandler, log
from .reports import artifact, checkpoint, progress, track
from .surroundings import config, output, restore

if TYPE_CHECKING:
    id: str  # noqa: A001 - read as `job.id`
    run_id: str
    attempt: int

__all__ = [
    "CancelledError",
    "LogHandler",
    "NotAJobError",
    "artifact",
    "cancelled",
    "checkpoint",
    "config",
    "log",
    "output",
    "progress",
    "raise_if_cancelled",
    "restore",
    "track",
]

_IDENTITY: Final = {"id": "JOBLEDGER_JOB_ID", "run_id": "JOBLEDGER_RUN_ID", "attempt": "JOBLEDGER_ATTEMPT"}


def __getattr__(name: str) -> Any:
    """`id`, `run_id` and `attempt`, read when they are asked for.

    Raises:
        NotAJobError: this is not a job.
    """
    if name not in _IDENTITY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = variable(_IDENTITY[name])
    return int(value) if name == "attempt" else value
