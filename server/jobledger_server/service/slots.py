"""How many jobs may run at a time, and which do."""

import asyncio


class Slots:
    """A slot is taken from the start of a job until its end is stored. Adopted jobs may take more than there are."""

    def __init__(self, *, most: int) -> None:
        self.most = most
        self._taken: set[str] = set()
        self._changed = asyncio.Event()

    @property
    def available(self) -> int:
        return max(0, self.most - len(self._taken))

    def take(self, job_id: str) -> bool:
        """False where the job has one already."""
        if job_id in self._taken:
            return False
        self._taken.add(job_id)
        return True

    def free(self, job_id: str) -> None:
        self._taken.discard(job_id)
        self.wake()

    def wake(self) -> None:
        """Lets whoever waits in `changed` look again: a slot was freed, or a job queued."""
        self._changed.set()

    async def changed(self, seconds: float) -> None:
        """Waits for the next `wake` since this was last called, at most so long."""
        try:
            await asyncio.wait_for(self._changed.wait(), seconds)
        except TimeoutError:
            return
        finally:
            self._changed.clear()
