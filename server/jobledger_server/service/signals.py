"""Wakes those who wait for something to happen to a job."""

import asyncio
from collections import defaultdict


class JobSignals:
    """`notify` wakes everybody who waits for that job at the moment. Hints, not data: look again after waking."""

    def __init__(self) -> None:
        self._waiting: defaultdict[str, set[asyncio.Future[None]]] = defaultdict(set)

    def notify(self, job_id: str) -> None:
        for future in self._waiting.pop(job_id, ()):
            if not future.done():
                future.set_result(None)

    def waiter(self, job_id: str) -> asyncio.Future[None]:
        """A future for the next `notify`. Take it before looking, so that nothing is missed in between."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[job_id].add(future)
        future.add_done_callback(lambda done: self._forget(job_id, done))
        return future

    def _forget(self, job_id: str, future: asyncio.Future[None]) -> None:
        waiting = self._waiting.get(job_id)
        if waiting is not None:
            waiting.discard(future)
            if not waiting:
                del self._waiting[job_id]


async def wait_at_most(future: asyncio.Future[None], seconds: float) -> bool:
    """Whether the future was done in time; it is cancelled if not."""
    try:
        # Not `wait_for`: before Python 3.12 it takes a cancellation for the result where both come at once.
        async with asyncio.timeout(seconds):
            await future
    except TimeoutError:
        return False
    return True
