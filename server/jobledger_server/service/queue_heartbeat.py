"""Tells watchers which jobs still wait: at what place, for how long, and why."""

import asyncio
import logging

from jobledger.v1.events_pb2 import Event, QueueHeartbeat

from jobledger_server.core.concurrency import FOR_A_SLOT, FOR_ITS_BACKOFF, FOR_ITS_START, FOR_ROOM
from jobledger_server.core.ports import Clock, JobRecord, Store, StoreUnavailableError
from jobledger_server.core.times import SECOND, micros, timestamp
from jobledger_server.core.transitions import event_job
from jobledger_server.service.events import EventHub
from jobledger_server.service.slots import Slots
from jobledger_server.service.tasks import Background

log = logging.getLogger(__name__)
AT_MOST = 100
# Later than any instant: jobs that wait out a backoff have their place in the queue too.
WHENEVER = 2**63 - 1


class QueueHeart(Background):
    """Beats while somebody watches: an event for each of the first jobs in the queue that has waited half an interval.

    A job is so told of after an interval on average, and not at all where it has to wait for no more than a moment.
    """

    def __init__(self, *, store: Store, clock: Clock, events: EventHub, slots: Slots, interval: float) -> None:
        super().__init__("queue heartbeat")
        self._store = store
        self._clock = clock
        self._events = events
        self._slots = slots
        self._interval = interval

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            if not self._events.watchers:
                continue
            try:
                await self._beat()
            except StoreUnavailableError as error:
                log.warning("the watchers can't be told of the queue just now: %s", error)

    async def _beat(self) -> None:
        now = self._clock.now()
        queue = await self._store.queued_jobs(now=WHENEVER, limit=AT_MOST)
        events = [
            _event(record, position, now, self._reason(record, now))
            for position, record in enumerate(queue, 1)
            if now - micros(record.job.queued_at) >= self._interval * SECOND / 2
        ]
        if events:
            await self._store.append_events(events)

    def _reason(self, record: JobRecord, now: int) -> str:
        job_id = record.job.job_id
        if record.eligible_at > now:
            return FOR_ITS_BACKOFF
        if job_id in self._slots.starved:
            return FOR_ROOM
        if job_id in self._slots.starting:
            return FOR_ITS_START
        return self._slots.why_full(record.concurrency_groups) or FOR_A_SLOT


def _event(record: JobRecord, position: int, now: int, reason: str) -> Event:
    heartbeat = QueueHeartbeat(
        queue_position=position,
        queued_ms=(now - micros(record.job.queued_at)) // 1000,
        reason=reason,
    )
    return Event(
        event_type="job.queue_heartbeat",
        timestamp_utc=timestamp(now),
        job=event_job(record.job),
        queue_heartbeat=heartbeat,
    )
