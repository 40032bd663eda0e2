"""Starts shims, by way of the nursery."""

import asyncio
import contextlib
import os
import socket
from asyncio.subprocess import DEVNULL
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from jobledger_server.executors.local import interpreter

NURSERY = "jobledger_server.executors.local.nursery"


class Line(NamedTuple):
    """To a nursery. Its end is the only thing that the nursery wants to know of us."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def ask(self, question: bytes) -> bytes:
        """The answer, a whole line; empty where the nursery has ended."""
        answer = b""
        with contextlib.suppress(ConnectionError):
            self.writer.write(question)
            await self.writer.drain()
            answer = await self.reader.readline()
        return answer if answer.endswith(b"\n") else b""

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


class Spawner:
    """Forks shims outside the server's process, which has threads and locks that must not be forked."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._nursery: Line | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._leave()

    async def spawn(self, control_dir: Path) -> int:
        """Starts the shim of a control directory. Returns its pid.

        Raises:
            OSError: there are no processes or no memory left.
        """
        async with self._lock:
            # Asking a second time is safe: of two shims of an attempt one gives way.
            answer = await self._ask(control_dir) or await self._ask(control_dir)
        if answer is None:
            raise ChildProcessError("The process that starts jobs ends at once: see the server's standard error")
        if answer < 0:
            raise OSError(-answer, os.strerror(-answer))
        return answer

    async def _ask(self, control_dir: Path) -> int | None:
        """The nursery's answer; None where it has ended. Then the next call starts another one."""
        answer = b""
        if self._nursery is None:
            self._nursery = await _start_nursery()
        try:
            answer = await self._nursery.ask(os.fsencode(control_dir) + b"\n")
        finally:
            # Also where nobody waits for the answer any more: it must not be taken for that of the next question.
            if not answer:
                await self._leave()
        return int(answer) if answer else None

    async def _leave(self) -> None:
        """The nursery goes on as long as something that it started lives."""
        nursery, self._nursery = self._nursery, None
        if nursery:
            await nursery.close()


async def _start_nursery() -> Line:
    """Starts a process that sends the nursery off and ends: we are no parent of it, and need not see to its end."""
    ours, theirs = socket.socketpair()
    try:
        with theirs:
            starter = await asyncio.create_subprocess_exec(
                *interpreter.command_line(NURSERY),
                env=interpreter.environment(),
                stdin=theirs.fileno(),
                stdout=DEVNULL,
                start_new_session=True,
            )
        await starter.wait()
        return Line(*await asyncio.open_unix_connection(sock=ours))
    except BaseException:
        ours.close()
        raise
