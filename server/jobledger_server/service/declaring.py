"""Artifacts that jobs declare while they run: rows and events that say `pending`."""

from collections.abc import Sequence

from jobledger_server.core import artifacts
from jobledger_server.core.ports import Clock, Store
from jobledger_server.service.locks import JobLocks


class Declaring:
    """Stores what attempts declare."""

    def __init__(self, *, store: Store, clock: Clock, locks: JobLocks) -> None:
        self._store = store
        self._clock = clock
        self._locks = locks

    async def declare(self, job_id: str, attempt: int, paths: Sequence[str]) -> None:
        """Stores those that are new. Nothing happens where the attempt has ended.

        Args:
            paths: all that the attempt has declared so far, or the first of them.

        Raises:
            StoreUnavailableError: nothing was stored, or all of it; doing it again is safe.
        """
        if not paths:
            return
        # The lock: nobody else adds to them, and a start that is under way is stored first.
        async with self._locks.hold(job_id):
            known = {artifact.path for artifact in await self._store.artifacts(job_id)}
            new = [path for path in paths if path not in known]
            if not new:
                return
            first_id = await self._store.reserve_artifact_ids(len(new))
            await self._store.update_job(
                job_id,
                lambda record: artifacts.declared(record, attempt, new, first_id=first_id, now=self._clock.now()),
            )
