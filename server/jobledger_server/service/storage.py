"""The room on the disk: what the data directory takes, what the disk has left, and when that is too little."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping

from jobledger_server.core.errors import Reason, ServiceError
from jobledger_server.core.ports import Clock

log = logging.getLogger(__name__)

# For how long what the disk has left is taken to be the same, seconds.
FRESH_SECONDS = 1.0
RETRY_SECONDS = 5.0


class Storage:
    """Sizes as the last sweep found them, and the disk as it is now.

    Args:
        free: asks how many bytes the disk has left; may block.
        warn_free_bytes: with less the engine's health says so.
        min_free_bytes: with less no new jobs and no follow-ups are accepted, so that jobs which run find room for
            their end.
    """

    def __init__(self, *, clock: Clock, free: Callable[[], int], warn_free_bytes: int, min_free_bytes: int) -> None:
        self._clock = clock
        self._free = free
        self._warn = warn_free_bytes
        self._min = min_free_bytes
        self._seen: tuple[float, int] | None = None
        self.bytes_of: Mapping[str, int] = {}
        self.swept_at: int | None = None
        self.collected: Counter[str] = Counter()

    def measured(self, bytes_of: Mapping[str, int]) -> None:
        """Takes note of what there is now, bytes by class."""
        self.bytes_of, self.swept_at = dict(bytes_of), self._clock.now()

    async def free_bytes(self) -> int:
        """What the disk has left; not older than a second."""
        now = self._clock.monotonic()
        if self._seen is None or now - self._seen[0] >= FRESH_SECONDS:
            self._seen = (now, await self._ask())
        return self._seen[1]

    async def _ask(self) -> int:
        try:
            return await asyncio.to_thread(self._free)
        except OSError as error:
            log.warning("the disk can't be asked what it has left, which is taken for nothing: %s", error)
            return 0

    async def trouble(self) -> str:
        """What is wrong with the disk; empty where nothing is."""
        free = await self.free_bytes()
        if free >= max(self._warn, self._min):
            return ""
        told = f"low disk: {_mebibytes(free)} left"
        return f"{told}, no new jobs are accepted" if free < self._min else told

    async def require_room(self) -> None:
        """Raises ENGINE_SAFE_MODE where the disk has too little left for new jobs and follow-ups."""
        free = await self.free_bytes()
        if free < self._min:
            raise ServiceError(
                Reason.ERROR_REASON_ENGINE_SAFE_MODE,
                f"The server's disk has {_mebibytes(free)} left, and new jobs and follow-ups are accepted from"
                f" {_mebibytes(self._min)} on: free some space (`jobledger gc --dry-run` says what could go), or lower"
                " min_free_bytes",
                retry_after=RETRY_SECONDS,
            )


def _mebibytes(count: int) -> str:
    return f"{count / 2**20:.0f} MiB"
