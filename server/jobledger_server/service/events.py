"""Events for those who watch: from a point in the past to now, and on, with no gap.

A watcher holds nothing but the number of the last event that it was given. It takes what follows from a window of
recent events in memory, or from the store where it is further back; so a slow one costs no memory, and misses nothing.

One with a filter may be given nothing for a long time, and what it was given last may be gone when it comes back: so it
gets a bookmark with each heartbeat that its filter holds back.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TypeAlias

from jobledger.v1.events_pb2 import Bookmark, EngineHeartbeat, Event, ReplayComplete, ShuttingDown
from jobledger.v1.job_service_pb2 import WatchEventsRequest

from jobledger_server.core.errors import Reason, ServiceError
from jobledger_server.core.policy import Principal
from jobledger_server.core.ports import Clock, EventStore, StoreUnavailableError
from jobledger_server.core.times import timestamp
from jobledger_server.service.event_views import EventViews, View
from jobledger_server.service.rounds import Rounds
from jobledger_server.service.tasks import Background

log = logging.getLogger(__name__)
HEARTBEAT = "engine.heartbeat"
HEARTBEAT_SECONDS = 3.0
# How long the end of the server waits for the streams to end.
PARTING_SECONDS = 3.0
WINDOW = 10_000
BATCH = 500

Push: TypeAlias = Callable[[list[Event]], bool]


class Watch(AsyncIterator[list[Event]]):
    """What one watcher is given, burst by burst.

    Attributes:
        starts_after: number of the event after which it starts.
    """

    def __init__(self, starts_after: int, bursts: AsyncGenerator[list[Event], None]) -> None:
        self.starts_after = starts_after
        self._bursts = bursts

    def __anext__(self) -> Awaitable[list[Event]]:
        return self._bursts.__anext__()

    async def aclose(self) -> None:
        """Ends it."""
        await self._bursts.aclose()


class EventHub(Background):
    """Fans events out to watchers, and lets the engine's heart beat while there are any."""

    def __init__(self, *, store: EventStore, clock: Clock) -> None:
        super().__init__("heartbeat")
        self._store = store
        self._clock = clock
        self._recent: list[Event] = []
        self._slice: tuple[tuple[int, int], list[Event]] = ((0, 0), [])
        self._marked = Event()
        self._views = EventViews()
        self._rounds = Rounds()
        self._closed = False
        self._watchers = 0
        self._watched = asyncio.Event()
        self._unwatched = asyncio.Event()
        self._unwatched.set()
        self.pulse: Callable[[], Awaitable[EngineHeartbeat]] | None = None
        store.on_events(self._publish)

    @property
    def watchers(self) -> int:
        """How many streams are open."""
        return self._watchers

    async def announce_shutdown(self, *, stopping_jobs: bool) -> None:
        """Tells every watcher, and ends all streams after that. Waits for their end, but not long for slow readers."""
        event = Event(
            event_type="engine.shutting_down",
            timestamp_utc=timestamp(self._clock.now()),
            shutting_down=ShuttingDown(stopping_jobs=stopping_jobs),
        )
        await self._append(event)
        self._closed = True
        self._rounds.tell()
        with suppress(TimeoutError):
            async with asyncio.timeout(PARTING_SECONDS):
                await self._unwatched.wait()

    async def watch(self, request: WatchEventsRequest, principal: Principal, *, push: Push | None = None) -> Watch:
        """Events after `resume_from` that the filters admit, then live ones, until the engine shuts down.

        They come in bursts: all that are ready, up to 500.

        Args:
            push: takes a live burst, or says that it can't: then it is yielded as it would be without.

        Raises:
            ServiceError: STREAM_INVALID_SEQUENCE, STREAM_GAP_TOO_LARGE.
        """
        bounds = await self._store.event_bounds()
        cursor = bounds.last
        if request.HasField("resume_from"):
            cursor = request.resume_from
            check_resume_point(cursor, bounds.first, bounds.last)
        return Watch(cursor, self._watch(cursor, bounds.last, self._views.of(request, principal), push))

    async def _watch(
        self, cursor: int, live_from: int, view: View | None, push: Push | None
    ) -> AsyncGenerator[list[Event], None]:
        self._watchers += 1
        self._watched.set()
        self._unwatched.clear()
        try:
            async for burst in self._follow(cursor, live_from, view, push):
                yield burst
        finally:
            self._watchers -= 1
            if not self._watchers:
                self._watched.clear()
                self._unwatched.set()

    async def _follow(
        self, cursor: int, live_from: int, view: View | None, push: Push | None
    ) -> AsyncIterator[list[Event]]:
        replayed, live = 0, False

        def serve() -> bool:
            nonlocal cursor
            # What is stored may be told later: until the mark of the replay's end was given, only a turn can give it.
            served = live and push is not None and not self._closed and self._push(cursor, view, push)
            cursor = self._recent[-1].sequence_number if served else cursor
            return served

        while True:
            if not live and cursor >= live_from:
                live = True
                yield [self._replay_complete(replayed, cursor)]
            news, closed = self._rounds.news, self._closed
            events = await self._after(cursor)
            if not live:
                events = [event for event in events if event.sequence_number <= live_from]
            if events:
                cursor = events[-1].sequence_number
                burst = self._burst(events, view)
                replayed += 0 if live else sum(event.HasField("sequence_number") for event in burst)
                if burst:
                    yield burst
            elif closed:
                return
            else:
                await self._rounds.wait(news, serve)

    async def _after(self, cursor: int) -> list[Event]:
        """Up to a batch of the events that follow, in order; none where there are none yet."""
        recent = self._recent
        if recent and recent[0].sequence_number <= cursor + 1:
            return self._recent_after(cursor) if cursor < recent[-1].sequence_number else []
        events = await self._store.events_after(cursor, limit=BATCH)
        if events and events[0].sequence_number != cursor + 1:
            check_resume_point(cursor, events[0].sequence_number, events[0].sequence_number)
        if not events:
            # All that it lacks may be gone, and then nothing else would tell.
            bounds = await self._store.event_bounds()
            check_resume_point(cursor, bounds.first, bounds.last)
        return list(events)

    def _recent_after(self, cursor: int) -> list[Event]:
        """The very same list for all who are as far: what the gateway makes of it serves them all."""
        place = (cursor, self._recent[-1].sequence_number)
        if self._slice[0] != place:
            start = cursor + 1 - self._recent[0].sequence_number
            self._slice = (place, self._recent[start : start + BATCH])
        return self._slice[1]

    def _push(self, cursor: int, view: View | None, push: Push) -> bool:
        """Whether all that follows was taken: a watcher that is not far behind needs no turn of its own for it."""
        last = self._recent[-1].sequence_number
        if cursor + 1 < self._recent[0].sequence_number or last - cursor > BATCH:
            return False
        burst = self._burst(self._recent_after(cursor), view) if last > cursor else []
        return not burst or push(burst)

    def _burst(self, events: list[Event], view: View | None) -> list[Event]:
        """What a watcher is given of all that follows up to there."""
        if view is None:
            return events
        burst = [seen for event in events if (seen := view(event)) is not None]
        last = events[-1]
        if burst and burst[-1].sequence_number == last.sequence_number:
            return burst
        if any(event.event_type == HEARTBEAT for event in events):
            burst.append(self._bookmark(last.sequence_number))
        return burst

    def _bookmark(self, sequence: int) -> Event:
        """The very same for all who are as far, as with bursts."""
        if self._marked.bookmark.last_sequence != sequence:
            self._marked = Event(
                event_type="stream.bookmark",
                timestamp_utc=timestamp(self._clock.now()),
                bookmark=Bookmark(last_sequence=sequence),
            )
        return self._marked

    def _publish(self, events: Sequence[Event]) -> None:
        self._recent.extend(events)
        if len(self._recent) > 2 * WINDOW:
            del self._recent[:-WINDOW]
        self._rounds.tell()

    def _replay_complete(self, count: int, last: int) -> Event:
        return Event(
            event_type="replay.complete",
            timestamp_utc=timestamp(self._clock.now()),
            replay_complete=ReplayComplete(replayed_count=count, last_sequence=last),
        )

    async def _run(self) -> None:
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
        await self._append(Event(event_type=HEARTBEAT, timestamp_utc=now, heartbeat=heartbeat))

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
        raise ServiceError(
            Reason.ERROR_REASON_STREAM_GAP_TOO_LARGE,
            f"The events from {after + 1} to {first - 1} are no longer kept: read the state anew, and resume from"
            f" {first - 1}",
            metadata={"first_available_sequence": str(first)},
        )
