"""Time limits that cost nothing where nobody waits: most reads are answered from memory, without a turn of the loop."""

import asyncio
import types
from collections.abc import Coroutine, Generator
from typing import Any, TypeVar

T = TypeVar("T")


async def within(seconds: float | None, work: Coroutine[Any, Any, T]) -> T:
    """What `work` returns. It may wait for so long; a timer is made where it first does.

    Raises:
        TimeoutError: the time is over.
    """
    try:
        awaited = work.send(None)
    except StopIteration as end:
        answer: T = end.value
        return answer
    async with asyncio.timeout(seconds):
        return await _rest(work, awaited)


@types.coroutine
def _rest(work: Coroutine[Any, Any, T], awaited: Any) -> Generator[Any, Any, T]:
    """The rest of what has begun, and waits."""
    try:
        while True:
            try:
                sent = yield awaited
            except GeneratorExit:
                work.close()
                raise
            except BaseException as error:  # noqa: BLE001 - handed on to who waits, a cancellation among them
                awaited = work.throw(error)
            else:
                awaited = work.send(sent)
    except StopIteration as end:
        answer: T = end.value
        return answer
