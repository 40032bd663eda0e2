"""How many jobs may run at a time, and which do."""

import asyncio
from contextlib import suppress


class Slots:
    """A slot is taken from the start of a job until its end is stored. Adopted jobs may take more than there are."""

    def __init__(self, *, most: int) -> None:
        self.most = most
        self._taken: dict[str, int] = {}
        self._closed = False
        self._changed = asyncio.Event()

    @property
    def available(self) -> int:
        return 0 if self._closed else max(0, self.most - len(self._taken))

    def take(self, job_id: str, attempt: int) -> bool:
        """False where the job has one already."""
        if job_id in self._taken:
            return False
        self._taken[job_id] = attempt
        return True

    def free(self, job_id: str, attempt: int) -> None:
        """Nothing happens where another attempt has the job's slot by now: an end may be told twice."""
        if self._taken.get(job_id) == attempt:
            del self._taken[job_id]
        self.wake()

    def close(self) -> None:
        """From now on none is available: what waits goes on waiting."""
        self._closed = True

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
