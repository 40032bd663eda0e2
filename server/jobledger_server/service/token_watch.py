"""Looks every few seconds whether tokens with open streams have ended."""

import asyncio
from types import TracebackType
from typing import Self

from jobledger_server.access.live_calls import LiveCalls
from jobledger_server.service.tasks import Tasks

# A stream whose reader takes nothing is cut off after two of them.
INTERVAL_SECONDS = 10.0


class TokenWatch:
    """Has streams end with their tokens as long as it is open."""

    def __init__(self, live: LiveCalls, *, interval: float = INTERVAL_SECONDS) -> None:
        self._live = live
        self._interval = interval
        self._tasks = Tasks()

    async def __aenter__(self) -> Self:
        self._tasks.start(self._run(), "token watch")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._tasks.stop()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            await self._live.sweep()
