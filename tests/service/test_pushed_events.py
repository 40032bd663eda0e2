"""Watchers that take live events without a turn of their own: told the same, in the same order."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Any

import pytest
from jobledger.v1.events_pb2 import Event
from jobledger.v1.job_service_pb2 import WatchEventsRequest
from jobledger_server.core.policy import Principal
from jobledger_server.service import events as events_module
from jobledger_server.service.events import EventHub
from jobledger_server.stores.sqlite import SqliteStore
from support.bursts import each
from support.clock import ManualClock
from support.eventually import eventually
from support.records import a_record, an_event, state_changed

ANYBODY = Principal(token_id="token", scopes=frozenset({"jobs:read"}))


@pytest.fixture
async def hub(store: SqliteStore, clock: ManualClock) -> AsyncIterator[EventHub]:
    async with EventHub(store=store, clock=clock) as hub:
        yield hub


class PushedWatcher:
    """Takes what it is pushed but for every so many-th burst, and what is yielded then.

    Attributes:
        seen: the number of each event, the type of those that have none.
        pushes: how often it was asked to take a burst.
    """

    def __init__(self, hub: EventHub, *, refuses_each: int, **fields: Any) -> None:
        self.seen: list[int | str] = []
        self.pushes = 0
        self._refuses_each = refuses_each
        self.task = asyncio.create_task(self._read(hub, WatchEventsRequest(**fields)))

    async def _read(self, hub: EventHub, request: WatchEventsRequest) -> None:
        async for event in each(await hub.watch(request, ANYBODY, push=self._push)):
            self._take([event])

    def _push(self, burst: list[Event]) -> bool:
        self.pushes += 1
        if self.pushes % self._refuses_each == 0:
            return False
        self._take(burst)
        return True

    def _take(self, burst: list[Event]) -> None:
        self.seen += [it.sequence_number if it.HasField("sequence_number") else it.event_type for it in burst]

    async def until(self, last: int | str) -> None:
        """Returns once it has seen that."""

        async def newest() -> int | str | None:
            return self.seen[-1] if self.seen else None

        await eventually(newest, until=lambda seen: seen == last)


@pytest.mark.parametrize("refuses_each", [1, 3, 10**9])
async def test_what_is_pushed_and_what_is_yielded_are_all_events_in_order(
    hub: EventHub, store: SqliteStore, refuses_each: int
) -> None:
    await store.append_events([an_event()] * 5)
    watcher = PushedWatcher(hub, refuses_each=refuses_each, resume_from=0)
    await watcher.until("replay.complete")
    for number in range(7, 47, 2):
        await store.append_events([an_event()] * 2)
        await watcher.until(number)
    await hub.announce_shutdown(stopping_jobs=False)
    await watcher.task
    assert watcher.pushes >= 20
    assert watcher.seen == [1, 2, 3, 4, 5, "replay.complete", *range(6, 47)]


async def test_an_event_that_is_stored_but_not_yet_told_belongs_to_the_replay(
    store: SqliteStore, clock: ManualClock
) -> None:
    """Its number is known before it comes. The mark of the replay's end follows it, however it comes."""
    told = asyncio.Event()

    class TellsLate:
        event_bounds, events_after, append_events = store.event_bounds, store.events_after, store.append_events

        def on_events(self, listener: Callable[[Sequence[Event]], None]) -> None:
            def later(events: Sequence[Event]) -> None:
                if events[0].sequence_number > 1:
                    told.set()
                    self.tell = partial(listener, events)
                else:
                    listener(events)

            store.on_events(later)

    late = TellsLate()
    async with EventHub(store=late, clock=clock) as hub:
        await store.append_events([an_event()])
        await store.append_events([an_event()])
        await told.wait()
        watcher = PushedWatcher(hub, refuses_each=10**9, resume_from=0)
        await watcher.until(1)
        late.tell()
        await watcher.until("replay.complete")
        assert watcher.seen == [1, 2, "replay.complete"]
        watcher.task.cancel()
        await asyncio.wait({watcher.task})


async def test_only_what_the_filters_admit_is_pushed(hub: EventHub, store: SqliteStore) -> None:
    watcher = PushedWatcher(hub, refuses_each=10**9, type=["job.state_changed"])
    await watcher.until("replay.complete")
    for _ in range(2):
        await store.append_events([an_event()])
        record = a_record()
        await store.create_job(record, [state_changed(record)])
    await watcher.until(4)
    await hub.announce_shutdown(stopping_jobs=False)
    await watcher.task
    assert watcher.seen == ["replay.complete", 2, 4]


async def test_who_has_left_is_pushed_nothing(hub: EventHub, store: SqliteStore) -> None:
    gone, stays = (PushedWatcher(hub, refuses_each=10**9) for _ in range(2))
    for watcher in (gone, stays):
        await watcher.until("replay.complete")
    gone.task.cancel()
    await asyncio.wait({gone.task})
    await store.append_events([an_event()])
    await stays.until(1)
    assert gone.seen == ["replay.complete"]
    stays.task.cancel()
    await asyncio.wait({stays.task})


async def test_all_have_been_told_of_the_end_before_it_comes(hub: EventHub) -> None:
    """However many there are: what closes next would cut them off."""
    watchers = [PushedWatcher(hub, refuses_each=2) for _ in range(300)]
    for watcher in watchers:
        await watcher.until("replay.complete")
    await hub.announce_shutdown(stopping_jobs=False)
    assert hub.watchers == 0
    assert {tuple(watcher.seen) for watcher in watchers} == {("replay.complete", 1)}
    await asyncio.gather(*(watcher.task for watcher in watchers))


async def test_the_end_does_not_wait_long_for_a_reader_that_takes_nothing(
    hub: EventHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events_module, "PARTING_SECONDS", 0.05)
    stuck: Any = await hub.watch(WatchEventsRequest(), ANYBODY)
    await anext(stuck)
    async with asyncio.timeout(5):
        await hub.announce_shutdown(stopping_jobs=False)
    assert hub.watchers == 1
    await stuck.aclose()
