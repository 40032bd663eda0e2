"""A clock that a test sets."""

import hashlib

from jobledger_server.core.times import SECOND
from support.records import NOW


class ManualClock:
    """Implements `ports.Clock`. Time stands still between calls of `advance`; randomness is the same in every run."""

    def __init__(self, now: int = NOW) -> None:
        self._now = now
        self._monotonic = 1000.0
        self._draws = 0

    def now(self) -> int:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    def random(self, count: int) -> bytes:
        self._draws += 1
        return hashlib.shake_256(self._draws.to_bytes(8)).digest(count)

    def advance(self, seconds: float) -> None:
        """Moves both clocks on."""
        self._now += round(seconds * SECOND)
        self._monotonic += seconds
