"""Streams that break go on where they were."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import jobledger
import pytest
from faults.cutting import cutting_proxy
from jobledger import Client
from jobledger.v1.engine_service_pb2 import EngineStatus
from jobledger.v1.events_pb2 import Bookmark, Event, ReplayComplete
from jobledger.v1.job_pb2 import JobState, LogEntry
from jobledger.v1.job_service_pb2 import LogBatch, TailEnd, TailLogsResponse
from sdk.fake_server import FakeServer, Refusal

DOWN = Refusal(reason="ENGINE_SHUTTING_DOWN", retry_after=0.001)
END = TailLogsResponse(end=TailEnd(state=JobState.JOB_STATE_COMPLETED, last_sequence=3))


def _line(sequence: int) -> TailLogsResponse:
    return TailLogsResponse(log=LogEntry(job_sequence=sequence))


def _batch(*sequences: int) -> TailLogsResponse:
    return TailLogsResponse(batch=LogBatch(logs=[LogEntry(job_sequence=it) for it in sequences]))


def _event(number: int) -> Event:
    return Event(event_type="job.progress", sequence_number=number)


async def _until(events: AsyncGenerator[Event, None], last: int) -> list[Event]:
    """The events up to the one with that number."""
    seen = []
    async with contextlib.aclosing(events):
        async for event in events:
            seen.append(event)
            if event.sequence_number == last:
                break
    return seen


async def test_a_tail_goes_on_after_the_last_line_that_arrived(server: FakeServer, client: Client) -> None:
    server.on("TailLogs", [_line(1), _line(2), DOWN], DOWN, [_line(3), END])
    assert [entry.job_sequence async for entry in client.tail_logs("job_1")] == [1, 2, 3]
    assert [request.after_sequence for request in server.requests["TailLogs"]] == [0, 2, 2]


async def test_a_tail_comes_in_batches_and_goes_on_after_the_last_one(server: FakeServer, client: Client) -> None:
    """An older server, which knows no batches, may be the one that is found when the stream is opened anew."""
    server.on("TailLogs", [_batch(1, 2), DOWN], [_batch(3, 4), _line(5), END])
    pages = [[entry.job_sequence for entry in page] async for page in client.tail_log_pages("job_1")]
    assert pages == [[1, 2], [3, 4], [5]]
    assert [(it.after_sequence, it.max_batch) for it in server.requests["TailLogs"]] == [(0, 1000), (2, 1000)]
    server.on("TailLogs", [_batch(1, 2), END])
    assert [entry.job_sequence async for entry in client.tail_logs("job_1")] == [1, 2]


async def test_a_tail_that_is_refused_is_not_opened_again(server: FakeServer, client: Client) -> None:
    server.on("TailLogs", [_line(1), Refusal(reason="AUTH_TOKEN_EXPIRED")])
    entries = client.tail_logs("job_1")
    assert (await anext(entries)).job_sequence == 1
    with pytest.raises(jobledger.AuthenticationError):
        await anext(entries)
    assert len(server.requests["TailLogs"]) == 1


async def test_a_stream_that_never_began_is_given_up_sooner(server: FakeServer) -> None:
    """Nobody wants to wait a minute to learn that the address was wrong."""
    server.on("TailLogs", DOWN)
    async with Client.connect(server.target, token="t", retry_for=0.05, reconnect_for=60.0) as client:
        with pytest.raises(jobledger.UnavailableError):
            await anext(client.tail_logs("job_1"))


async def test_events_resume_after_the_last_number(server: FakeServer, client: Client) -> None:
    replayed = Event(event_type="replay.complete")
    server.on("WatchEvents", [_event(6), replayed, _event(7), DOWN], [_event(8), replayed])
    events = await _until(client.events(resume_from=5, job_id=["job_1"]), 8)
    assert [event.sequence_number for event in events if event.HasField("sequence_number")] == [6, 7, 8]
    assert [request.resume_from for request in server.requests["WatchEvents"]] == [5, 7]


async def test_events_resume_from_the_last_bookmark(server: FakeServer, client: Client) -> None:
    """What a filter has held back may be gone by the time of the cut."""
    bookmark = Event(event_type="stream.bookmark", bookmark=Bookmark(last_sequence=90))
    replayed = Event(event_type="replay.complete", replay_complete=ReplayComplete(last_sequence=40))
    server.on("WatchEvents", [_event(6), replayed, DOWN], [bookmark, DOWN], [_event(93), DOWN], [replayed, _event(94)])
    await _until(client.events(resume_from=5, job_id=["job_1"]), 94)
    assert [request.resume_from for request in server.requests["WatchEvents"]] == [5, 40, 90, 93]


async def test_a_connection_that_is_reset_is_resumed_from_the_last_bookmark(server: FakeServer) -> None:
    bookmark = Event(event_type="stream.bookmark", bookmark=Bookmark(last_sequence=90))

    async def marked(_: Any) -> AsyncIterator[Event]:
        yield bookmark
        await asyncio.Event().wait()

    server.on("WatchEvents", marked, [_event(91)])
    async with (
        cutting_proxy(server.target) as proxy,
        Client.connect(proxy.address, token="t", reconnect_for=20.0) as client,
        contextlib.aclosing(client.events(resume_from=5, job_id=["job_1"])) as events,
    ):
        assert (await anext(events)).bookmark.last_sequence == 90
        proxy.cut()
        assert (await anext(events)).sequence_number == 91
    assert [request.resume_from for request in server.requests["WatchEvents"]] == [5, 90]


async def test_events_go_on_after_the_server_has_ended_the_stream(server: FakeServer, client: Client) -> None:
    """As it does when it shuts down, with no error."""
    server.on("WatchEvents", [_event(6)], [], [_event(7)])
    assert [event.sequence_number for event in await _until(client.events(resume_from=5), 7)] == [6, 7]
    assert [request.resume_from for request in server.requests["WatchEvents"]] == [5, 6, 6]


async def test_a_server_that_stays_away_is_an_error_at_last(server: FakeServer) -> None:
    server.on("WatchEvents", [_event(6)], [])
    async with Client.connect(server.target, token="t", retry_for=0.05, reconnect_for=0.2) as client:
        events = client.events(resume_from=5)
        assert (await anext(events)).sequence_number == 6
        with pytest.raises(jobledger.UnavailableError):
            await anext(events)


async def test_events_from_now_miss_nothing_when_the_stream_breaks_at_once(server: FakeServer, client: Client) -> None:
    """What happens between the break and the second connection must not fall between them."""
    server.on("GetStatus", EngineStatus(last_sequence_number=41))
    server.on("WatchEvents", DOWN, [_event(42)])
    assert [event.sequence_number for event in await _until(client.events(), 42)] == [42]
    assert [request.resume_from for request in server.requests["WatchEvents"]] == [41, 41]


async def test_a_gap_is_an_error_that_says_where_to_begin(server: FakeServer, client: Client) -> None:
    server.on("WatchEvents", Refusal(reason="STREAM_GAP_TOO_LARGE", metadata={"first_available_sequence": "9"}))
    with pytest.raises(jobledger.OutOfRangeError) as failure:
        await anext(client.events(resume_from=1))
    assert failure.value.details == {"first_available_sequence": "9"}


async def test_a_reader_that_stops_ends_the_call(server: FakeServer, client: Client) -> None:
    ended = asyncio.Event()

    def forever(_: Any) -> Any:
        async def items() -> AsyncIterator[Event]:
            try:
                yield _event(1)
                await asyncio.Event().wait()
            finally:
                ended.set()

        return items()

    server.on("WatchEvents", forever)
    async with contextlib.aclosing(client.events(resume_from=0)) as events:
        assert (await anext(events)).sequence_number == 1
    async with asyncio.timeout(5):
        await ended.wait()
