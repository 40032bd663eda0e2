"""What the writer of a stream is given: everything, in order, and no more at a time than is bounded."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from gateway.client import eventually
from jobledger_gateway.errors import GatewayError
from jobledger_gateway.feed import MOST_WAITING, End, Feed, Singles

Put = Callable[[Any], Awaitable[None]]


class RemoteCall:
    """A call that is read message by message."""

    def __init__(self) -> None:
        self.messages: asyncio.Queue[Any] = asyncio.Queue()
        self.read = 0

    async def __aiter__(self) -> AsyncIterator[Any]:
        while (message := await self.messages.get()) is not None:
            self.read += 1
            yield message

    async def initial_metadata(self) -> tuple[()]:
        return ()

    def cancel(self) -> None:
        self.messages.put_nowait(None)


class NearCall(RemoteCall):
    """A call within this process, which hands over what it has."""

    def __init__(self) -> None:
        super().__init__()
        self.put: Put | None = None

    def forward(self, put: Put, push: Callable[[list[Any]], bool]) -> None:
        self.put = put

    async def give(self, ready: Any) -> None:
        assert self.put is not None
        await self.put(ready)


@asynccontextmanager
async def feeding(call: RemoteCall, silence: float = 60.0) -> AsyncIterator[tuple[Feed, asyncio.Event]]:
    stopping = asyncio.Event()
    feed = Feed(call, silence=silence, stopping=stopping)
    try:
        async with asyncio.timeout(10):
            yield feed, stopping
    finally:
        await feed.close()


async def turns() -> None:
    """Lets everybody do what can be done now."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_messages_come_in_order_and_the_end_after_them() -> None:
    call = RemoteCall()
    for message in (1, 2, None):
        call.messages.put_nowait(message)
    async with feeding(call) as (feed, _):
        found = list[Any]()
        while not isinstance(entry := await feed.next(), End):
            found += entry
        assert (found, entry) == ([1, 2], End(None))


async def test_messages_that_wait_are_taken_together_but_never_with_a_burst() -> None:
    """A burst is known by what it is: its bytes are remembered for others."""
    call, burst = NearCall(), [3, 4]
    async with feeding(call) as (feed, _):
        for ready in (1, 2, burst, 5, 6):
            await call.give(ready)
        assert await feed.next() == Singles([1, 2])
        assert await feed.next() is burst
        assert await feed.next() == Singles([5, 6])
        await call.give(7)
        assert await feed.next() == Singles([7])


async def test_a_call_within_the_process_hands_over_bursts() -> None:
    call = NearCall()
    async with feeding(call) as (feed, _):
        await call.give([1, 2])
        await call.give(3)
        call.messages.put_nowait(None)
        assert [await feed.next() for _ in range(3)] == [[1, 2], [3], End(None)]


@pytest.mark.parametrize("kind", [RemoteCall, NearCall])
async def test_the_call_waits_for_a_writer_that_is_behind(kind: type[RemoteCall]) -> None:
    """Messages are counted, not bursts."""
    call = kind()
    async with feeding(call) as (feed, _):
        if isinstance(call, NearCall):
            await call.give(list(range(MOST_WAITING)))
            more = asyncio.create_task(call.give([MOST_WAITING]))
            await turns()
            assert not more.done()
            assert len(await feed.next()) == MOST_WAITING  # type: ignore[arg-type]
            await more
        else:
            for message in range(3 * MOST_WAITING):
                call.messages.put_nowait(message)
            await eventually(lambda: call.read > MOST_WAITING)
            await turns()
            assert call.read == MOST_WAITING + 1
            found = list[Any]()
            while len(found) < 3 * MOST_WAITING:
                entry = await feed.next()
                assert isinstance(entry, list)
                assert len(entry) <= MOST_WAITING
                found += entry
            assert found == list(range(3 * MOST_WAITING))


async def test_a_burst_takes_the_shortcut_only_while_the_writer_waits_with_nothing_before_it() -> None:
    call, taken = NearCall(), list[Any]()

    def shortcut(burst: list[Any]) -> bool:
        taken.append(burst)
        return len(burst) < 3

    async with feeding(call) as (feed, _):
        feed.shortcut = shortcut
        await call.give([1])
        assert taken == []
        assert await feed.next() == [1]
        reading = asyncio.create_task(feed.next())
        await eventually(lambda: feed._writer_waits)
        await call.give([2, 3])
        await call.give([4, 5, 6])
        await call.give([7])
        assert taken == [[2, 3], [4, 5, 6]]
        assert [await reading, await feed.next()] == [[4, 5, 6], [7]]


async def test_silence_is_told_once_each_time_it_has_lasted() -> None:
    call = NearCall()
    async with feeding(call, silence=0.05) as (feed, _):
        began = asyncio.get_running_loop().time()
        assert await feed.next() == []
        assert await feed.next() == []
        assert asyncio.get_running_loop().time() - began >= 0.09


async def test_the_end_of_the_gateway_ends_a_stream_that_goes_on() -> None:
    call = NearCall()
    async with feeding(call) as (feed, stopping):
        await call.give([1])
        stopping.set()
        assert await feed.next() == [1]
        end = await feed.next()
        assert isinstance(end, End)
        assert isinstance(end.failure, GatewayError)
        assert end.failure.problem.reason == "ENGINE_SHUTTING_DOWN"
