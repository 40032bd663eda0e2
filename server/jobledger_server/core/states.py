"""The states of a job: which are terminal, and what clients call them."""

from jobledger.v1.job_pb2 import (
    JOB_STATE_CANCELLED,
    JOB_STATE_CANCELLING,
    JOB_STATE_COMPLETED,
    JOB_STATE_FAILED,
    JOB_STATE_QUEUED,
    JOB_STATE_RUNNING,
    JobState,
)

TERMINAL = frozenset({JOB_STATE_COMPLETED, JOB_STATE_FAILED, JOB_STATE_CANCELLED})
ACTIVE = frozenset({JOB_STATE_RUNNING, JOB_STATE_CANCELLING})
LIVE = frozenset({JOB_STATE_QUEUED}) | ACTIVE


def is_terminal(state: JobState.ValueType) -> bool:
    return state in TERMINAL


def short_name(state: JobState.ValueType) -> str:
    """`running` for JOB_STATE_RUNNING."""
    return JobState.Name(state).removeprefix("JOB_STATE_").lower()
