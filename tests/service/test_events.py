"""What watchers are told: everything that they may see, once, in order, from the point they name on."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, closing
from pathlib import Path
from typing import Any

import pytest
from jobledger.v1.errors_pb2 import ErrorReason
from jobledger.v1.events_pb2 import EngineHeartbeat, Event, QueueHeartbeat, TokenRotated
from jobledger.v1.job_service_pb2 import WatchEventsRequest
from jobledger_server.core.errors import Reason, ServiceError
from jobledger_server.core.policy import Principal
from jobledger_server.core.ports import StoreUnavailableError
from jobledger_server.service import events as events_module
from jobledger_server.service.events import EventHub
from jobledger_server.stores.sqlite import SqliteStore
from support.bursts import each
from support.clock import ManualClock
from support.eventually import eventually
from support.records import a_record, an_event, state_changed

ANYBODY = Principal(token_id="token", scopes=frozenset({"jobs:read"}))
PATIENCE = 10.0


@pytest.fixture
async def hub(store: SqliteStore, clock: ManualClock) -> AsyncIterator[EventHub]:
    async with EventHub(store=store, clock=clock) as hub:
        yield hub


async def append(store: SqliteStore, count: int) -> None:
    for _ in range(count):
        await store.append_events([an_event()])


class Watcher:
    """An open stream, event by event."""

    def __init__(self, bursts: AsyncIterator[list[Event]]) -> None:
        self.stream: Any = each(bursts)

    async def take(self, count: int) -> list[Event]:
        async with asyncio.timeout(PATIENCE):
            return [await anext(self.stream) for _ in range(count)]

    async def rest(self) -> list[Event]:
        async with asyncio.timeout(PATIENCE):
            return [event async for event in self.stream]


async def watch(hub: EventHub, principal: Principal = ANYBODY, **fields: Any) -> Watcher:
    return Watcher(await hub.watch(WatchEventsRequest(**fields), principal))


def told(events: Sequence[Event]) -> list[int | str]:
    """The number of each event that has one, the type of the others."""
    return [event.sequence_number if event.HasField("sequence_number") else event.event_type for event in events]


async def test_without_a_point_a_watcher_hears_of_what_comes(hub: EventHub, store: SqliteStore) -> None:
    await append(store, 3)
    watcher = await watch(hub)
    assert told(await watcher.take(1)) == ["replay.complete"]
    await append(store, 2)
    assert told(await watcher.take(2)) == [4, 5]


async def test_what_comes_between_asking_and_reading_is_not_missed(hub: EventHub, store: SqliteStore) -> None:
    watcher = await watch(hub)
    await append(store, 2)
    assert told(await watcher.take(3)) == ["replay.complete", 1, 2]


async def test_a_replay_is_counted_and_marked_once(hub: EventHub, store: SqliteStore) -> None:
    await append(store, 5)
    watcher = await watch(hub, resume_from=2)
    events = await watcher.take(4)
    assert told(events) == [3, 4, 5, "replay.complete"]
    assert events[-1].replay_complete.replayed_count == 3
    await append(store, 1)
    assert told(await watcher.take(1)) == [6]


async def test_events_from_before_the_start_of_the_server_are_replayed(store: SqliteStore, clock: ManualClock) -> None:
    await append(store, 3)
    async with EventHub(store=store, clock=clock) as hub:
        watcher = await watch(hub, resume_from=0)
        await append(store, 1)
        assert told(await watcher.take(5)) == [1, 2, 3, "replay.complete", 4]


async def test_to_resume_at_the_last_event_is_to_replay_nothing(hub: EventHub, store: SqliteStore) -> None:
    await append(store, 2)
    events = await (await watch(hub, resume_from=2)).take(1)
    assert told(events) == ["replay.complete"]
    assert events[0].replay_complete.replayed_count == 0


@pytest.mark.parametrize("window", [4, 10_000])
async def test_replay_goes_over_into_live_with_no_gap(
    hub: EventHub, store: SqliteStore, monkeypatch: pytest.MonkeyPatch, window: int
) -> None:
    """While others append, whether what follows is still in memory or not; each event once and in order."""
    monkeypatch.setattr(events_module, "WINDOW", window)
    monkeypatch.setattr(events_module, "BATCH", 3)
    await append(store, 20)

    async def follow(start: int) -> list[int | str]:
        watcher = await watch(hub, resume_from=start)
        return told(await watcher.take(121 - start))

    watching = [asyncio.create_task(follow(start)) for start in (0, 7, 20)]
    await asyncio.gather(*(append(store, 25) for _ in range(4)))
    for start, task in zip((0, 7, 20), watching, strict=True):
        events = await task
        assert [event for event in events if event != "replay.complete"] == list(range(start + 1, 121))
        assert events.count("replay.complete") == 1


async def test_a_slow_reader_misses_nothing(hub: EventHub, store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events_module, "WINDOW", 5)
    watcher = await watch(hub)
    await watcher.take(1)
    await append(store, 50)
    assert told(await watcher.take(50)) == list(range(1, 51))


async def refusal(hub: EventHub, resume_from: int) -> tuple[ErrorReason.ValueType, dict[str, str]]:
    with pytest.raises(ServiceError) as caught:
        await hub.watch(WatchEventsRequest(resume_from=resume_from), ANYBODY)
    return caught.value.reason, caught.value.metadata


@pytest.mark.parametrize("point", [-1, 4, 2**63 - 1, -(2**63)])
async def test_a_point_that_never_was_is_refused(hub: EventHub, store: SqliteStore, point: int) -> None:
    await append(store, 3)
    assert await refusal(hub, point) == (Reason.ERROR_REASON_STREAM_INVALID_SEQUENCE, {"last_sequence": "3"})


def drop_events(path: Path, up_to: int) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM events WHERE sequence_number <= ?", (up_to,))


async def test_a_point_older_than_what_is_kept_is_refused(hub: EventHub, store: SqliteStore, tmp_path: Path) -> None:
    await append(store, 5)
    drop_events(tmp_path / "jobledger.db", 3)
    for point in (0, 2):
        gap = (Reason.ERROR_REASON_STREAM_GAP_TOO_LARGE, {"first_available_sequence": "4"})
        assert await refusal(hub, point) == gap
    assert told(await (await watch(hub, resume_from=3)).take(3)) == [4, 5, "replay.complete"]


async def test_events_that_are_dropped_under_a_slow_reader_end_its_stream(
    store: SqliteStore, clock: ManualClock, tmp_path: Path
) -> None:
    """An error, never a silent skip."""
    await append(store, 5)
    async with EventHub(store=store, clock=clock) as hub:
        watcher = await watch(hub, resume_from=0)
        drop_events(tmp_path / "jobledger.db", 3)
        with pytest.raises(ServiceError) as caught:
            await watcher.take(1)
    assert caught.value.reason == Reason.ERROR_REASON_STREAM_GAP_TOO_LARGE


async def two_jobs(store: SqliteStore) -> tuple[str, str]:
    """Events 1 (red), 2 (blue), 3 (of no job)."""
    red, blue = a_record(workspace_id="red"), a_record(workspace_id="blue")
    for record in (red, blue):
        await store.create_job(record, [state_changed(record)])
    await append(store, 1)
    return red.job.job_id, blue.job.job_id


async def replayed(hub: EventHub, principal: Principal = ANYBODY, **fields: Any) -> list[int | str]:
    """What is replayed from the beginning, up to the marker."""
    seen: list[int | str] = []
    async with aclosing((await watch(hub, principal, resume_from=0, **fields)).stream) as stream:
        async for event in stream:
            if event.event_type == "replay.complete":
                assert event.replay_complete.replayed_count == len(seen)
                return seen
            seen += told([event])
    raise AssertionError("the stream ended without the marker")


async def test_filters_must_all_hold(hub: EventHub, store: SqliteStore) -> None:
    red, blue = await two_jobs(store)
    assert await replayed(hub) == [1, 2, 3]
    assert await replayed(hub, job_id=[red]) == [1]
    assert await replayed(hub, job_id=[red, blue]) == [1, 2]
    assert await replayed(hub, type=["job.state_changed"]) == [1, 2]
    assert await replayed(hub, type=["engine.shutting_down"]) == [3]
    assert await replayed(hub, workspace_id="blue") == [2]
    assert await replayed(hub, job_id=[red], workspace_id="blue") == []
    assert await replayed(hub, job_id=[red], type=["job.progress"]) == []


async def test_a_bound_watcher_hears_nothing_of_other_workspaces(hub: EventHub, store: SqliteStore) -> None:
    _, blue = await two_jobs(store)
    bound = Principal(token_id="bound", scopes=frozenset({"jobs:read"}), workspaces=frozenset({"red"}))
    assert await replayed(hub, bound) == [1, 3]
    assert await replayed(hub, bound, job_id=[blue]) == []
    assert await replayed(hub, bound, workspace_id="blue") == []


async def test_a_bound_watcher_is_not_told_how_many_jobs_there_are_nor_of_other_tokens(
    hub: EventHub, store: SqliteStore
) -> None:
    """Neither in what is replayed nor live; all who are bound are given the very same message in their place."""
    record = a_record(workspace_id="red")
    waits, beat, *rotations = state_changed(record), an_event(), an_event(), an_event()
    why = "queue gpu is full (1 of 1 running)"
    waits.queue_heartbeat.CopyFrom(QueueHeartbeat(queue_position=7, queued_ms=5, reason=why))
    beat.heartbeat.CopyFrom(EngineHeartbeat(uptime_ms=1, health="ok", active_jobs=3, queue_depth=4))
    for rotation, token_id in zip(rotations, ("bound", "another"), strict=True):
        rotation.token_rotated.CopyFrom(TokenRotated(token_id=token_id))

    async def tell() -> None:
        await store.append_events([*rotations, waits, beat])

    bound = Principal(token_id="bound", scopes=frozenset({"jobs:read"}), workspaces=frozenset({"red"}))
    await store.create_job(record, [])
    await tell()
    watchers = [await watch(hub, who, resume_from=0) for who in (bound, bound, ANYBODY, ANYBODY)]
    seen = [await watcher.take(count + 1) for watcher, count in zip(watchers, (3, 3, 4, 4), strict=True)]
    await tell()
    for so_far, watcher, count in zip(seen, watchers, (3, 3, 4, 4), strict=True):
        so_far.extend(await watcher.take(count))
    assert told(seen[0]) == [1, 3, 4, "replay.complete", 5, 7, 8]
    for events in seen[:2]:
        beats = [event.heartbeat for event in events if event.HasField("heartbeat")]
        assert beats == [EngineHeartbeat(uptime_ms=1, health="ok")] * 2
        queued = [event.queue_heartbeat for event in events if event.HasField("queue_heartbeat")]
        assert queued == [QueueHeartbeat(queued_ms=5, reason="waiting for a slot")] * 2
    assert all(one is other for one, other in zip(seen[0][4:], seen[1][4:], strict=True))
    assert told(seen[2]) == [1, 2, 3, 4, "replay.complete", 5, 6, 7, 8]
    assert seen[2][-1].heartbeat == beat.heartbeat
    assert all(one is other for one, other in zip(seen[2][5:], seen[3][5:], strict=True))


async def test_the_end_of_the_server_is_told_and_ends_every_stream(hub: EventHub, store: SqliteStore) -> None:
    await append(store, 2)
    watching = [await watch(hub), await watch(hub, resume_from=0), await watch(hub, type=["job.progress"])]
    rests = [asyncio.create_task(watcher.rest()) for watcher in watching]
    await eventually(lambda: asyncio.sleep(0, hub.watchers), until=lambda open_streams: open_streams == 3)
    await hub.announce_shutdown(stopping_jobs=True)
    live, replay, filtered = await asyncio.gather(*rests)
    assert told(live) == ["replay.complete", 3]
    assert live[-1].event_type == "engine.shutting_down"
    assert live[-1].shutting_down.stopping_jobs
    assert told(replay) == [1, 2, "replay.complete", 3]
    assert told(filtered) == ["replay.complete"]
    assert hub.watchers == 0


async def test_a_watcher_that_comes_after_the_end_gets_its_replay_and_no_more(
    hub: EventHub, store: SqliteStore
) -> None:
    await append(store, 1)
    await hub.announce_shutdown(stopping_jobs=False)
    assert told(await (await watch(hub, resume_from=0)).rest()) == [1, 2, "replay.complete"]


async def test_a_store_that_can_not_write_does_not_keep_streams_open(
    hub: EventHub, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk must not stop the server from stopping."""

    async def fail(events: Sequence[Event]) -> None:
        raise StoreUnavailableError("disk full")

    monkeypatch.setattr(store, "append_events", fail)
    watcher = await watch(hub)
    await hub.announce_shutdown(stopping_jobs=False)
    assert told(await watcher.rest()) == ["replay.complete"]


async def test_open_streams_are_counted(hub: EventHub) -> None:
    assert hub.watchers == 0
    watcher = await watch(hub)
    await watcher.take(1)
    assert hub.watchers == 1
    await watcher.stream.aclose()
    assert hub.watchers == 0


@pytest.fixture
def quick_heart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events_module, "HEARTBEAT_SECONDS", 0.01)


@pytest.mark.usefixtures("quick_heart")
async def test_the_heart_beats_only_while_somebody_watches(hub: EventHub, store: SqliteStore) -> None:
    beats = 0

    async def pulse() -> EngineHeartbeat:
        nonlocal beats
        beats += 1
        return EngineHeartbeat(health="ok", active_jobs=beats)

    hub.pulse = pulse
    watcher = await watch(hub, type=["engine.heartbeat"])
    events = await watcher.take(3)
    assert [event.heartbeat.active_jobs for event in events[1:]] == [1, 2]
    await watcher.stream.aclose()
    # One beat may have been under way; with nobody watching, the next one waits for a watcher.
    await eventually(lambda: asyncio.sleep(0, hub._watched.is_set()), until=lambda watched: not watched)
    assert beats <= 3
    before = beats
    await (await watch(hub, type=["engine.heartbeat"])).take(2)
    assert before < beats <= before + 2


@pytest.mark.usefixtures("quick_heart")
async def test_the_heart_survives_a_store_that_fails_for_a_while(hub: EventHub) -> None:
    calls = 0

    async def pulse() -> EngineHeartbeat:
        nonlocal calls
        calls += 1
        if calls < 3:
            raise StoreUnavailableError("disk full")
        return EngineHeartbeat(health="ok")

    hub.pulse = pulse
    events = await (await watch(hub)).take(2)
    assert events[1].event_type == "engine.heartbeat"


@pytest.mark.usefixtures("quick_heart")
async def test_a_fault_of_the_heart_is_logged(hub: EventHub, caplog: pytest.LogCaptureFixture) -> None:
    async def pulse() -> EngineHeartbeat:
        raise LookupError("no such organ")

    hub.pulse = pulse
    watcher = await watch(hub)
    await watcher.take(1)
    [told] = await eventually(lambda: asyncio.sleep(0, caplog.records), until=bool)
    assert told.getMessage() == "the task heartbeat failed"
    assert "no such organ" in str(told.exc_info)
    await watcher.stream.aclose()
