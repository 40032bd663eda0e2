"""The memory of the throttle is bounded."""

import pytest
from jobledger_server.access.throttle import FailureThrottle
from jobledger_server.core.errors import ServiceError
from support.clock import ManualClock


def test_the_longest_silent_peer_is_forgotten_first() -> None:
    throttle = FailureThrottle(clock=ManualClock(), limit=1, peers=2)
    for peer in ("one", "two", "three"):
        throttle.failed(peer)
    throttle.failed("one")  # forgotten, so this is its first
    with pytest.raises(ServiceError):
        throttle.failed("three")


def test_the_wait_is_at_least_a_second() -> None:
    clock = ManualClock()
    throttle = FailureThrottle(clock=clock, limit=1, window=60)
    throttle.failed("peer")
    clock.advance(59.9)
    with pytest.raises(ServiceError) as caught:
        throttle.failed("peer")
    assert caught.value.retry_after == 1
