"""Every change of a job's state, as pure functions from the stored record to what is to be stored.

    queued ──started──▶ running ──ended──▶ completed | failed
      │  ▲                 │ │
      │  └──── retried ────┘ └──cancelled──▶ cancelling ──ended──▶ cancelled | completed | failed
      ├──cancelled──▶ cancelled
      └──failed to start, waited too long──▶ failed

Each function answers None where the change does not apply to the record any more: someone else was first. A terminal
change still lacks its receipt; `service.finishing` adds it in the same transaction.
"""

from dataclasses import dataclass, replace

from jobledger.v1.events_pb2 import Event, EventJob, Progress, StateChanged
from jobledger.v1.job_pb2 import (
    JOB_STATE_CANCELLED,
    JOB_STATE_CANCELLING,
    JOB_STATE_COMPLETED,
    JOB_STATE_FAILED,
    JOB_STATE_QUEUED,
    JOB_STATE_RUNNING,
    Job,
    JobState,
)

from jobledger_server.core.ports import (
    CancelIntent,
    EndReason,
    JobChange,
    JobRecord,
    Origin,
    Outcome,
    ProgressReport,
    Running,
)
from jobledger_server.core.states import ACTIVE, is_terminal
from jobledger_server.core.times import SECOND, micros, seconds, timestamp

ERROR_CODES = {
    EndReason.CANCELLED: "E_JOB_KILLED",
    EndReason.TIMED_OUT: "E_JOB_TIMED_OUT",
    EndReason.SPAWN_FAILED: "E_JOB_SPAWN_FAILED",
    EndReason.UNKILLABLE: "E_JOB_UNKILLABLE",
    EndReason.LOST: "E_JOB_LOST",
    EndReason.CPU_LIMIT: "E_JOB_CPU_LIMIT",
    EndReason.OUT_OF_MEMORY: "E_JOB_OUT_OF_MEMORY",
    EndReason.DISK_LIMIT: "E_JOB_DISK_LIMIT",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an attempt's end means for its job."""

    state: JobState.ValueType
    error_code: str = ""
    error_message: str = ""


def accepted(record: JobRecord) -> Event:
    """The event of a job that was just accepted."""
    return _state_event(record.job, None, record.last_activity_at)


def made_ready(record: JobRecord, origin: Origin) -> JobChange | None:
    """The next attempt is about to start, and this is what it is made from. The job waits still."""
    if record.job.state != JOB_STATE_QUEUED or record.job.attempt != origin.attempt - 1:
        return None
    return JobChange(record=replace(record, origin=origin))


def started(record: JobRecord, attempt: int, running: Running, now: int) -> JobChange | None:
    """queued -> running."""
    if record.job.state != JOB_STATE_QUEUED or record.job.attempt != attempt - 1:
        return None
    job = _copy(record.job)
    job.state = JOB_STATE_RUNNING
    job.attempt = attempt
    # The supervisor has a clock of its own, which may have been set back.
    job.started_at.CopyFrom(timestamp(max(running.started_at, micros(job.queued_at))))
    return _changed(record, job, now)


def cancelled(record: JobRecord, intent: CancelIntent) -> JobChange | None:
    """queued -> cancelled, running -> cancelling. None for a job that is cancelling or terminal."""
    if record.job.state not in (JOB_STATE_QUEUED, JOB_STATE_RUNNING):
        return None
    job = _copy(record.job)
    job.cancel_requested_at.CopyFrom(timestamp(intent.requested_at))
    if job.state == JOB_STATE_QUEUED:
        _end(job, Verdict(JOB_STATE_CANCELLED), intent.requested_at)
    else:
        job.state = JOB_STATE_CANCELLING
    return _changed(replace(record, cancel=intent), job, intent.requested_at)


def ended(record: JobRecord, attempt: int, outcome: Outcome, now: int) -> JobChange | None:
    """running or cancelling -> completed, failed or cancelled; or back to the queue while attempts are left."""
    if record.job.state not in ACTIVE or record.job.attempt != attempt:
        return None
    job = _copy(record.job)
    verdict = judge(record.job.state, outcome)
    if _may_retry(record.job, verdict, outcome):
        return _retried(record, verdict, now)
    if outcome.exit_code is not None:
        job.exit_code = outcome.exit_code
    if outcome.signal is not None:
        job.signal = outcome.signal
    _end(job, verdict, _ended_at(job, verdict, outcome, now))
    return _changed(record, job, now)


def never_started(record: JobRecord, error_code: str, message: str, now: int) -> JobChange | None:
    """queued -> failed: it can't be started, or its time in the queue is over."""
    if record.job.state != JOB_STATE_QUEUED:
        return None
    job = _copy(record.job)
    _end(job, Verdict(JOB_STATE_FAILED, error_code, message), now)
    return _changed(record, job, now)


def progressed(record: JobRecord, attempt: int, report: ProgressReport, now: int) -> JobChange | None:
    """The job said how far it is."""
    if record.job.state not in ACTIVE or record.job.attempt != attempt:
        return None
    job = _copy(record.job)
    if report.percent is not None:
        job.progress_percent = report.percent
    if report.phase is not None:
        job.progress_phase = report.phase
    event = Event(event_type="job.progress", timestamp_utc=timestamp(now), job=event_job(job))
    event.progress.CopyFrom(
        Progress(
            phase=report.phase,
            progress_percent=report.percent,
            items_completed=report.items_completed,
            items_total=report.items_total,
            eta_seconds=report.eta_seconds,
        )
    )
    return JobChange(
        record=replace(record, job=job, last_activity_at=max(now, record.last_activity_at)), events=[event]
    )


def judge(state: JobState.ValueType, outcome: Outcome) -> Verdict:
    """What an attempt's end means. A job that ended by itself before the first signal keeps its own outcome."""
    stopped_by_us = outcome.reason in (EndReason.CANCELLED, EndReason.TIMED_OUT)
    if state == JOB_STATE_CANCELLING and stopped_by_us:
        return Verdict(JOB_STATE_CANCELLED)
    if outcome.reason == EndReason.EXITED and outcome.exit_code == 0:
        return Verdict(JOB_STATE_COMPLETED)
    return Verdict(JOB_STATE_FAILED, _error_code(outcome), outcome.message or _describe(outcome))


def ends_job(record: JobRecord, outcome: Outcome) -> bool:
    """Whether the end of the current attempt ends the job, or sends it back to the queue."""
    return not _may_retry(record.job, judge(record.job.state, outcome), outcome)


def event_job(job: Job) -> EventJob:
    """What each event of a job says of the job."""
    return EventJob(job_id=job.job_id, run_id=job.run_id, workspace_id=job.workspace_id)


def _error_code(outcome: Outcome) -> str:
    if outcome.reason == EndReason.EXITED:
        return "E_JOB_KILLED" if outcome.signal is not None else "E_JOB_EXIT_NONZERO"
    return ERROR_CODES[outcome.reason]


def _describe(outcome: Outcome) -> str:
    if outcome.reason == EndReason.TIMED_OUT:
        return "Ran for longer than its timeout"
    if outcome.signal is not None:
        return f"Ended by signal {outcome.signal}"
    if outcome.exit_code is not None:
        return f"Exited with code {outcome.exit_code}"
    return f"Ended: {outcome.reason}"


def _may_retry(job: Job, verdict: Verdict, outcome: Outcome) -> bool:
    return (
        verdict.state == JOB_STATE_FAILED
        and job.state == JOB_STATE_RUNNING
        and outcome.reason != EndReason.UNKILLABLE
        and job.attempt < job.spec.max_attempts
    )


def _retried(record: JobRecord, verdict: Verdict, now: int) -> JobChange:
    job = _copy(record.job)
    job.state = JOB_STATE_QUEUED
    job.queued_at.CopyFrom(timestamp(now))
    for field in ("started_at", "progress_percent", "progress_phase"):
        job.ClearField(field)
    backoff = seconds(job.spec.retry_backoff) * 2 ** (job.attempt - 1)
    change = _changed(replace(record, eligible_at=now + round(backoff * SECOND)), job, now)
    change.events[0].state_changed.error_code = verdict.error_code
    # What this attempt declared the next one may declare again, or not.
    return replace(change, artifacts_anew=True)


def _ended_at(job: Job, verdict: Verdict, outcome: Outcome, now: int) -> int:
    """When it ended, which may be long ago if no server ran; now, where what is said of that can't be.

    A job that ended by itself may have done so before it was cancelled: its end was not stored yet.
    """
    earliest = micros(job.started_at)
    if verdict.state == JOB_STATE_CANCELLED:
        earliest = max(earliest, micros(job.cancel_requested_at))
    return outcome.ended_at if earliest <= outcome.ended_at <= now else now


def _end(job: Job, verdict: Verdict, now: int) -> None:
    job.state = verdict.state
    job.completed_at.CopyFrom(timestamp(now))
    if verdict.error_code:
        job.error_code = verdict.error_code
        job.error_message = verdict.error_message


def _changed(record: JobRecord, job: Job, now: int) -> JobChange:
    event = _state_event(job, record.job.state, now)
    return JobChange(
        record=replace(record, job=job, last_activity_at=max(now, record.last_activity_at)), events=[event]
    )


def _state_event(job: Job, old: JobState.ValueType | None, now: int) -> Event:
    detail = StateChanged(
        old_state=old,
        new_state=job.state,
        attempt=job.attempt,
        error_code=job.error_code if is_terminal(job.state) and job.HasField("error_code") else None,
    )
    return Event(event_type="job.state_changed", timestamp_utc=timestamp(now), job=event_job(job), state_changed=detail)


def _copy(job: Job) -> Job:
    copy = Job()
    copy.CopyFrom(job)
    return copy
