"""The clock of the real world."""

import os
import time


class SystemClock:
    """Implements `ports.Clock`. The wall clock is held still where the machine's is set back."""

    def __init__(self) -> None:
        self._latest = 0

    def now(self) -> int:
        self._latest = max(self._latest, time.time_ns() // 1000)
        return self._latest

    def monotonic(self) -> float:
        return time.monotonic()

    def random(self, count: int) -> bytes:
        return os.urandom(count)
