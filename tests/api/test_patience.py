"""A time limit is the same whether the work waits or not; only where it does, it costs a timer."""

import asyncio
from typing import Any

import pytest
from jobledger_server.api.patience import within


async def test_what_never_waits_needs_no_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    async def answer() -> str:
        return "answer"

    async def fail() -> None:
        raise LookupError("of its own")

    monkeypatch.delattr(asyncio, "timeout")
    assert await within(0, answer()) == "answer"
    with pytest.raises(LookupError, match="of its own"):
        await within(1, fail())


@pytest.mark.parametrize("seconds", [None, 30])
async def test_what_waits_gets_what_it_waits_for(seconds: float | None) -> None:
    """Answers and failures of what it waits for, in turn, in its caller's task."""
    waited: asyncio.Queue[int] = asyncio.Queue()
    failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    failed.get_loop().call_later(0.001, failed.set_exception, LookupError())

    async def work() -> list[Any]:
        found: list[Any] = [asyncio.current_task()]
        for _ in range(2):
            found.append(await waited.get())
            await asyncio.sleep(0)
        try:
            await failed
        except LookupError:
            found.append("caught")
        return found

    asyncio.get_running_loop().call_soon(waited.put_nowait, 1)
    asyncio.get_running_loop().call_later(0.001, waited.put_nowait, 2)
    assert await within(seconds, work()) == [asyncio.current_task(), 1, 2, "caught"]


@pytest.mark.parametrize("seconds", [0, 0.01])
async def test_what_waits_too_long_is_cancelled(seconds: float) -> None:
    ends: list[str] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ends.append("ended")

    with pytest.raises(TimeoutError):
        await within(seconds, work())
    assert ends == ["ended"]


async def test_who_is_cancelled_is_not_told_of_a_time_limit() -> None:
    begun, ends = asyncio.Event(), list[str]()

    async def work() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            # What it has to do by then may wait, too.
            await asyncio.sleep(0)
            ends.append("ended")
            raise

    task = asyncio.create_task(within(30, work()))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ends == ["ended"]


def test_what_is_dropped_while_it_waits_is_closed() -> None:
    ends: list[str] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ends.append("ended")

    async def begin() -> Any:
        waiting = within(None, work()).__await__()
        next(waiting)
        return waiting

    asyncio.run(begin()).close()
    assert ends == ["ended"]
