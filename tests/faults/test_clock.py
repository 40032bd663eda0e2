"""The machine's clock may be set back or forward at any time: what is recorded stays in order."""

import os
import random
import time

import pytest
from jobledger_server.core import transitions
from jobledger_server.core.clock import SystemClock
from jobledger_server.core.ports import EndReason, Outcome, Running
from jobledger_server.core.times import SECOND, micros
from support.records import NOW, a_record

HOUR = 3600 * SECOND


class Machine:
    """A clock that somebody sets: forward by two hours at most, back by as much, and it runs in between."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._micros = NOW

    def time_ns(self) -> int:
        self._micros += self._random.choice((1, SECOND, self._random.randint(-2 * HOUR, 2 * HOUR)))
        return self._micros * 1000


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SystemClock:
    seed = int(os.environ.get("JOBLEDGER_SEED", "0")) or int.from_bytes(os.urandom(4))
    print(f"seed {seed}")
    monkeypatch.setattr(time, "time_ns", Machine(seed).time_ns)
    return SystemClock()


def test_the_wall_clock_never_goes_back(clock: SystemClock) -> None:
    seen = [clock.now() for _ in range(10_000)]
    assert seen == sorted(seen)


def test_the_wall_clock_goes_on_where_the_machines_has_caught_up(monkeypatch: pytest.MonkeyPatch) -> None:
    instants = iter((NOW, NOW - HOUR, NOW - 1, NOW + 1))
    monkeypatch.setattr(time, "time_ns", lambda: next(instants) * 1000)
    clock = SystemClock()
    assert [clock.now() for _ in range(4)] == [NOW, NOW, NOW, NOW + 1]


def test_setting_the_clock_does_not_touch_timeouts(clock: SystemClock) -> None:
    before = clock.monotonic()
    clock.now()
    assert 0 <= clock.monotonic() - before < 60


def test_the_instants_of_a_job_and_of_its_events_are_in_order(clock: SystemClock) -> None:
    for _ in range(500):
        record = a_record(created_at=clock.now())
        started = transitions.started(record, 1, Running(pid=1, started_at=clock.now()), clock.now())
        assert started
        outcome = Outcome(reason=EndReason.EXITED, exit_code=0)
        ended = transitions.ended(started.record, 1, outcome, clock.now())
        assert ended
        last = ended.record.job
        instants = [last.created_at, last.queued_at, last.started_at, last.completed_at]
        assert instants == sorted(instants, key=micros)
        events = [transitions.accepted(record), *started.events, *ended.events]
        assert events == sorted(events, key=lambda event: micros(event.timestamp_utc))
