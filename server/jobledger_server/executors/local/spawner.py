"""Starts shims, by way of the nursery."""

import asyncio
import contextlib
import os
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path
from types import TracebackType
from typing import Self

import jobledger_server

# Isolated, without site-packages, UTF-8 whatever the locale: the same wherever the server was started.
INTERPRETER = (sys.executable, "-I", "-S", "-X", "utf8")
BOOTSTRAP = (
    "import sys; sys.path.append(sys.argv[1]); from jobledger_server.executors.local.nursery import main; main()"
)
# What an interpreter may need to load. Nothing else of the server's environment is a job's business.
KEPT_VARIABLES = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
PACKAGE_ROOT = Path(jobledger_server.__file__).parents[1]


class Spawner:
    """Forks shims outside the server's process, which has threads and locks that must not be forked."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._nursery: Process | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

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
        if self._nursery is None or self._nursery.returncode is not None:
            self._nursery = await asyncio.create_subprocess_exec(
                *(*INTERPRETER, "-c", BOOTSTRAP, str(PACKAGE_ROOT)),
                env={name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ},
                stdin=PIPE,
                stdout=PIPE,
                start_new_session=True,
            )
        answer = await _exchange(self._nursery, f"{control_dir}\n".encode("utf-8", "surrogateescape"))
        if not answer:
            await self._stop()
            return None
        return int(answer)

    async def _stop(self) -> None:
        """Ends the nursery. What it started goes on."""
        nursery, self._nursery = self._nursery, None
        if nursery and nursery.stdin:
            nursery.stdin.close()
            await nursery.wait()


async def _exchange(process: Process, line: bytes) -> bytes:
    if process.stdin is None or process.stdout is None:
        return b""
    with contextlib.suppress(ConnectionError):
        process.stdin.write(line)
        await process.stdin.drain()
        return await process.stdout.readline()
    return b""
