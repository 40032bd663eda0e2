"""How many jobs may run at a time, in all and of each concurrency group, and which do."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress

from jobledger_server.core.concurrency import NO_LIMITS, ConcurrencyLimits


class Slots:
    """A slot is taken from the start of a job until its end is stored. Adopted jobs may take more than there are.

    Attributes:
        most: slots in all.
        limits: how many of them the jobs of a group may take.
        closed: whether none is given any more.
        starting: jobs that have a slot and whose start is under way: their state is still `queued`.
        starved: those of them for which the machine has no room just now.
    """

    def __init__(self, *, most: int, limits: ConcurrencyLimits = NO_LIMITS) -> None:
        self.most = most
        self.limits = limits
        self.closed = False
        self.starting: set[str] = set()
        self.starved: set[str] = set()
        self._taken: dict[str, tuple[int, Sequence[str]]] = {}
        self._running: Counter[str] = Counter()
        self._changed = asyncio.Event()

    @property
    def available(self) -> int:
        return 0 if self.closed else max(0, self.most - len(self._taken))

    def full_groups(self) -> frozenset[str]:
        """The concurrency groups of which no further job may run."""
        return frozenset(group for group in self._running if self._is_full(group))

    def why_full(self, groups: Sequence[str]) -> str | None:
        """Which of the groups is full, in words; None where there is room in each."""
        full = next(filter(self._is_full, groups), None)
        return full and f"{full} is full ({self._running[full]} of {self.limits.most(full)} running)"

    def take(self, job_id: str, attempt: int, groups: Sequence[str] = ()) -> bool:
        """False where the job has one already. Whether there is room is for the caller to look at before."""
        if job_id in self._taken:
            return False
        self._taken[job_id] = (attempt, groups)
        self._running.update(groups)
        return True

    def free(self, job_id: str, attempt: int) -> None:
        """Nothing happens where another attempt has the job's slot by now: an end may be told twice."""
        holder, groups = self._taken.get(job_id, (None, ()))
        if holder == attempt:
            del self._taken[job_id]
            self._running -= Counter(groups)
        self.wake()

    def close(self) -> None:
        """From now on none is available: what waits goes on waiting."""
        self.closed = True

    def wake(self) -> None:
        """Lets whoever waits in `changed` look again: a slot was freed, or a job queued."""
        self._changed.set()

    async def changed(self, seconds: float) -> None:
        """Waits for the next `wake` since this was last called, at most so long."""
        with suppress(TimeoutError):
            # Not `wait_for`: before Python 3.12 it takes a cancellation for a wake-up where both come at once.
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        self._changed.clear()

    def _is_full(self, group: str) -> bool:
        return self._running[group] >= self.limits.most(group)
