"""Every change of state against every state, and what random histories never do."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jobledger.v1.job_pb2 import JobSpec, JobState
from jobledger_server.core import transitions
from jobledger_server.core.ports import (
    CancelIntent,
    EndReason,
    JobChange,
    JobRecord,
    Outcome,
    ProgressReport,
    Running,
)
from jobledger_server.core.times import SECOND, duration, micros
from support.records import (
    CANCELLED,
    CANCELLING,
    COMPLETED,
    FAILED,
    NOW,
    QUEUED,
    RUNNING,
    STATES,
    TERMINAL,
    a_record,
)

LATER = NOW + 100 * SECOND
INTENT = CancelIntent(requested_at=LATER, requested_by="token", reason="", grace_seconds=10)
SUCCESS = Outcome(reason=EndReason.EXITED, exit_code=0)
FAILURE = Outcome(reason=EndReason.EXITED, exit_code=3)

Change = Callable[[JobRecord], JobChange | None]


def start(record: JobRecord) -> JobChange | None:
    return transitions.started(record, record.job.attempt + 1, Running(pid=7, started_at=LATER), LATER)


def cancel(record: JobRecord) -> JobChange | None:
    return transitions.cancelled(record, INTENT)


def end(outcome: Outcome) -> Change:
    return lambda record: transitions.ended(record, record.job.attempt, outcome, LATER)


def expire(record: JobRecord) -> JobChange | None:
    return transitions.never_started(record, "E_JOB_QUEUE_TIMEOUT", "Waited too long", LATER)


# The whole table: what is missing does not apply.
TABLE: dict[tuple[str, JobState.ValueType], JobState.ValueType] = {
    ("start", QUEUED): RUNNING,
    ("cancel", QUEUED): CANCELLED,
    ("cancel", RUNNING): CANCELLING,
    ("succeed", RUNNING): COMPLETED,
    ("succeed", CANCELLING): COMPLETED,
    ("fail", RUNNING): FAILED,
    ("fail", CANCELLING): FAILED,
    ("kill", RUNNING): FAILED,
    ("kill", CANCELLING): CANCELLED,
    ("lose", RUNNING): FAILED,
    ("lose", CANCELLING): FAILED,
    ("survive", RUNNING): FAILED,
    ("survive", CANCELLING): FAILED,
    ("expire", QUEUED): FAILED,
}
CHANGES: dict[str, Change] = {
    "start": start,
    "cancel": cancel,
    "succeed": end(SUCCESS),
    "fail": end(FAILURE),
    "kill": end(Outcome(reason=EndReason.CANCELLED, signal=15)),
    "lose": end(Outcome(reason=EndReason.LOST)),
    "survive": end(Outcome(reason=EndReason.UNKILLABLE)),
    "expire": expire,
}


@pytest.mark.parametrize("state", STATES, ids=JobState.Name)
@pytest.mark.parametrize("name", CHANGES)
def test_a_change_leads_where_the_table_says_and_nowhere_else(name: str, state: JobState.ValueType) -> None:
    record = a_record(state)
    before = record.job.SerializeToString(deterministic=True)
    change = CHANGES[name](record)
    assert record.job.SerializeToString(deterministic=True) == before, "the record that was given must stay as it is"
    if (name, state) not in TABLE:
        assert change is None
        return
    assert change is not None
    assert change.record.job.state == TABLE[name, state]
    [event] = change.events
    assert event.event_type == "job.state_changed"
    assert (event.state_changed.old_state, event.state_changed.new_state) == (state, TABLE[name, state])
    assert event.state_changed.attempt == change.record.job.attempt
    assert event.job.job_id == record.job.job_id
    assert event.job.run_id == record.job.run_id
    assert event.job.workspace_id == record.job.workspace_id


@pytest.mark.parametrize("state", TERMINAL, ids=JobState.Name)
def test_progress_of_a_job_that_is_over_is_ignored(state: JobState.ValueType) -> None:
    assert transitions.progressed(a_record(state), 1, ProgressReport(percent=5), LATER) is None


def test_the_event_of_an_accepted_job_has_no_old_state() -> None:
    event = transitions.accepted(a_record())
    assert not event.state_changed.HasField("old_state")
    assert event.state_changed.new_state == QUEUED
    assert micros(event.timestamp_utc) == NOW


@pytest.mark.parametrize("attempt", [0, 2])
def test_news_of_another_attempt_change_nothing(attempt: int) -> None:
    running = a_record(RUNNING)
    assert transitions.ended(running, attempt, SUCCESS, LATER) is None
    assert transitions.progressed(running, attempt, ProgressReport(percent=5), LATER) is None
    assert transitions.started(a_record(), attempt, Running(pid=1, started_at=LATER), LATER) is None


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        (FAILURE, "E_JOB_EXIT_NONZERO"),
        (Outcome(reason=EndReason.EXITED, signal=9), "E_JOB_KILLED"),
        (Outcome(reason=EndReason.TIMED_OUT, signal=15), "E_JOB_TIMED_OUT"),
        (Outcome(reason=EndReason.SPAWN_FAILED), "E_JOB_SPAWN_FAILED"),
        (Outcome(reason=EndReason.UNKILLABLE), "E_JOB_UNKILLABLE"),
        (Outcome(reason=EndReason.LOST), "E_JOB_LOST"),
        (Outcome(reason=EndReason.CPU_LIMIT), "E_JOB_CPU_LIMIT"),
        (Outcome(reason=EndReason.OUT_OF_MEMORY), "E_JOB_OUT_OF_MEMORY"),
        (Outcome(reason=EndReason.DISK_LIMIT), "E_JOB_DISK_LIMIT"),
    ],
)
def test_a_failed_job_says_why_in_record_and_event(outcome: Outcome, code: str) -> None:
    change = end(outcome)(a_record(RUNNING))
    assert change is not None
    job = change.record.job
    assert (job.state, job.error_code) == (FAILED, code)
    assert job.error_message
    assert change.events[0].state_changed.error_code == code
    assert micros(job.completed_at) == LATER


def test_a_job_completed_when_its_supervisor_saw_it_end_where_that_can_be() -> None:
    """However late that is stored."""
    record = a_record(CANCELLING)
    asked = micros(record.job.cancel_requested_at)
    for said, completed in ((LATER - 1, LATER - 1), (asked, asked), (asked - 1, LATER), (LATER + 1, LATER), (0, LATER)):
        change = end(Outcome(reason=EndReason.CANCELLED, ended_at=said))(record)
        assert change is not None
        assert micros(change.record.job.completed_at) == completed
        assert micros(change.events[0].timestamp_utc) == LATER


def test_every_reason_of_an_end_has_a_verdict_in_every_active_state() -> None:
    for reason in EndReason:
        for state in (RUNNING, CANCELLING):
            assert transitions.judge(state, Outcome(reason=reason)).state in TERMINAL


def test_exit_code_and_signal_are_kept() -> None:
    failed, killed = (
        end(FAILURE)(a_record(RUNNING)),
        end(Outcome(reason=EndReason.EXITED, signal=11))(a_record(RUNNING)),
    )
    assert failed is not None
    assert killed is not None
    assert (failed.record.job.exit_code, failed.record.job.HasField("signal")) == (3, False)
    assert (killed.record.job.signal, killed.record.job.HasField("exit_code")) == (11, False)


@pytest.mark.parametrize(("outcome", "state"), [(SUCCESS, COMPLETED), (FAILURE, FAILED)])
def test_a_job_that_ended_by_itself_before_the_first_signal_keeps_its_outcome(
    outcome: Outcome, state: JobState.ValueType
) -> None:
    asked = cancel(a_record(RUNNING))
    assert asked is not None
    change = end(outcome)(asked.record)
    assert change is not None
    assert change.record.job.state == state
    assert change.record.job.HasField("cancel_requested_at"), "that cancellation was asked is still told"


def test_cancelling_keeps_the_intent_with_the_record() -> None:
    for state in (QUEUED, RUNNING):
        change = cancel(a_record(state))
        assert change is not None
        assert change.record.cancel == INTENT
        assert micros(change.record.job.cancel_requested_at) == LATER


def with_attempts(record: JobRecord, most: int, backoff: float = 2.0) -> JobRecord:
    record.job.spec.MergeFrom(JobSpec(max_attempts=most, retry_backoff=duration(backoff)))
    return record


def test_a_failed_attempt_goes_back_to_the_queue_while_attempts_are_left() -> None:
    record = with_attempts(a_record(RUNNING), 3)
    record.job.progress_percent = 40
    change = end(FAILURE)(record)
    assert change is not None
    job = change.record.job
    assert job.state == QUEUED
    assert job.attempt == 1
    assert micros(job.queued_at) == LATER
    for field in ("started_at", "completed_at", "progress_percent", "error_code", "exit_code"):
        assert not job.HasField(field), field
    assert change.events[0].state_changed.error_code == "E_JOB_EXIT_NONZERO"
    assert not transitions.ends_job(record, FAILURE)


def test_the_wait_before_an_attempt_doubles() -> None:
    record, waits = with_attempts(a_record(), 5), []
    for _ in range(4):
        began = start(record)
        assert began is not None
        failed = end(FAILURE)(began.record)
        assert failed is not None
        record = failed.record
        waits.append((record.eligible_at - LATER) / SECOND)
    assert waits == [2, 4, 8, 16]
    last = start(record)
    assert last is not None
    assert last.record.job.attempt == 5
    ended = end(FAILURE)(last.record)
    assert ended is not None
    assert ended.record.job.state == FAILED


@pytest.mark.parametrize(
    ("state", "outcome"),
    [
        (RUNNING, SUCCESS),
        (RUNNING, Outcome(reason=EndReason.UNKILLABLE)),
        (CANCELLING, FAILURE),
        (CANCELLING, Outcome(reason=EndReason.CANCELLED, signal=15)),
    ],
)
def test_no_other_attempt_follows(state: JobState.ValueType, outcome: Outcome) -> None:
    """Success needs none, a cancelled job wants none, and what can't be killed still runs."""
    record = with_attempts(a_record(state), 9)
    assert transitions.ends_job(record, outcome)
    change = end(outcome)(record)
    assert change is not None
    assert change.record.job.state in TERMINAL


def test_progress_says_only_what_was_said() -> None:
    change = transitions.progressed(a_record(RUNNING), 1, ProgressReport(percent=12.5, items_total=8), LATER)
    assert change is not None
    [event] = change.events
    assert (event.event_type, event.progress.progress_percent, event.progress.items_total) == ("job.progress", 12.5, 8)
    assert not event.progress.HasField("phase")
    assert change.record.job.progress_percent == 12.5
    assert not change.record.job.HasField("progress_phase")
    assert change.record.last_activity_at == LATER


def test_the_last_activity_never_goes_back() -> None:
    record = replace(a_record(RUNNING), last_activity_at=LATER + 9)
    change = end(SUCCESS)(record)
    assert change is not None
    assert change.record.last_activity_at == LATER + 9


OUTCOMES = st.builds(
    Outcome,
    reason=st.sampled_from(list(EndReason)),
    exit_code=st.none() | st.integers(0, 255),
    signal=st.none() | st.integers(1, 64),
)
STEPS = st.one_of(
    st.just(start),
    st.just(cancel),
    st.just(expire),
    OUTCOMES.map(end),
    st.just(lambda record: transitions.progressed(record, record.job.attempt, ProgressReport(percent=1), LATER)),
)


@given(steps=st.lists(STEPS, max_size=30), attempts=st.integers(1, 4))
def test_whatever_happens_a_terminal_job_stays_as_it_is(steps: list[Change], attempts: int) -> None:
    """One event for each change of state, none where it stays; attempts only grow, and never past the most."""
    record = with_attempts(a_record(), attempts)
    for step in steps:
        change = step(record)
        if record.job.state in TERMINAL:
            assert change is None
        if change is None:
            continue
        after = change.record
        changed = [event for event in change.events if event.event_type == "job.state_changed"]
        assert len(changed) == (after.job.state != record.job.state)
        assert record.job.attempt <= after.job.attempt <= attempts
        assert after.job.HasField("completed_at") == (after.job.state in TERMINAL)
        assert (after.job.state == FAILED) == after.job.HasField("error_code")
        assert (after.cancel is not None) == after.job.HasField("cancel_requested_at")
        record = after
