"""Writing to readers that may be slow, or gone."""

import asyncio

from aiohttp import web

# A reader that takes nothing for so long is cut off.
WRITE_SECONDS = 30.0


async def write(response: web.StreamResponse, chunk: bytes, *, seconds: float = WRITE_SECONDS) -> None:
    """Writes, waiting for a slow reader.

    Raises:
        ConnectionError: the reader is gone, or has taken nothing for `seconds`.
    """
    try:
        async with asyncio.timeout(seconds):
            await response.write(chunk)
    except TimeoutError:
        raise ConnectionAbortedError("the reader takes nothing") from None


def abort(request: web.BaseRequest) -> None:
    """Breaks the connection, so that the client sees that the answer is not complete."""
    if request.transport is not None:
        request.transport.abort()
