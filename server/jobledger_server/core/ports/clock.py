"""Time and randomness."""

from typing import Protocol


class Clock(Protocol):
    """Time and randomness, so that both can be simulated."""

    def now(self) -> int:
        """Wall clock, microseconds since the epoch. Never goes back within a process."""

    def monotonic(self) -> float:
        """Seconds on a clock that only goes forward."""

    def random(self, count: int) -> bytes:
        """`count` unpredictable bytes."""
