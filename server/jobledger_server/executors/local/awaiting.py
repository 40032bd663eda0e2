"""Small things to wait for in an event loop."""

import asyncio
import contextlib


async def within(seconds: float, event: asyncio.Event) -> bool:
    """Whether the event was set in time."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True


async def cancelled(task: "asyncio.Task[None]") -> None:
    """Cancels a task, and waits for its end."""
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
