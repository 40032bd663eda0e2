"""Streams that break go on where they were."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import jobledger
import pytest
from jobledger import Client
from jobledger.v1.engine_service_pb2 import EngineStatus
from jobledger.v1.events_pb2 import Event
from jobledger.v1.job_pb2 import JobState, LogEntry
from jobledger.v1.job_service_pb2 import TailEnd, TailLogsResponse
from sdk.fake_server import FakeServer, Refusal

DOWN = Refusal(reason="ENGINE_SHUTTING_DOWN", retry_after=0.001)
END = TailLogsResponse(end=TailEnd(state=JobState.JOB_STATE_COMPLETED, last_sequence=3))


def _line(sequence: int) -> TailLogsResponse:
    return TailLogsResponse(log=LogEntry(job_sequence=sequence))


def _event(number: int) -> Event:
    return Event(event_type="job.progress", sequence_number=number)


async def test_a_tail_goes_on_after_the_last_line_that_arrived(server: FakeServer, client: Client) -> None:
    server.on("TailLogs", [_line(1), _line(2), DOWN], DOWN, [_line(3), END])
    assert [entry.job_sequence async for entry in client.tail_logs("job_1")] == [1, 2, 3]
    assert [request.after_sequence for request in server.requests["TailLogs"]] == [0, 2, 2]


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
    events = [event async for event in client.events(resume_from=5, job_id=["job_1"])]
    assert [event.sequence_number for event in events if event.HasField("sequence_number")] == [6, 7, 8]
    assert [request.resume_from for request in server.requests["WatchEvents"]] == [5, 7]


async def test_events_from_now_miss_nothing_when_the_stream_breaks_at_once(server: FakeServer, client: Client) -> None:
    """What happens between the break and the second connection must not fall between them."""
    server.on("GetStatus", EngineStatus(last_sequence_number=41))
    server.on("WatchEvents", DOWN, [_event(42)])
    assert [event.sequence_number async for event in client.events()] == [42]
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
