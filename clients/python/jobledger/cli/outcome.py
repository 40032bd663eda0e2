"""How a job ended, in words and as an exit code."""

from jobledger.cli import output
from jobledger.cli.session import CANCELLED, NOT_VALID
from jobledger.v1.job_pb2 import Job, JobState
from jobledger.values import short_name


def exit_code_for(job: Job) -> int:
    """0 completed, the job's own exit code where it failed with one, 130 cancelled, else 1."""
    if job.state == JobState.JOB_STATE_COMPLETED:
        return 0
    if job.state == JobState.JOB_STATE_CANCELLED:
        return CANCELLED
    return job.exit_code or NOT_VALID


def describe_end(job: Job) -> str:
    """One line: the state, how long it took, and why it failed."""
    parts = [f"{job.job_id} {short_name(JobState, job.state)}"]
    if job.HasField("started_at"):
        parts.append(f"after {output.span(output.seconds_between(job.started_at, job.completed_at))}")
    if job.HasField("error_code"):
        parts.append(f"({job.error_code}: {job.error_message})" if job.error_message else f"({job.error_code})")
    return " ".join(parts)
