"""Hears what the executor tells, and passes it on to those whose business it is."""

import asyncio
import logging
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from jobledger_server.core import transitions
from jobledger_server.core.ports import Clock, Outcome, ProgressReport, Store, StoreUnavailableError
from jobledger_server.service.declaring import Declaring
from jobledger_server.service.finishing import Finisher
from jobledger_server.service.signals import JobSignals
from jobledger_server.service.tasks import Tasks

log = logging.getLogger(__name__)
ACTIVITY_SECONDS = 1.0


class Listener:
    """Implements `ports.ExecutorListener`. `finisher` is set once both exist."""

    def __init__(self, *, store: Store, clock: Clock, signals: JobSignals, declaring: Declaring) -> None:
        self._store = store
        self._clock = clock
        self._signals = signals
        self._declaring = declaring
        self._tasks = Tasks()
        self._active: set[str] = set()
        self.finisher: Finisher | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._tasks.stop()

    def attempt_ended(self, job_id: str, attempt: int, outcome: Outcome) -> None:
        if self.finisher is None:
            raise RuntimeError("the listener has no finisher yet")
        self._tasks.start(self.finisher.attempt_ended(job_id, attempt, outcome), f"end {job_id}")

    def job_progressed(self, job_id: str, attempt: int, report: ProgressReport) -> None:
        self._tasks.start(self._store_progress(job_id, attempt, report), f"progress {job_id}")

    def artifacts_declared(self, job_id: str, attempt: int, paths: Sequence[str]) -> None:
        self._tasks.start(self._store_declared(job_id, attempt, paths), f"artifacts {job_id}")

    def log_grew(self, job_id: str) -> None:
        self._signals.notify(job_id)
        if job_id not in self._active:
            self._active.add(job_id)
            self._tasks.start(self._note_activity(job_id), f"activity {job_id}")

    async def _store_progress(self, job_id: str, attempt: int, report: ProgressReport) -> None:
        try:
            await self._store.update_job(
                job_id, lambda record: transitions.progressed(record, attempt, report, self._clock.now())
            )
        except StoreUnavailableError as error:
            log.warning("progress of %s can't be stored just now: %s", job_id, error)

    async def _store_declared(self, job_id: str, attempt: int, paths: Sequence[str]) -> None:
        """At the end of the attempt all are told again, so that none is lost for good."""
        try:
            await self._declaring.declare(job_id, attempt, paths)
        except StoreUnavailableError as error:
            log.warning("artifacts of %s can't be stored just now: %s", job_id, error)

    async def _note_activity(self, job_id: str) -> None:
        """Stores the time of the latest log entry, at most once a second for each job."""
        try:
            await self._store.record_activity(job_id, self._clock.now())
            await asyncio.sleep(ACTIVITY_SECONDS)
        except StoreUnavailableError as error:
            log.warning("activity of %s can't be stored just now: %s", job_id, error)
        finally:
            self._active.discard(job_id)
