"""Streams that come in bursts, one by one."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any


async def each(bursts: Any) -> AsyncIterator[Any]:
    """Each item of the bursts, none of which may be empty."""
    async with aclosing(bursts):
        async for burst in bursts:
            assert burst
            for item in burst:
                yield item
