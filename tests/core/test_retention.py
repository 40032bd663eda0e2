"""How long things are kept: nothing younger than its rule ever goes, and what has no rule stays."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jobledger_server.core.ports import Kept, LogSummary
from jobledger_server.core.retention import (
    DEFAULT_RETENTION,
    Retention,
    age_of,
    age_text,
    expired,
    kept_of,
    retention_of,
)
from jobledger_server.core.times import SECOND, micros
from support.records import CANCELLED, COMPLETED, FAILED, NOW, an_event

ages = st.one_of(st.none(), st.integers(0, 400 * 86_400).map(lambda seconds: seconds * SECOND))
rules = st.fixed_dictionaries(dict.fromkeys(Kept, ages))


@settings(deadline=None)
@given(rules)
def test_rules_read_back_as_they_are_written(ages: dict[Kept, int | None]) -> None:
    written = str(Retention(ages))
    assert retention_of((name, age) for name, _, age in (rule.partition("=") for rule in written.split(","))) == (
        Retention(ages)
    )


@settings(deadline=None)
@given(rules, st.sampled_from(list(Kept)), st.integers(0, 10**9))
def test_nothing_goes_before_its_age_and_nothing_for_ever(
    ages: dict[Kept, int | None], kept: Kept, seconds: int
) -> None:
    cutoff = Retention(ages).cutoff(kept, NOW)
    age = ages[kept]
    if age is None:
        assert cutoff is None
    else:
        assert cutoff is not None
        assert (NOW - seconds * SECOND < cutoff) == (seconds * SECOND > age)


@settings(deadline=None)
@given(st.lists(st.integers(-10, 10)), st.integers(-10, 10))
def test_events_go_from_the_first_to_the_last_before_one_that_stays(times: list[int], cutoff: int) -> None:
    """Also where the clock was set back between them: what stays is dense, and none of it is too young to go."""
    events = [an_event(NOW + time) for time in times]
    gone = expired(events, NOW + cutoff)
    assert list(gone) == events[: len(gone)]
    assert all(micros(event.timestamp_utc) < NOW + cutoff for event in gone)
    assert len(gone) == len(events) or micros(events[len(gone)].timestamp_utc) >= NOW + cutoff


@pytest.mark.parametrize(
    ("log", "kept"),
    [
        (LogSummary(entries=3), Kept.LOGS_INFO),
        (LogSummary(entries=3, warnings=1), Kept.LOGS_WARN),
        (LogSummary(entries=3, errors=1), Kept.LOGS_ERROR),
        (LogSummary(entries=3, warnings=1, errors=1), Kept.LOGS_ERROR),
    ],
)
def test_a_log_is_kept_by_the_worst_that_is_in_it(log: LogSummary, kept: Kept) -> None:
    assert kept_of(COMPLETED, log)[0] == kept


def test_a_directory_is_kept_by_how_its_job_ended() -> None:
    assert [kept_of(state, LogSummary())[1].value for state in (COMPLETED, FAILED, CANCELLED)] == [
        "job_dirs.completed",
        "job_dirs.failed",
        "job_dirs.cancelled",
    ]


def test_what_is_not_named_keeps_its_default() -> None:
    given_one = retention_of([("logs.error", "1h")])
    assert given_one.ages == {**DEFAULT_RETENTION.ages, Kept.LOGS_ERROR: 3600 * SECOND}


def test_by_default_no_job_and_no_log_with_errors_goes() -> None:
    assert [kept for kept in Kept if DEFAULT_RETENTION.cutoff(kept, NOW) is None] == [Kept.LOGS_ERROR, Kept.JOBS]


@pytest.mark.parametrize("text", ["0s", "90s", "45m", "24h", "7d", "never"])
def test_an_age_means_the_same_when_it_is_shown(text: str) -> None:
    assert age_of(age_text(age_of(text))) == age_of(text)


@pytest.mark.parametrize("text", ["", "7", "7w", "-1d", "1.5h", " 7d", "d", "Never", "9999999999d"])
def test_what_is_no_age_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="^" + text.replace(".", r"\.") + "$"):
        age_of(text)
