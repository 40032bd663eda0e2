"""A call through the channel without a socket behaves as one over a real connection."""

import asyncio
from typing import Any

import grpc
import pytest
from api.doors import Servicer
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from grpc_status import rpc_status
from jobledger.v1.job_service_pb2 import GetJobRequest, WatchEventsRequest
from jobledger_server.api.types import Metadata
from support.eventually import eventually

# For what hangs.
SECONDS = 30
Code = grpc.StatusCode


def get(stub: Any, job_id: str, token: Metadata, timeout: float | None = None) -> Any:
    return stub.GetJob(GetJobRequest(job_id=job_id), metadata=token, timeout=timeout)


def watch(stub: Any, mode: str, token: Metadata, count: int = 0, timeout: float | None = None) -> Any:
    request = WatchEventsRequest(job_id=[mode], resume_from=count)
    return stub.WatchEvents(request, metadata=token, timeout=timeout)


async def failure(call: Any) -> grpc.aio.AioRpcError:
    """How a call fails, be it of one response or of many."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await (call if hasattr(call, "__await__") else read(call, []))
    return caught.value


async def read(call: Any, into: list[Any]) -> None:
    """Reads a stream to its end, and keeps what came before an error too."""
    async for message in call:
        into.append(message)  # noqa: PERF401 - a comprehension would lose them


def detail(error: grpc.aio.AioRpcError, kind: Any) -> Any:
    """The one detail of a kind in the status."""
    message = kind()
    status = rpc_status.from_call(error)
    assert status is not None
    [packed] = [packed for packed in status.details if packed.Is(kind.DESCRIPTOR)]
    packed.Unpack(message)
    return message


async def ended(servicer: Servicer, mode: str) -> None:
    async def look() -> list[str]:
        return servicer.ended

    await eventually(look, seconds=SECONDS, until=lambda modes: mode in modes)


async def test_a_call_is_answered(stub: Any, token: Metadata) -> None:
    call = get(stub, "job", token)
    assert (await call).job_id == "job"
    assert await call.code() == Code.OK


async def test_the_servicer_knows_who_calls(stub: Any, token: Metadata, reader: Metadata) -> None:
    answers = await asyncio.gather(*(get(stub, "principal", metadata) for metadata in (token, reader) * 3))
    ids = [answer.created_by for answer in answers]
    assert [str(value).split("_")[1] for _, value in (*token, *reader)] * 3 == ids


async def test_initial_metadata_comes_with_an_answer(stub: Any, token: Metadata) -> None:
    call = get(stub, "metadata", token)
    assert dict(await call.initial_metadata())["location"] == "/v1/jobs/x"
    await call


async def test_an_error_arrives_with_its_details(stub: Any, token: Metadata) -> None:
    error = await failure(get(stub, "missing", token))
    assert (error.code(), error.details()) == (Code.NOT_FOUND, "There is no such job")
    info = detail(error, ErrorInfo)
    assert (info.reason, info.domain, dict(info.metadata)) == ("JOB_NOT_FOUND", "jobledger", {"hint": "look elsewhere"})


async def test_an_error_says_when_to_try_again(stub: Any, token: Metadata) -> None:
    error = await failure(get(stub, "busy", token))
    assert error.code() == Code.RESOURCE_EXHAUSTED
    assert detail(error, RetryInfo).retry_delay.seconds == 2


async def test_a_code_that_is_set_by_hand_is_an_error(stub: Any, token: Metadata) -> None:
    error = await failure(get(stub, "code", token))
    assert (error.code(), error.details()) == (Code.ABORTED, "by hand")


async def test_a_stream_arrives_in_order_and_ends(stub: Any, servicer: Servicer, token: Metadata) -> None:
    call = watch(stub, "count", token, 300)
    assert [event.sequence_number async for event in call] == list(range(1, 301))
    assert await call.code() == Code.OK
    await ended(servicer, "count")


async def test_an_empty_stream_ends(stub: Any, token: Metadata) -> None:
    assert [event async for event in watch(stub, "count", token)] == []


@pytest.mark.parametrize("count", [0, 2, 64, 200])
async def test_an_error_in_mid_stream_comes_after_what_was_sent(stub: Any, token: Metadata, count: int) -> None:
    seen: list[Any] = []
    call = watch(stub, "midway", token, count)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await read(call, seen)
    assert [event.sequence_number for event in seen] == list(range(1, count + 1))
    assert caught.value.code() == Code.OUT_OF_RANGE
    assert detail(caught.value, ErrorInfo).metadata["first_available_sequence"] == "9"
    assert await call.code() == Code.OUT_OF_RANGE


async def test_acceptance_is_told_before_the_first_message(stub: Any, servicer: Servicer, token: Metadata) -> None:
    call = watch(stub, "silent", token, 1)
    assert dict(await call.initial_metadata())["etag"] == '"x"'
    assert servicer.produced == 0
    servicer.released.set()
    assert [event.sequence_number async for event in call] == [1]


async def test_a_refusal_ends_the_wait_for_acceptance(stub: Any, token: Metadata) -> None:
    call = watch(stub, "refused", token)
    async with asyncio.timeout(SECONDS):
        assert "etag" not in dict(await call.initial_metadata())
    assert (await failure(call)).code() == Code.INVALID_ARGUMENT


@pytest.mark.parametrize("kind", [get, watch])
async def test_a_deadline_ends_the_call_on_both_sides(
    stub: Any, servicer: Servicer, token: Metadata, kind: Any
) -> None:
    await get(stub, "x", token)  # connected: else the deadline may pass before there is another side
    call = kind(stub, "wait" if kind is get else "silent", token, timeout=1)
    assert (await failure(call)).code() == Code.DEADLINE_EXCEEDED
    await ended(servicer, "cancelled")


@pytest.mark.parametrize("kind", [get, watch])
async def test_cancelling_reaches_the_servicer(stub: Any, servicer: Servicer, token: Metadata, kind: Any) -> None:
    call = kind(stub, "wait" if kind is get else "silent", token)
    await asyncio.wait_for(servicer.begun.wait(), SECONDS)
    assert not call.done()
    assert call.cancel()
    await ended(servicer, "cancelled")
    assert await call.code() == Code.CANCELLED
    assert call.cancelled()
    assert not call.cancel()


async def test_a_caller_that_is_cancelled_cancels_its_call(stub: Any, servicer: Servicer, token: Metadata) -> None:
    async def caller() -> None:
        await get(stub, "wait", token)

    task = asyncio.create_task(caller())
    await asyncio.wait_for(servicer.begun.wait(), SECONDS)
    task.cancel()
    await ended(servicer, "cancelled")


async def test_a_reader_that_does_not_read_stops_the_servicer(stub: Any, servicer: Servicer, token: Metadata) -> None:
    """However much there is to send, little of it waits in memory."""
    call = watch(stub, "large", token, 2000)
    stream, last = aiter(call), 0
    assert (await anext(stream)).sequence_number == 1

    async def grown() -> int:
        nonlocal last
        last, before = servicer.produced, last
        return last - before

    await eventually(grown, seconds=SECONDS, until=lambda growth: growth == 0 and last > 1)
    assert last < 1000  # of the 2000 that there are; what the sockets hold between them varies
    for number in range(2, last + 100):
        assert (await anext(stream)).sequence_number == number
    assert servicer.produced > last
    call.cancel()
    await ended(servicer, "large")


async def test_cancelling_a_stream_in_the_middle_ends_the_servicers_work(
    stub: Any, servicer: Servicer, token: Metadata
) -> None:
    call = watch(stub, "large", token, 2000)
    await anext(aiter(call))
    call.cancel()
    await ended(servicer, "large")
    assert servicer.produced < 2000


async def test_calls_do_not_wait_for_each_other(stub: Any, servicer: Servicer, token: Metadata) -> None:
    waiting = get(stub, "wait", token)
    await asyncio.wait_for(servicer.begun.wait(), SECONDS)
    assert (await get(stub, "job", token)).job_id == "job"
    servicer.released.set()
    assert (await waiting).job_id == "wait"
