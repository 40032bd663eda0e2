"""Looks every few seconds whether tokens with open streams have ended."""

import asyncio

from jobledger_server.access.live_calls import LiveCalls
from jobledger_server.service.tasks import Background

# A stream whose reader takes nothing is cut off after two of them.
INTERVAL_SECONDS = 10.0


class TokenWatch(Background):
    """Has streams end with their tokens as long as it is open."""

    def __init__(self, live: LiveCalls, *, interval: float = INTERVAL_SECONDS) -> None:
        super().__init__("token watch")
        self._live = live
        self._interval = interval

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            await self._live.sweep()
