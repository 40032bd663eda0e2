"""Bookmarks: whoever filters may resume from a recent point, and never from one past what was still to be sent."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jobledger.v1.events_pb2 import Event
from jobledger.v1.job_service_pb2 import WatchEventsRequest
from jobledger_server.core.policy import Principal
from jobledger_server.service import events as events_module
from jobledger_server.service.events import EventHub
from jobledger_server.stores.sqlite import SqliteStore
from support.clock import ManualClock
from support.records import a_record, an_event, state_changed

ANYBODY = Principal(token_id="token", scopes=frozenset({"jobs:read"}))
HEARTBEAT = Event(event_type="engine.heartbeat")
WANTED = WatchEventsRequest(resume_from=0, type=["job.state_changed"])


@pytest.fixture
async def hub(store: SqliteStore, clock: ManualClock) -> AsyncIterator[EventHub]:
    async with EventHub(store=store, clock=clock) as hub:
        yield hub


def a_change() -> Event:
    return state_changed(a_record())


def told(burst: list[Event]) -> list[Any]:
    """The number of each event; `(type, last_sequence)` of those that have none."""
    return [
        event.sequence_number
        if event.HasField("sequence_number")
        else (event.event_type, (event.bookmark if event.HasField("bookmark") else event.replay_complete).last_sequence)
        for event in burst
    ]


async def next_of(watch: Any) -> list[Any]:
    async with asyncio.timeout(10):
        return told(await anext(watch))


async def test_a_heartbeat_that_is_held_back_leaves_a_bookmark(hub: EventHub, store: SqliteStore) -> None:
    await store.append_events([an_event()] * 4)
    async with aclosing(await hub.watch(WatchEventsRequest(type=["job.state_changed"]), ANYBODY)) as watch:
        assert await next_of(watch) == [("replay.complete", 4)]
        await store.append_events([an_event(), HEARTBEAT])
        assert await next_of(watch) == [("stream.bookmark", 6)]
        await store.append_events([a_change(), HEARTBEAT, an_event()])
        assert await next_of(watch) == [7, ("stream.bookmark", 9)]
        await store.append_events([HEARTBEAT, a_change()])
        assert await next_of(watch) == [11], "its own number is a point to resume from"


async def test_who_is_given_all_events_needs_no_bookmark(hub: EventHub, store: SqliteStore) -> None:
    async with aclosing(await hub.watch(WatchEventsRequest(), ANYBODY)) as watch:
        assert await next_of(watch) == [("replay.complete", 0)]
        await store.append_events([an_event(), HEARTBEAT])
        assert await next_of(watch) == [1, 2]


async def test_a_replay_counts_no_bookmark_and_says_where_it_ended(
    hub: EventHub, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events_module, "BATCH", 3)
    await store.append_events([an_event(), HEARTBEAT, an_event(), a_change(), an_event()])
    async with aclosing(await hub.watch(WANTED, ANYBODY)) as watch:
        assert await next_of(watch) == [("stream.bookmark", 3)]
        assert await next_of(watch) == [4]
        [complete] = await anext(watch)
    assert (complete.replay_complete.replayed_count, complete.replay_complete.last_sequence) == (1, 5)


async def test_all_who_are_as_far_are_given_the_very_same_bookmark(hub: EventHub, store: SqliteStore) -> None:
    """So that the gateway encodes it once."""
    request = WatchEventsRequest(type=["job.progress"])
    first, second = await hub.watch(request, ANYBODY), await hub.watch(request, ANYBODY)
    async with aclosing(first), aclosing(second):
        await next_of(first), await next_of(second)
        await store.append_events([HEARTBEAT])
        [one], [other] = await anext(first), await anext(second)
    assert one is other


@pytest.mark.parametrize(("resume_from", "starts"), [(None, 3), (0, 0), (2, 2)])
async def test_a_stream_says_at_once_what_it_starts_after(
    hub: EventHub, store: SqliteStore, resume_from: int | None, starts: int
) -> None:
    """Before anything has come: a client whose stream is cut then has a point to resume from."""
    await store.append_events([an_event()] * 3)
    async with aclosing(await hub.watch(WatchEventsRequest(resume_from=resume_from), ANYBODY)) as watch:
        assert watch.starts_after == starts


MAKERS: dict[str, Callable[[], Event]] = {"change": a_change, "other": an_event, "heartbeat": lambda: HEARTBEAT}
BATCHES = st.lists(st.lists(st.sampled_from(sorted(MAKERS)), min_size=1, max_size=4), max_size=8)


@given(batches=BATCHES, cuts=st.lists(st.integers(1, 3), max_size=6))
@settings(max_examples=25, deadline=None)
async def test_who_resumes_from_bookmarks_sees_each_event_once(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[str]], cuts: list[int]
) -> None:
    """Cut after any burst, and come back from whatever was the last point: exactly what the filter admits."""
    with patch.object(events_module, "BATCH", 2):
        await resume_after_each_cut(tmp_path_factory.mktemp("marks") / "jobledger.db", batches, cuts)


async def resume_after_each_cut(path: Path, batches: list[list[str]], cuts: list[int]) -> None:
    async with SqliteStore(path) as store:
        hub = EventHub(store=store, clock=ManualClock())
        wanted, seen, point, number = list[int](), list[int](), 0, 0
        for turn, batch in enumerate(batches):
            await store.append_events([MAKERS[name]() for name in batch])
            for name in batch:
                number += 1
                wanted += [number] if name == "change" else []
            point = await read(hub, point, seen, bursts=cuts[turn] if turn < len(cuts) else 2)
        while (further := await read(hub, point, seen, bursts=2)) != point:
            point = further
        assert seen == wanted


async def read(hub: EventHub, point: int, seen: list[int], *, bursts: int) -> int:
    """Reads so many bursts, or up to the end of the replay; returns the last point to resume from."""
    request = WatchEventsRequest(resume_from=point, type=["job.state_changed"])
    async with asyncio.timeout(10), aclosing(await hub.watch(request, ANYBODY)) as watch:
        for _ in range(bursts):
            for event in await anext(watch):
                if event.HasField("sequence_number"):
                    seen.append(event.sequence_number)
                    point = event.sequence_number
                elif event.HasField("bookmark"):
                    point = event.bookmark.last_sequence
                else:
                    return event.replay_complete.last_sequence
    return point
