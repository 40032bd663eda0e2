"""Ranges of bytes, identifiers, instants, labels, states."""

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st
from jobledger.v1.job_pb2 import JobState
from jobledger_server.core.clock import SystemClock
from jobledger_server.core.errors import Reason, ServiceError
from jobledger_server.core.ids import is_job_id, log_entry_id, ulid
from jobledger_server.core.labels import parse_labels
from jobledger_server.core.ranges import byte_range
from jobledger_server.core.states import ACTIVE, LIVE, TERMINAL, is_terminal, short_name
from jobledger_server.core.times import SECOND, duration, micros, rfc3339, seconds, timestamp
from support.records import NOW, STATES

YEARS = st.integers(-62_135_596_800 * SECOND, 253_402_300_799 * SECOND)


@given(size=st.integers(0, 50), offset=st.integers(-60, 60), length=st.none() | st.integers(1, 60))
def test_a_range_is_what_slicing_gives(size: int, offset: int, length: int | None) -> None:
    content = bytes(range(size))
    start = max(0, size + offset) if offset < 0 else offset
    wanted = content[start:] if length is None else content[start : start + length]
    if start > size or (start == size and (size or length is not None)):
        with pytest.raises(ServiceError) as caught:
            byte_range(size, offset=offset, length=length)
        assert caught.value.reason == Reason.ERROR_REASON_RANGE_NOT_SATISFIABLE
        assert caught.value.metadata == {"size": str(size)}
        assert not wanted
        return
    part = byte_range(size, offset=offset, length=length)
    assert content[part.start : part.start + part.length] == wanted
    assert (len(wanted), size) == (part.length, part.size)


def test_the_whole_of_nothing_is_a_range_and_a_part_of_it_is_none() -> None:
    assert byte_range(0, offset=0, length=None).length == 0
    for offset, length in ((0, 1), (1, None)):
        with pytest.raises(ServiceError):
            byte_range(0, offset=offset, length=length)


@pytest.mark.parametrize(("offset", "length"), [(10, None), (10, 1), (11, None)])
def test_a_range_beyond_the_end_can_not_be_had(offset: int, length: int | None) -> None:
    with pytest.raises(ServiceError, match="10 bytes"):
        byte_range(10, offset=offset, length=length)


@given(instant=st.integers(0, 2**48 * 1000 - 1), randomness=st.binary(min_size=10, max_size=10))
def test_a_job_id_is_a_ulid_in_lower_case(instant: int, randomness: bytes) -> None:
    text = ulid(instant, randomness)
    assert is_job_id(f"job_{text}")
    assert text == text.lower()
    assert len(text) == 26


@given(st.lists(st.integers(0, 2**48 - 1), min_size=2, max_size=2, unique=True))
def test_ids_sort_by_their_time(millis: list[int]) -> None:
    earlier, later = sorted(millis)
    assert ulid(earlier * 1000, b"\xff" * 10) < ulid(later * 1000, b"\0" * 10)


def test_ids_differ_by_their_randomness() -> None:
    assert ulid(NOW, b"\0" * 10) != ulid(NOW, b"\0" * 9 + b"\1")


@pytest.mark.parametrize(
    "text",
    ["", "job_", "run_" + "0" * 26, "job_" + "0" * 25, "job_" + "0" * 27, "job_8" + "0" * 25, "job_" + "0" * 25 + "u"],
)
def test_what_is_no_job_id(text: str) -> None:
    assert not is_job_id(text)
    assert not is_job_id(text + "\n")
    assert not is_job_id(text.upper())


@given(
    st.tuples(st.integers(1, 2**23 - 1), st.integers(1, 2**30 - 1)),
    st.tuples(st.integers(1, 2**23 - 1), st.integers(1, 2**30 - 1)),
)
def test_ids_of_log_entries_differ_and_stay_exact_in_json(one: tuple[int, int], other: tuple[int, int]) -> None:
    assert (log_entry_id(*one) == log_entry_id(*other)) == (one == other)
    assert log_entry_id(*one) < 2**53


@given(YEARS)
def test_an_instant_comes_back_as_it_was(instant: int) -> None:
    assert micros(timestamp(instant)) == instant


def test_instants_are_rounded_down() -> None:
    assert micros(Timestamp(seconds=1, nanos=999_999_999)) == 1_999_999
    assert micros(Timestamp(seconds=-1, nanos=1)) == -1_000_000


@pytest.mark.parametrize("beyond", [2**62, -(2**62)])
def test_an_instant_beyond_the_calendar_is_its_end(beyond: int) -> None:
    """A caller may send any 64 bits, and a database takes no more than those."""
    assert abs(micros(Timestamp(seconds=beyond))) < 2**63


def test_rfc3339_has_six_digits_and_z() -> None:
    assert rfc3339(NOW) == "2026-01-02T03:04:05.000000Z"
    assert rfc3339(NOW + 5) == "2026-01-02T03:04:05.000005Z"


@given(st.floats(0, 1e6))
def test_spans_keep_their_microseconds(span: float) -> None:
    assert seconds(duration(span)) == pytest.approx(span, abs=1e-6)


def test_labels_are_divided_at_the_first_equals_sign() -> None:
    assert parse_labels(["a=b", "a=b=c", "a="]) == (("a", "b"), ("a", "b=c"), ("a", ""))


def test_every_state_is_terminal_or_live() -> None:
    assert set(STATES) == TERMINAL | LIVE
    assert not TERMINAL & LIVE
    assert ACTIVE < LIVE
    assert {state for state in STATES if is_terminal(state)} == TERMINAL
    assert short_name(JobState.JOB_STATE_CANCELLING) == "cancelling"


def test_the_clock_stands_still_where_the_machines_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    wall = iter([5_000_000, 4_000_000, 6_000_000])
    monkeypatch.setattr("time.time_ns", lambda: next(wall))
    clock = SystemClock()
    assert [clock.now(), clock.now(), clock.now()] == [5000, 5000, 6000]
    assert len(clock.random(10)) == 10
    assert clock.monotonic() <= clock.monotonic()
