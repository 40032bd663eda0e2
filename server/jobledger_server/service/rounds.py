"""Waking thousands of waiters without keeping everybody else waiting."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import TypeAlias

log = logging.getLogger(__name__)
# Waiters that are woken between two turns of the loop: what they do takes some milliseconds.
SLICE = 64
# How long the waiters are left alone after a round, as a share of what the round took.
REST = 0.25

Serve: TypeAlias = Callable[[], bool]


class Rounds:
    """Tells waiters that there is news: in rounds, a few at a time, and with a rest after each round.

    What comes up meanwhile is for the next round, where each waiter finds all of it at once. So many waiters and much
    news make rounds longer, and never take the loop from other work; a few waiters are woken without delay.
    """

    def __init__(self) -> None:
        self._news = 0
        self._waiting: deque[tuple[asyncio.Future[None], Serve]] = deque()
        self._round: deque[tuple[asyncio.Future[None], Serve]] = deque()
        self._began = 0.0
        self._told = 0
        self._next: asyncio.Handle | None = None

    @property
    def news(self) -> int:
        """How often there was news: for `wait`, to be taken before looking for it."""
        return self._news

    async def wait(self, news: int, serve: Serve = lambda: False) -> None:
        """Returns when there is more news than so much, unless `serve`, called instead, says that it has seen to it."""
        if news == self._news:
            waiter = asyncio.get_running_loop().create_future()
            self._waiting.append((waiter, serve))
            await waiter

    def tell(self) -> None:
        """There is news."""
        self._news += 1
        if self._next is None:
            self._begin()

    def _begin(self) -> None:
        self._began = asyncio.get_running_loop().time()
        self._told = self._news
        self._round, self._waiting = self._waiting, self._round
        self._go_on()

    def _go_on(self) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(min(SLICE, len(self._round))):
            waiter, serve = self._round.popleft()
            if waiter.done():
                continue
            if _served(serve):
                self._waiting.append((waiter, serve))
            else:
                waiter.set_result(None)
        if self._round:
            self._next = loop.call_soon(self._go_on)
            return
        now = loop.time()
        self._next = loop.call_at(now + REST * (now - self._began), self._end)

    def _end(self) -> None:
        self._next = None
        if self._news != self._told:
            self._begin()


def _served(serve: Serve) -> bool:
    try:
        return serve()
    except Exception:
        log.exception("a waiter could not be served in its absence")
        return False
