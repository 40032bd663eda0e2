"""Waiting for a condition, with a deadline; the only place where tests sleep."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def eventually(
    look: Callable[[], Awaitable[T]], *, seconds: float = 15.0, until: Callable[[T], bool] = bool
) -> T:
    """What `look` gives once `until` holds of it.

    Raises:
        AssertionError: it does not hold in time; the message has the last that was seen.
    """
    deadline = time.monotonic() + seconds
    while True:
        seen = await look()
        if until(seen):
            return seen
        if time.monotonic() > deadline:
            raise AssertionError(f"not so within {seconds} s; last seen: {seen!r}")
        await asyncio.sleep(0.02)


async def pace(seconds: float) -> None:
    """The beat of a load. Not for waiting until something is so: that is what `eventually` is for."""
    await asyncio.sleep(seconds)
