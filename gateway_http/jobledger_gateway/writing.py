"""Writing to readers that may be slow, or gone."""

import asyncio

from aiohttp import web

# A reader that takes nothing for so long is cut off.
WRITE_SECONDS = 30.0


async def write(
    request: web.BaseRequest, response: web.StreamResponse, chunk: bytes, *, seconds: float = WRITE_SECONDS
) -> None:
    """Writes to who asked, waiting for a slow reader.

    Raises:
        ConnectionError: the reader is gone, or has taken nothing for `seconds`.
    """
    if not chunk:
        return
    if has_room(request, len(chunk)):
        # It can't come to a wait: that saves most writes a timer.
        await response.write(chunk)
        return
    try:
        async with asyncio.timeout(seconds):
            await response.write(chunk)
    except TimeoutError:
        raise ConnectionAbortedError("the reader takes nothing") from None


def has_room(request: web.BaseRequest, size: int) -> bool:
    """Whether the connection takes so many bytes, and what frames them, before it asks to wait."""
    transport = request.transport
    if transport is None or transport.is_closing():
        return False
    low, _ = transport.get_write_buffer_limits()
    return transport.get_write_buffer_size() + size <= low


def write_at_once(response: web.StreamResponse, chunk: bytes) -> bool:
    """Writes where there is room, outside of any task."""
    writing = response.write(chunk)
    try:
        writing.send(None)
    except StopIteration:
        return True
    except ConnectionError:
        return False
    raise RuntimeError("a write that had room came to a wait")


def abort(request: web.BaseRequest) -> None:
    """Breaks the connection, so that the client sees that the answer is not complete."""
    if request.transport is not None:
        request.transport.abort()
