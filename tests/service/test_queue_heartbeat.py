"""Watchers are told which jobs still wait, and why."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest
from jobledger.v1.events_pb2 import Event
from jobledger.v1.job_pb2 import JobPriority
from jobledger.v1.job_service_pb2 import WatchEventsRequest
from jobledger_server.core.concurrency import (
    FOR_A_SLOT,
    FOR_ITS_BACKOFF,
    FOR_ITS_START,
    FOR_ROOM,
    ConcurrencyLimits,
)
from jobledger_server.core.policy import Principal
from jobledger_server.core.ports import JobRecord, StoreUnavailableError
from jobledger_server.core.times import SECOND
from jobledger_server.service import queue_heartbeat
from jobledger_server.service.events import EventHub
from jobledger_server.service.queue_heartbeat import QueueHeart
from jobledger_server.service.slots import Slots
from jobledger_server.stores.sqlite import SqliteStore
from support.bursts import each
from support.clock import ManualClock
from support.records import NOW, RUNNING, a_record, state_changed

INTERVAL = 0.01
PATIENCE = 10.0
ANYBODY = Principal(token_id="token", scopes=frozenset({"jobs:read"}))


@pytest.fixture
def slots() -> Slots:
    return Slots(most=1, limits=ConcurrencyLimits(queues={"gpu": 2}, labels={"tenant": 3}))


@pytest.fixture
async def hub(store: SqliteStore, clock: ManualClock, slots: Slots) -> AsyncIterator[EventHub]:
    async with (
        EventHub(store=store, clock=clock) as hub,
        QueueHeart(store=store, clock=clock, events=hub, slots=slots, interval=INTERVAL),
    ):
        yield hub


async def stored(store: SqliteStore, **fields: Any) -> str:
    return await _create(store, a_record(**fields))


async def _create(store: SqliteStore, record: JobRecord) -> str:
    return (await store.create_job(record, [state_changed(record)])).job.job_id


@asynccontextmanager
async def watching(hub: EventHub) -> AsyncIterator[AsyncIterator[Event]]:
    """The heartbeats of the queue, from now on."""
    request = WatchEventsRequest(type=["job.queue_heartbeat"])
    stream: Any = each(await hub.watch(request, ANYBODY))
    async with aclosing(stream):
        assert (await anext(stream)).event_type == "replay.complete"
        yield stream


async def take(stream: AsyncIterator[Event], count: int) -> Sequence[Event]:
    async with asyncio.timeout(PATIENCE):
        return [await anext(stream) for _ in range(count)]


async def test_each_waiting_job_is_told_with_its_place_in_the_queue(
    hub: EventHub, store: SqliteStore, clock: ManualClock
) -> None:
    """The place is that of `queue_position`: by priority, then by age, whether it may start yet or not."""
    old = await stored(store, workspace_id="red")
    urgent = await stored(store, created_at=NOW + SECOND, priority=JobPriority.JOB_PRIORITY_HIGH)
    resting = await stored(store, created_at=NOW + 2 * SECOND, eligible_at=NOW + 3600 * SECOND)
    clock.advance(30)
    async with watching(hub) as stream:
        events = await take(stream, 3)
    told = [(event.job.job_id, event.queue_heartbeat) for event in events]
    assert [(job_id, beat.queue_position, beat.queued_ms, beat.reason) for job_id, beat in told] == [
        (urgent, 1, 29_000, FOR_A_SLOT),
        (old, 2, 30_000, FOR_A_SLOT),
        (resting, 3, 28_000, FOR_ITS_BACKOFF),
    ]
    assert [await store.queue_position(job_id) for job_id, _ in told] == [1, 2, 3]
    assert events[1].job.workspace_id == "red"
    assert [event.sequence_number for event in events] == [4, 5, 6]


@pytest.mark.parametrize(
    ("groups", "eligible_at", "reason"),
    [
        (("label tenant=new", "queue gpu"), 0, "queue gpu is full (2 of 2 running)"),
        (("queue gpu", "label tenant=acme"), 0, "queue gpu is full (2 of 2 running)"),
        (("label tenant=acme",), 0, "label tenant=acme is full (3 of 3 running)"),
        (("label tenant=new",), 0, "waiting for a slot"),
        (("queue gpu",), NOW + 3600 * SECOND, "waiting out its backoff"),
    ],
)
async def test_the_reason_is_what_the_job_waits_for(
    hub: EventHub,
    store: SqliteStore,
    clock: ManualClock,
    slots: Slots,
    groups: tuple[str, ...],
    eligible_at: int,
    reason: str,
) -> None:
    for number in range(3):
        slots.take(f"tenant{number}", 1, ("label tenant=acme",))
    for number in range(2):
        slots.take(f"gpu{number}", 1, ("queue gpu",))
    await stored(store, concurrency_groups=groups, eligible_at=eligible_at)
    clock.advance(30)
    async with watching(hub) as stream:
        (event,) = await take(stream, 1)
    assert event.queue_heartbeat.reason == reason


async def test_a_job_that_is_being_started_is_not_said_to_wait_for_itself(
    hub: EventHub, store: SqliteStore, clock: ManualClock, slots: Slots
) -> None:
    """It has its slot already; where the start takes long, that is since the machine has no room."""
    starting, starved = [await stored(store, concurrency_groups=("queue gpu",)) for _ in range(2)]
    for job_id in (starting, starved):
        slots.take(job_id, 1, ("queue gpu",))
        slots.starting.add(job_id)
    slots.starved.add(starved)
    clock.advance(30)
    async with watching(hub) as stream:
        told = {event.job.job_id: event.queue_heartbeat.reason for event in await take(stream, 2)}
    assert told == {starting: FOR_ITS_START, starved: FOR_ROOM}


async def test_a_job_that_waits_on_is_told_again(hub: EventHub, store: SqliteStore, clock: ManualClock) -> None:
    await stored(store)
    clock.advance(30)
    async with watching(hub) as stream:
        first, second = await take(stream, 2)
    assert second.sequence_number == first.sequence_number + 1
    assert second.job == first.job


async def test_a_job_that_came_just_now_or_runs_is_not_told(
    hub: EventHub, store: SqliteStore, clock: ManualClock
) -> None:
    waiting = await stored(store)
    await stored(store, state=RUNNING)
    clock.advance(30)
    await stored(store, created_at=clock.now())
    async with watching(hub) as stream:
        assert {event.job.job_id for event in await take(stream, 3)} == {waiting}


@pytest.mark.parametrize(("waited", "told"), [(2.4, False), (2.5, True)])
async def test_a_job_is_told_from_half_an_interval_on(
    store: SqliteStore, clock: ManualClock, slots: Slots, monkeypatch: pytest.MonkeyPatch, waited: float, told: bool
) -> None:
    """So somebody who watches hears of it after one and a half at the latest."""
    old = await stored(store)
    clock.advance(30)
    young = await stored(store, created_at=clock.now())
    clock.advance(waited)

    async def at_once(_seconds: float) -> None:
        await sleep(0)

    sleep = asyncio.sleep
    monkeypatch.setattr(asyncio, "sleep", at_once)
    async with (
        EventHub(store=store, clock=clock) as hub,
        QueueHeart(store=store, clock=clock, events=hub, slots=slots, interval=5.0),
        watching(hub) as stream,
    ):
        events = await take(stream, 4)
    monkeypatch.undo()
    assert {event.job.job_id for event in events} == ({old, young} if told else {old})


async def test_only_the_first_of_a_long_queue_are_told(
    hub: EventHub, store: SqliteStore, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A queue of thousands must not flood those who watch."""
    monkeypatch.setattr(queue_heartbeat, "AT_MOST", 2)
    first = [await stored(store, created_at=NOW + number) for number in range(4)][:2]
    clock.advance(30)
    async with watching(hub) as stream:
        assert [event.job.job_id for event in await take(stream, 4)] == first * 2


async def test_all_beats_of_an_interval_are_stored_at_once(
    hub: EventHub, store: SqliteStore, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        await stored(store, created_at=NOW + number)
    clock.advance(30)
    sizes: list[int] = []
    append = store.append_events

    async def count(events: Sequence[Event]) -> None:
        sizes.append(len(events))
        await append(events)

    monkeypatch.setattr(store, "append_events", count)
    async with watching(hub) as stream:
        await take(stream, 5)
    assert set(sizes) == {5}


async def test_nothing_is_stored_while_nobody_watches(
    store: SqliteStore, clock: ManualClock, slots: Slots, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen from a heart whose interval has passed often: it sleeps again without a look at the queue."""
    await stored(store)
    clock.advance(30)
    slept, enough, sleep = list[float](), asyncio.Event(), asyncio.sleep

    async def counted(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) > 5:
            enough.set()
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", counted)
    async with (
        EventHub(store=store, clock=clock) as hub,
        QueueHeart(store=store, clock=clock, events=hub, slots=slots, interval=INTERVAL),
    ):
        async with asyncio.timeout(PATIENCE):
            await enough.wait()
        monkeypatch.undo()
    assert (await store.event_bounds()).last == 1
    assert set(slept) == {INTERVAL}


async def test_the_heart_survives_a_store_that_fails_for_a_while(
    hub: EventHub, store: SqliteStore, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stored(store)
    clock.advance(30)
    append, failures = store.append_events, [StoreUnavailableError("disk full")] * 2

    async def fail(events: Sequence[Event]) -> None:
        if failures:
            raise failures.pop()
        await append(events)

    monkeypatch.setattr(store, "append_events", fail)
    async with watching(hub) as stream:
        assert len(await take(stream, 1)) == 1
    assert not failures
