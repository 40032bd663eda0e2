"""How many may watch health, which takes no token: a watch lasts, while a check is over at once and takes no place."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from jobledger_server.api.types import Context, Stream
from jobledger_server.core.errors import Reason, ServiceError

MOST_WATCHES = 128
PEER_WATCHES = 16
WATCH_SECONDS = 600.0
RETRY_SECONDS = 5.0


class Watches:
    """Counts the watches of each connection, and of all.

    Args:
        most: at a time.
        of_peer: of them, of one connection; those by a unix socket, all of this user, are as of one.
        seconds: that one may last.
    """

    def __init__(
        self, *, most: int = MOST_WATCHES, of_peer: int = PEER_WATCHES, seconds: float = WATCH_SECONDS
    ) -> None:
        self._most = most
        self._most_of_peer = of_peer
        self._seconds = seconds
        self._of_peer: dict[str, int] = {}
        self.under_way = 0

    def enter(self, peer: str) -> None:
        """Takes a place.

        Raises:
            ServiceError: OVERLOADED, where there is none, or the connection has its share.
        """
        mine = self._of_peer.get(peer, 0)
        if self.under_way >= self._most or mine >= self._most_of_peer:
            told = "Too many watch health already: call Check instead, or one Watch for a connection"
            raise ServiceError(Reason.ERROR_REASON_OVERLOADED, told, retry_after=RETRY_SECONDS)
        self._of_peer[peer] = mine + 1
        self.under_way += 1

    def leave(self, peer: str) -> None:
        """Gives it back."""
        self.under_way -= 1
        self._of_peer[peer] -= 1
        if not self._of_peer[peer]:
            del self._of_peer[peer]

    def stream(self, call: Stream) -> Stream:
        """The behaviour, counted, and ended when it is old."""

        async def counted(request: Any, context: Context) -> AsyncIterator[Any]:
            peer = context.peer()
            self.enter(peer)
            try:
                async with aclosing(call(request, context)) as responses:  # type: ignore[type-var]
                    async for response in self._until_old(responses):
                        yield response
            finally:
                self.leave(peer)

        return counted

    async def _until_old(self, responses: AsyncIterator[Any]) -> AsyncIterator[Any]:
        end = asyncio.get_running_loop().time() + self._seconds
        while True:
            try:
                # Around what we wait for alone: between two responses the task is elsewhere.
                async with asyncio.timeout_at(end):
                    response = await anext(responses)
            except StopAsyncIteration:
                return
            except TimeoutError:
                told = f"A watch lasts {self._seconds:.0f} s: watch again"
                raise ServiceError(Reason.ERROR_REASON_DEADLINE, told) from None
            yield response
