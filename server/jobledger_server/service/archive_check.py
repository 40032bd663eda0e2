"""Reads the archive of receipts again and again while the server runs, so that damage is known before it is needed."""

import asyncio
import logging
import time
from collections.abc import Iterator
from pathlib import Path

from jobledger_server.archive.believing import Believed, Trusted, believed
from jobledger_server.archive.files import ReceiptArchive
from jobledger_server.core.ports import Clock
from jobledger_server.core.ports.archive import ArchiveError
from jobledger_server.service.damage import Damage
from jobledger_server.service.tasks import Background

log = logging.getLogger(__name__)
FIRST_SECONDS, INTERVAL_SECONDS = 60.0, 6 * 3600.0
# What a thread does at a time, seconds; and how long it rests then, in times of that: a tenth of the time at work.
TURN_SECONDS, REST = 0.005, 9.0
REMEDY = (
    "Stop the server, move `receipts/` aside, and start it: the archive is made anew out of the database, which has "
    "all of it. Until then a lost database can't be recovered from it"
)


class ArchiveChecker(Background):
    """Checks all of the archive, as `recover` would, soon after the start and then every few hours.

    Args:
        directory: of the archive.
        keys: directory of the installation's keys.
    """

    def __init__(
        self,
        *,
        directory: Path,
        keys: Path,
        clock: Clock,
        damage: Damage,
        first: float = FIRST_SECONDS,
        interval: float = INTERVAL_SECONDS,
        rest: float = REST,
    ) -> None:
        super().__init__("archive check")
        self._directory = directory
        self._keys = keys
        self._clock = clock
        self._damage = damage
        self._first = first
        self._interval = interval
        self._rest = rest

    async def check(self) -> None:
        """Reads all of it once, and takes note of what is wrong."""
        trouble = ""
        try:
            receipts = await asyncio.to_thread(self._open)
            spent = TURN_SECONDS
            while spent:
                spent = await asyncio.to_thread(_some_of, receipts)
                await asyncio.sleep(self._rest * spent)
        except (ArchiveError, OSError) as error:
            trouble = str(error)
        if trouble:
            log.error("the archive of receipts is damaged: %s. %s", trouble, REMEDY)
        self._damage.archive, self._damage.archive_checked_at = trouble, self._clock.now()

    def _open(self) -> Iterator[Believed]:
        archive, trusted = ReceiptArchive(self._directory), Trusted.read(self._keys)
        trusted.deleted(archive)
        return believed(archive, trusted)

    async def _run(self) -> None:
        await asyncio.sleep(self._first)
        while True:
            await self.check()
            await asyncio.sleep(self._interval)


def _some_of(receipts: Iterator[Believed]) -> float:
    """Checks some more. Seconds that it took; 0 where there are no more."""
    began = time.perf_counter()
    for _ in receipts:
        spent = time.perf_counter() - began
        if spent >= TURN_SECONDS:
            return spent
    return 0.0
