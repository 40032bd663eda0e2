"""One lock for each job, so that starting, cancelling and ending it never interleave."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class JobLocks:
    """Locks by job_id; one exists only while somebody holds it or waits for it."""

    def __init__(self) -> None:
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}

    @asynccontextmanager
    async def hold(self, job_id: str) -> AsyncIterator[None]:
        lock, users = self._locks.get(job_id, (asyncio.Lock(), 0))
        self._locks[job_id] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            lock, users = self._locks.pop(job_id)
            if users > 1:
                self._locks[job_id] = (lock, users - 1)
