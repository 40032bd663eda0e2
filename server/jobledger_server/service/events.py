"""Events for those who watch: from a point in the past to now, and on, with no gap.

A watcher holds nothing but the number of the last event that it was given. It takes what follows from a window of
recent events in memory, or from the store where it is further back; so a slow one costs no memory, and misses nothing.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from types import TracebackType
from typing import Self

from jobledger.v1.events_pb2 import EngineHeartbeat, Event, ReplayComplete, ShuttingDown
from jobledger.v1.job_service_pb2 import WatchEventsRequest

from jobledger_server.core.errors import Reason, ServiceError
from jobledger_server.core.policy import Principal
from jobledger_server.core.ports import Clock, EventStore, StoreUnavailableError
from jobledger_server.core.times import timestamp

log = logging.getLogger(__name__)
HEARTBEAT_SECONDS = 3.0
WINDOW = 10_000
BATCH = 500


class EventHub:
    """Fans events out to watchers, and lets the engine's heart beat while there are any."""

    def __init__(self, *, store: EventStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._recent: list[Event] = []
        self._more = asyncio.Event()
        self._closed = False
        self._watchers = 0
        self._watched = asyncio.Event()
        self._heart: asyncio.Task[None] | None = None
        self.pulse: Callable[[], Awaitable[EngineHeartbeat]] | None = None
        store.on_events(self._publish)

    @property
    def watchers(self) -> int:
        """How many streams are open."""
        return self._watchers

    async def __aenter__(self) -> Self:
        self._heart = asyncio.create_task(self._beat(), name="heartbeat")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._heart is not None:
            self._heart.cancel()
            await asyncio.gather(self._heart, return_exceptions=True)

    async def announce_shutdown(self, *, stopping_jobs: bool) -> None:
        """Tells every watcher, and ends all streams after that."""
        event = Event(
            event_type="engine.shutting_down",
            timestamp_utc=timestamp(self._clock.now()),
            shutting_down=ShuttingDown(stopping_jobs=stopping_jobs),
        )
        await self._append(event)
        self._closed = True
        self._wake()

    async def watch(self, request: WatchEventsRequest, principal: Principal) -> AsyncIterator[Event]:
        """Events after `resume_from` that the filters admit, then live ones, until the engine shuts down.

        Raises:
            ServiceError: STREAM_INVALID_SEQUENCE, STREAM_GAP_TOO_LARGE.
        """
        bounds = await self._store.event_bounds()
        cursor = bounds.last
        if request.HasField("resume_from"):
            cursor = request.resume_from
            check_resume_point(cursor, bounds.first, bounds.last)
        return self._watch(cursor, bounds.last, _filter(request, principal))

    async def _watch(self, cursor: int, live_from: int, admits: Callable[[Event], bool]) -> AsyncIterator[Event]:
        self._watchers += 1
        self._watched.set()
        try:
            async for event in self._follow(cursor, live_from, admits):
                yield event
        finally:
            self._watchers -= 1
            if not self._watchers:
                self._watched.clear()

    async def _follow(self, cursor: int, live_from: int, admits: Callable[[Event], bool]) -> AsyncIterator[Event]:
        replayed, live = 0, False
        while True:
            if not live and cursor >= live_from:
                live = True
                yield self._replay_complete(replayed)
            more, closed = self._more, self._closed
            events = await self._after(cursor)
            if not live:
                events = [event for event in events if event.sequence_number <= live_from]
            for event in events:
                cursor = event.sequence_number
                if admits(event):
                    replayed += 1
                    yield event
            if not events:
                if closed:
                    return
                await more.wait()

    async def _after(self, cursor: int) -> Sequence[Event]:
        """Up to a batch of the events that follow, in order; none where there are none yet."""
        recent = self._recent
        if recent and recent[0].sequence_number <= cursor + 1:
            start = cursor + 1 - recent[0].sequence_number
            return recent[start : start + BATCH]
        events = await self._store.events_after(cursor, limit=BATCH)
        if events and events[0].sequence_number != cursor + 1:
            check_resume_point(cursor, events[0].sequence_number, events[0].sequence_number)
        return events

    def _publish(self, events: Sequence[Event]) -> None:
        self._recent.extend(events)
        if len(self._recent) > 2 * WINDOW:
            del self._recent[:-WINDOW]
        self._wake()

    def _wake(self) -> None:
        self._more.set()
        self._more = asyncio.Event()

    def _replay_complete(self, count: int) -> Event:
        return Event(
            event_type="replay.complete",
            timestamp_utc=timestamp(self._clock.now()),
            replay_complete=ReplayComplete(replayed_count=count),
        )

    async def _beat(self) -> None:
        while True:
            await self._watched.wait()
            await asyncio.sleep(HEARTBEAT_SECONDS)
            if self._watchers and self.pulse is not None:
                await self._append_heartbeat(self.pulse)

    async def _append_heartbeat(self, pulse: Callable[[], Awaitable[EngineHeartbeat]]) -> None:
        try:
            heartbeat = await pulse()
        except StoreUnavailableError as error:
            log.warning("the engine can't say how it is just now: %s", error)
            return
        now = timestamp(self._clock.now())
        await self._append(Event(event_type="engine.heartbeat", timestamp_utc=now, heartbeat=heartbeat))

    async def _append(self, event: Event) -> None:
        """Stores an event that nobody can be refused for: without the store, the streams go on without it."""
        try:
            await self._store.append_events([event])
        except StoreUnavailableError as error:
            log.warning("%s can't be stored just now: %s", event.event_type, error)


def check_resume_point(after: int, first: int, last: int) -> None:
    """Raises unless every event after that number is still kept, or yet to come."""
    if after < 0 or after > last:
        raise ServiceError(
            Reason.ERROR_REASON_STREAM_INVALID_SEQUENCE,
            f"There is no event {after}: the last one is {last}",
            metadata={"last_sequence": str(last)},
        )
    if after < first - 1:
        raise ServiceError(Reason.ERROR_REASON_STREAM_GAP_TOO_LARGE, metadata={"first_available_sequence": str(first)})


def _filter(request: WatchEventsRequest, principal: Principal) -> Callable[[Event], bool]:
    jobs, types = frozenset(request.job_id), frozenset(request.type)
    workspace = request.workspace_id if request.HasField("workspace_id") else None

    def admits(event: Event) -> bool:
        job = event.job
        if event.HasField("job") and not principal.sees(job.workspace_id):
            return False
        return (
            (not jobs or job.job_id in jobs)
            and (not types or event.event_type in types)
            and (workspace is None or job.workspace_id == workspace)
        )

    return admits
