"""Responses of a stream that are ready together."""

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any

from jobledger_server.api.types import Context


async def singly(bursts: AsyncIterator[Sequence[Any]], context: Context) -> AsyncIterator[Any]:
    """What a servicer yields: each response of the bursts; within this process, which takes them, whole bursts.

    There, what a stream costs is its way through interceptors and queues: a burst goes it once.
    """
    takes_bursts = getattr(context, "takes_bursts", False)
    async with aclosing(bursts):  # type: ignore[type-var]
        async for burst in bursts:
            if takes_bursts:
                yield burst
            else:
                for response in burst:
                    yield response
