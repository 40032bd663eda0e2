"""Runs a command that answers few bytes, and keeps no more of what it says than that."""

import asyncio
import os
import signal
from contextlib import suppress
from dataclasses import dataclass

# How long what holds the answer open, once the command itself has ended, can hold it up, seconds.
DRAIN_SECONDS = 0.2
# How long one that was killed is waited for.
END_SECONDS = 1.0
TOLD_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Said:
    """What a command said: at most one byte more of its answer than was asked for, and the end of its stderr."""

    exit_code: int
    answer: bytes
    told: bytes


async def run(command: tuple[str, ...], data: bytes, *, most: int, patience: float) -> Said:
    """Gives the command `data` on its standard input, and takes what it answers until it has ended.

    One that answers more than `most` bytes is killed there and then. A process that it leaves behind may hold its
    output open; nobody waits for that.

    Raises:
        TimeoutError: it did not end within `patience` seconds; it was killed, with all of its process group.
        OSError: it can't be started.
    """
    conversation = _Conversation(most)
    transport, _ = await asyncio.get_running_loop().subprocess_exec(
        lambda: conversation, *command, start_new_session=True
    )
    try:
        async with asyncio.timeout(patience):
            _give(transport, data)
            await asyncio.wait((conversation.ended, conversation.overflown), return_when=asyncio.FIRST_COMPLETED)
        if conversation.ended.done():
            await asyncio.wait((conversation.answered,), timeout=DRAIN_SECONDS)
    finally:
        # Also where whoever waits was cancelled.
        await _end(transport, conversation)
    return Said(transport.get_returncode() or 0, bytes(conversation.answer), bytes(conversation.told))


class _Conversation(asyncio.SubprocessProtocol):
    """What comes from the command, as far as there is room, and how far that has got."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.answer, self.told = bytearray(), bytearray()
        loop = asyncio.get_running_loop()
        self.ended, self.answered, self.overflown, self.closed = (loop.create_future() for _ in range(4))

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if fd == 1:
            self.answer += data[: self._most + 1 - len(self.answer)]
            if len(self.answer) > self._most:
                _note(self.overflown)
        else:
            self.told = (self.told + data[-TOLD_BYTES:])[-TOLD_BYTES:]

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        if fd == 1:
            _note(self.answered)

    def process_exited(self) -> None:
        _note(self.ended)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        _note(self.closed)


def _note(it: "asyncio.Future[None]") -> None:
    if not it.done():
        it.set_result(None)


def _give(transport: asyncio.SubprocessTransport, data: bytes) -> None:
    match transport.get_pipe_transport(0):
        case asyncio.WriteTransport() as stdin:
            stdin.write(data)
            stdin.close()


async def _end(transport: asyncio.SubprocessTransport, conversation: _Conversation) -> None:
    """Kills what has not ended, and closes the pipes, whoever else has them."""
    if not conversation.ended.done():
        with suppress(ProcessLookupError):
            os.killpg(transport.get_pid(), signal.SIGKILL)
        await asyncio.wait((conversation.ended,), timeout=END_SECONDS)
    transport.close()
    await asyncio.wait((conversation.closed,), timeout=END_SECONDS)
