"""Has a pass over the garbage made every few minutes, at a pace at which nobody notices."""

import asyncio
import logging

from jobledger_server.core.ports import StoreUnavailableError
from jobledger_server.service.garbage import GarbageCollector
from jobledger_server.service.storage import Storage
from jobledger_server.service.tasks import Background

log = logging.getLogger(__name__)
FIRST_SECONDS, INTERVAL_SECONDS = 5.0, 300.0
# A fifth of the time at work, at most.
REST = 4.0


class Sweeper(Background):
    """Makes passes in the background as long as it is open: soon after it is, and then after each interval."""

    def __init__(
        self,
        *,
        garbage: GarbageCollector,
        storage: Storage,
        first: float = FIRST_SECONDS,
        interval: float = INTERVAL_SECONDS,
    ) -> None:
        super().__init__("sweep")
        self._garbage = garbage
        self._storage = storage
        self._first = first
        self._interval = interval

    async def _run(self) -> None:
        await asyncio.sleep(self._first)
        while True:
            try:
                await self._garbage.collect(rest=REST)
            except (StoreUnavailableError, OSError) as error:
                log.warning("the sweep could not do all of its work, and goes on in the next: %s", error)
            if trouble := await self._storage.trouble():
                log.warning("%s", trouble)
            await asyncio.sleep(self._interval)
