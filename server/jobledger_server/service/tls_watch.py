"""Looks whether the files of TLS have changed, and when it is told to."""

import asyncio
import logging

from jobledger_server.access.server_tls import ServerTls
from jobledger_server.service.tasks import Background

log = logging.getLogger(__name__)
INTERVAL_SECONDS = 10.0


class TlsWatch(Background):
    """Has changed files count as long as it is open: at most an interval after they have changed."""

    def __init__(self, tls: ServerTls, *, interval: float = INTERVAL_SECONDS) -> None:
        super().__init__("TLS watch")
        self.tls = tls
        self._interval = interval
        self._told = asyncio.Event()

    def look(self) -> None:
        """Reads the files soon, changed or not."""
        self._told.set()

    async def _run(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._interval):
                    await self._told.wait()
            except TimeoutError:
                if not await asyncio.to_thread(self.tls.changed):
                    continue
            self._told.clear()
            material = await asyncio.to_thread(self.tls.read)
            try:
                if material is not None:
                    self.tls.take(material)
            except OSError as error:
                log.warning("the new certificate serves, but clients can't be told of it: %s", error)
