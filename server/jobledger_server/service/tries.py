"""Says of what fails and is tried again why it failed: of what nobody foresaw the log has the traceback, once."""

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable, Sequence

from jobledger_server.core.ports import StoreUnavailableError
from jobledger_server.service.overdue import Overdue

log = logging.getLogger(__name__)
FORESEEN = (StoreUnavailableError, OSError)
LONGEST_SECONDS = 300.0
OURS = "a fault of the server's own, which its log has"


class Failures:
    """The failures of one thing that is tried until it succeeds."""

    def __init__(self, what: str) -> None:
        """Nothing has failed yet.

        Args:
            what: what is told of each, such as `the queue can't be read`.
        """
        self._what = what
        self._traced = ""

    def tell(self, error: Exception, pause: float) -> str:
        """Logs one, and that it is tried again in so many seconds. Returns why it failed, in words for everybody."""
        if isinstance(error, FORESEEN):
            log.warning("%s just now, trying again in %.1f s: %s", self._what, pause, error)
            return str(error)
        new, self._traced = repr(error) != self._traced, repr(error)
        told = error if new else None
        log.error("%s, trying again in %.1f s: %s", self._what, pause, self._traced, exc_info=told)
        return OURS


async def until_done(
    work: Callable[[], Awaitable[object]], failures: Failures, overdue: Overdue, pauses: Sequence[float]
) -> None:
    """Does something until it succeeds, whatever it raises. Meanwhile it is overdue."""
    try:
        for number in itertools.count():
            try:
                await work()
                return
            except Exception as error:  # noqa: BLE001 - it is told; given up, what waits for it would be lost
                pause = longer(pauses, number, error)
                overdue.late(work, failures.tell(error, pause))
            await asyncio.sleep(pause)
    finally:
        overdue.over(work)


def longer(pauses: Sequence[float], number: int, error: Exception) -> float:
    """Seconds to wait after the failure of this number, from 0: one of the pauses, the last one again and again.

    After what nobody foresaw it is doubled each time from there, up to LONGEST_SECONDS: it may never succeed.
    """
    last = len(pauses) - 1
    if number <= last or isinstance(error, FORESEEN):
        return pauses[min(number, last)]
    return min(pauses[-1] * 2.0 ** min(number - last, 64), LONGEST_SECONDS)
