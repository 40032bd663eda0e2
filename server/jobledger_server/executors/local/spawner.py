"""Starts shims, by way of the nursery."""

import asyncio
import contextlib
import errno
import json
import logging
import os
import signal
import socket
from asyncio.subprocess import DEVNULL
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from jobledger_server.executors.local import interpreter, open_files
from jobledger_server.executors.local.process_tree import send_signal

NURSERY = "jobledger_server.executors.local.nursery"
# What a nursery is sent that does not answer, and when: a fork takes it a millisecond.
ALARMS = ((1.0, signal.SIGCONT), (5.0, signal.SIGKILL))
ANSWER_SECONDS, START_SECONDS = 6.0, 30.0
ENDS_AT_ONCE = "The process that starts jobs ends at once: see the server's standard error"

logger = logging.getLogger(__name__)


class Line(NamedTuple):
    """To a nursery, a process `pid`. Its end is the only thing that the nursery wants to know of us."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    pid: int

    async def ask(self, question: bytes) -> bytes:
        """The answer, a whole line; empty where the nursery has ended, or has had to be: a job may have stopped it.

        That is known by its silence. As long as the line is open its pid is that of no other process.
        """
        loop = asyncio.get_running_loop()
        alarms = [loop.call_later(seconds, self._rouse, number) for seconds, number in ALARMS]
        answer = b""
        try:
            with contextlib.suppress(ConnectionError, TimeoutError):
                async with asyncio.timeout(ANSWER_SECONDS):
                    self.writer.write(question)
                    await self.writer.drain()
                    answer = await self.reader.readline()
        finally:
            for alarm in alarms:
                alarm.cancel()
        return answer if answer.endswith(b"\n") else b""

    def _rouse(self, number: signal.Signals) -> None:
        logger.warning("The process that starts jobs does not answer: it is sent %s", number.name)
        send_signal(self.pid, number)

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

    async def spawn(self, control_dir: Path, secret_env: Mapping[str, str]) -> int:
        """Starts the shim of a control directory. Returns its pid.

        Args:
            secret_env: variables for the command that must not be written down.

        Raises:
            OSError: there are no processes or no memory left.
        """
        request = json.dumps({"control": str(control_dir), "secret_env": dict(secret_env)}).encode() + b"\n"
        async with self._lock:
            # Asking a second time is safe: of two shims of an attempt one gives way.
            answer = await self._ask(request) or await self._ask(request)
        if answer is None:
            raise OSError(errno.EAGAIN, "The process that starts jobs does not answer")
        if answer < 0:
            raise OSError(-answer, os.strerror(-answer))
        return answer

    async def _ask(self, request: bytes) -> int | None:
        """The nursery's answer; None where it has ended. Then the next call starts another one."""
        answer = b""
        if self._nursery is None:
            self._nursery = await _start_nursery()
        try:
            answer = await self._nursery.ask(request)
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
                *interpreter.command_line(NURSERY, str(open_files.original())),
                env=interpreter.environment(),
                stdin=theirs.fileno(),
                stdout=DEVNULL,
                start_new_session=True,
            )
        await starter.wait()
        return await _introduced(*await asyncio.open_unix_connection(sock=ours))
    except BaseException:
        ours.close()
        raise


async def _introduced(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Line:
    """The line to a nursery that has said who it is."""
    try:
        async with asyncio.timeout(START_SECONDS):
            pid = await reader.readline()
    except TimeoutError as error:
        raise OSError(errno.EAGAIN, "The process that starts jobs does not come up") from error
    if not pid:
        raise ChildProcessError(ENDS_AT_ONCE)
    return Line(reader, writer, int(pid))
