"""What only the channel without a socket has: the gateway's word for the peer, and messages handed over as they are."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from api.doors import Servicer, opened
from jobledger.v1.events_pb2 import Event
from jobledger.v1.job_pb2 import Job
from jobledger.v1.job_service_pb2 import GetJobRequest, WatchEventsRequest
from jobledger.v1.job_service_pb2_grpc import JobServiceStub
from jobledger_server.api.bursts import singly
from jobledger_server.api.interceptors.access import peer_of
from jobledger_server.api.types import Context
from support.eventually import eventually


class Looker(Servicer):
    """Remembers what the context told it."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Any] = []

    async def GetJob(self, request: GetJobRequest, context: Context) -> Job:
        self.seen = [request, context.peer(), context.invocation_metadata(), context.time_remaining()]
        context.set_trailing_metadata((("x-trailing", "1"),))
        if request.job_id == "wait":
            await self._wait()
        return Job(job_id=request.job_id)


@pytest.fixture
def looker() -> Looker:
    return Looker()  # type: ignore[abstract]  # the other methods are left unimplemented on purpose


@pytest.fixture
async def stub(looker: Looker) -> AsyncIterator[Any]:
    async with opened("inprocess", looker, ()) as channel:
        yield JobServiceStub(channel)


async def test_the_request_is_handed_over_as_it_is(stub: Any, looker: Looker) -> None:
    request = GetJobRequest(job_id="job")
    await stub.GetJob(request)
    assert looker.seen[0] is request


async def test_the_peer_is_whom_the_gateway_names_and_the_name_is_not_passed_on(stub: Any, looker: Looker) -> None:
    await stub.GetJob(GetJobRequest(), metadata=(("x-jobledger-peer", "192.0.2.1"), ("x-request-id", "7")))
    assert looker.seen[1:3] == ["192.0.2.1", (("x-request-id", "7"),)]
    await stub.GetJob(GetJobRequest())
    assert looker.seen[1:3] == ["inprocess", ()]


async def test_the_time_that_is_left_is_told(stub: Any, looker: Looker) -> None:
    await stub.GetJob(GetJobRequest(), timeout=5)
    assert 4 < looker.seen[3] <= 5
    await stub.GetJob(GetJobRequest())
    assert looker.seen[3] is None


async def test_trailing_metadata_arrives(stub: Any) -> None:
    call = stub.GetJob(GetJobRequest())
    await call
    assert await call.trailing_metadata() == (("x-trailing", "1"),)


async def test_a_stream_that_is_left_early_ends_by_itself(looker: Looker) -> None:
    """Nothing goes on for a reader who is gone, also where it forgot to cancel."""
    async with opened("inprocess", looker, ()) as channel:
        async for event in JobServiceStub(channel).WatchEvents(WatchEventsRequest(job_id=["large"], resume_from=2000)):
            assert event.sequence_number == 1
            break

        async def calls() -> int:
            return len(channel._calls)

        await eventually(calls, seconds=30, until=lambda count: count == 0)
        assert looker.ended == ["large"]
        assert looker.produced < 100


async def test_closing_the_channel_ends_what_is_under_way(looker: Looker) -> None:
    async with opened("inprocess", looker, ()) as channel:
        call = JobServiceStub(channel).GetJob(GetJobRequest(job_id="wait"))
        await asyncio.wait_for(looker.begun.wait(), 30)
    assert looker.ended == ["cancelled"]
    assert await call.code() == grpc.StatusCode.CANCELLED


async def test_closing_with_grace_lets_calls_finish(looker: Looker) -> None:
    async with opened("inprocess", looker, ()) as channel:
        call = JobServiceStub(channel).GetJob(GetJobRequest(job_id="wait"))
        await asyncio.wait_for(looker.begun.wait(), 30)
        closing = asyncio.create_task(channel.close(grace=5))
        looker.released.set()
        assert (await call).job_id == "wait"
        await closing


@pytest.mark.parametrize("end", ["task", "call", "channel", "deadline"])
async def test_a_call_that_is_awaited_at_once_runs_in_its_callers_task_and_ends_as_any_other(
    looker: Looker, end: str
) -> None:
    """By its caller's end, by another task, by the channel's end, or by its own deadline."""
    calls: list[Any] = []

    async def ask(stub: Any) -> Any:
        request, timeout = GetJobRequest(job_id="wait"), 0.01 if end == "deadline" else None
        calls.append(stub.GetJob(request, timeout=timeout))
        return await calls[0]

    async with opened("inprocess", looker, ()) as channel:
        others = asyncio.all_tasks()
        caller = asyncio.create_task(ask(JobServiceStub(channel)))
        await looker.begun.wait()
        assert asyncio.all_tasks() - others == {caller}
        match end:
            case "task":
                caller.cancel()
            case "call":
                assert calls[0].cancel()
            case "channel":
                await channel.close()
        with pytest.raises(grpc.aio.AioRpcError if end == "deadline" else asyncio.CancelledError):
            await caller
    code = grpc.StatusCode.DEADLINE_EXCEEDED if end == "deadline" else grpc.StatusCode.CANCELLED
    assert (await calls[0].code(), calls[0].done(), calls[0].cancelled()) == (code, True, end != "deadline")
    assert looker.ended == ["cancelled"]


async def test_a_call_that_nobody_awaits_begins_by_itself(stub: Any, looker: Looker) -> None:
    call = stub.GetJob(GetJobRequest(job_id="wait"))
    await asyncio.wait_for(looker.begun.wait(), 30)
    looker.released.set()
    assert await call.code() == grpc.StatusCode.OK
    assert [(await call).job_id for _ in range(2)] == ["wait", "wait"]


async def test_a_call_may_be_awaited_again(stub: Any) -> None:
    call = stub.GetJob(GetJobRequest(job_id="job"))
    assert [(await call).job_id for _ in range(2)] == ["job", "job"]


async def test_a_call_that_is_cancelled_before_it_begins_never_does(stub: Any, looker: Looker) -> None:
    call = stub.GetJob(GetJobRequest(job_id="job"))
    assert call.cancel()
    assert not call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert (await call.code(), looker.seen) == (grpc.StatusCode.CANCELLED, [])


@pytest.mark.parametrize(
    ("peer", "host"),
    [
        ("ipv4:127.0.0.1:54321", "127.0.0.1"),
        ("ipv6:[::1]:54321", "::1"),
        ("ipv6:%5B::1%5D:54321", "::1"),
        ("unix:", "unix:"),
        ("inprocess", "inprocess"),
        ("192.0.2.1", "192.0.2.1"),
    ],
)
def test_a_new_connection_is_not_a_new_peer(peer: str, host: str) -> None:
    class WithPeer:
        def peer(self) -> str:
            return peer

    context: Any = WithPeer()
    assert peer_of(context) == host


class Bursting(Servicer):
    """Events as the hub gives them: those that are ready together."""

    async def WatchEvents(self, request: WatchEventsRequest, context: Context) -> AsyncIterator[Any]:
        async def bursts() -> AsyncIterator[list[Event]]:
            yield [Event(sequence_number=1), Event(sequence_number=2)]
            yield [Event(sequence_number=3)]

        async for response in singly(bursts(), context):
            yield response


@pytest.mark.parametrize("door", ["inprocess", "socket"])
async def test_who_iterates_gets_the_responses_of_bursts_one_by_one(door: str) -> None:
    servicer = Bursting()  # type: ignore[abstract]  # the other methods are left unimplemented on purpose
    async with opened(door, servicer, ()) as channel:
        call = JobServiceStub(channel).WatchEvents(WatchEventsRequest())
        assert [event.sequence_number async for event in call] == [1, 2, 3]


async def test_a_reader_that_queues_by_itself_is_handed_whole_bursts() -> None:
    taken: list[list[int]] = []

    async def put(ready: list[Event]) -> None:
        taken.append([event.sequence_number for event in ready])

    servicer = Bursting()  # type: ignore[abstract]  # the other methods are left unimplemented on purpose
    async with opened("inprocess", servicer, ()) as channel:
        call: Any = JobServiceStub(channel).WatchEvents(WatchEventsRequest())
        call.forward(put)
        assert [event async for event in call] == []
    assert taken == [[1, 2], [3]]
