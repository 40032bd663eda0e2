"""What the writer of a stream waits for: messages of its call, silence that lasts, and the end of the gateway."""

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import grpc

from jobledger_gateway.errors import GatewayError, problem

# Messages that wait for a slow reader: enough to fill a chunk, few enough to bound memory. A burst may pass it once.
MOST_WAITING = 64


class Singles(list[Any]):
    """Messages that came one by one, and are ready together. A list of any other kind came as one."""


@dataclass(frozen=True, slots=True)
class End:
    """The stream is over: by a failure, or (None) as it should."""

    failure: Exception | None


class Feed:
    """Reads a call ahead, within bounds, so that what is ready can be written in one go.

    All that a writer waits for comes through one queue, and one timer serves the whole stream: a thousand streams that
    tell the same event can't afford a timer and tasks for each message.

    Attributes:
        shortcut: takes a burst while the writer waits, in its place and without waking it; or says that it can't.
    """

    shortcut: Callable[[list[Any]], bool] | None = None

    def __init__(self, call: Any, *, silence: float, stopping: asyncio.Event) -> None:
        """Begins to read.

        Args:
            call: a call of a server stream that nobody has read from. One within this process hands over its messages
                without another task between.
            silence: seconds after which a writer is told of it.
            stopping: ends the stream with an error once it is set.
        """
        self._call = call
        self._entries: asyncio.Queue[list[Any] | End] = asyncio.Queue()
        # The last entry, while it waits and others may join it.
        self._open: Singles | None = None
        self._backlog = 0
        self._room = asyncio.Event()
        self._made_room = False
        self._writer_waits = False
        self._began = asyncio.Event()
        self._refusal: Exception | None = None
        self._silence = silence
        self._loop = asyncio.get_running_loop()
        self._taken_at = self._loop.time()
        self._timer = self._loop.call_later(silence, self._tell_silence)
        forward = getattr(call, "forward", None)
        if forward is not None:
            forward(self._put, self._push)
        self._tasks = {asyncio.create_task(self._read()), asyncio.create_task(self._await_stop(stopping))}

    async def _read(self) -> None:
        end = End(None)
        try:
            async for message in self._call:
                await self._put(message)
        except Exception as failure:  # noqa: BLE001 - handed on: whoever reads the feed tells the client
            end = End(failure)
        if not self._began.is_set():
            self._refusal = end.failure
            self._began.set()
        self._enter(end)

    async def _put(self, ready: Any) -> None:
        """Takes a message, or a list of those that are ready together; waits for room for it."""
        self._began.set()
        if isinstance(ready, list) and self._push(ready):
            return
        while self._backlog >= MOST_WAITING:
            self._room.clear()
            await self._room.wait()
        if isinstance(ready, list):
            self._backlog += len(ready)
            self._enter(ready)
        else:
            self._backlog += 1
            self._join(ready)

    def _enter(self, entry: list[Any] | End) -> None:
        self._open = None
        self._entries.put_nowait(entry)

    def _join(self, message: Any) -> None:
        """Puts a message to those that wait already: a queue's entry for each would cost more than encoding it."""
        if self._open is not None:
            self._open.append(message)
        else:
            single = Singles((message,))
            self._enter(single)
            self._open = single

    def _push(self, burst: list[Any]) -> bool:
        """Takes the shortcut, where the writer waits with nothing before it."""
        if self.shortcut is None or not self._writer_waits or not self._entries.empty():
            return False
        self._taken_at = self._loop.time()
        return self.shortcut(burst)

    async def _await_stop(self, stopping: asyncio.Event) -> None:
        await stopping.wait()
        self._enter(End(GatewayError(problem("ENGINE_SHUTTING_DOWN"))))

    def _tell_silence(self) -> None:
        now = self._loop.time()
        if now >= self._taken_at + self._silence:
            self._taken_at = now
            if self._entries.empty():
                self._enter([])
        self._timer = self._loop.call_at(self._taken_at + self._silence, self._tell_silence)

    async def accepted(self, patience: float, most: float) -> Iterable[tuple[str, str | bytes]]:
        """Returns the initial metadata when the server has accepted the call; none where it has not within `most`.

        A refusal arrives with, or just after, the initial metadata, and nothing tells it from an acceptance but the
        status that follows: hence the patience, in seconds. A refusal later than that is told within the stream.

        Args:
            patience: seconds after the initial metadata.
            most: seconds before it. Many a server sends none before its first message.

        Raises:
            grpc.aio.AioRpcError: it has refused.
        """
        metadata: Iterable[tuple[str, str | bytes]] = ()
        with suppress(grpc.aio.AioRpcError, TimeoutError):
            async with asyncio.timeout(most):
                metadata = await self._call.initial_metadata()
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self._began.wait()
        if self._refusal is not None:
            raise self._refusal
        return metadata

    async def more(self) -> bool:
        """Whether `next` would not wait. Where the call waited for room, it has its turn before."""
        if self._made_room and self._entries.empty():
            self._made_room = False
            await asyncio.sleep(0)
        return not self._entries.empty()

    async def next(self) -> list[Any] | End:
        """The messages that came next, none of them for a silence that has lasted; or the end."""
        self._writer_waits = True
        entry = await self._entries.get()
        self._writer_waits = False
        if entry is self._open:
            self._open = None
        self._taken_at = self._loop.time()
        if isinstance(entry, list):
            self._made_room = self._backlog >= MOST_WAITING
            self._backlog -= len(entry)
            self._room.set()
        return entry

    async def close(self) -> None:
        """Ends the call."""
        self._timer.cancel()
        self._call.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
