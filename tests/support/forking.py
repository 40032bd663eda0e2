"""Runs of the program that are forks of a process which has it loaded: they cost a fifth of the processor time.

Of its surroundings such a run has what a process that is started here has: environment, working directory, streams.
Not so what /proc tells of its command and environment, and limits: it has those of the process that it was forked from.
It ends without the interpreter's last steps. Tests of such things start the program afresh.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from multiprocessing.context import ForkServerContext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

# All that takes long to load; `jobledger_server.main` sets variables for gRPC, so each fork loads it in its own turn.
LOADED = ["jobledger_server.wiring.embedded"]


@cache
def _context() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LOADED)
    return context


class Streams(NamedTuple):
    """Files: what it reads, and those to which is added what it writes."""

    output: Path
    errors: Path
    input: Path = Path(os.devnull)


class Forked:
    """A run of the program, with what tests use of `subprocess.Popen`."""

    def __init__(self, arguments: Sequence[str], streams: Streams, environment: Mapping[str, str]) -> None:
        """Starts `jobledger ARGUMENTS`."""
        work = (tuple(arguments), streams, dict(environment))
        self._process = _context().Process(target=_run, args=work, daemon=True)
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def poll(self) -> int | None:
        """The exit code; None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, once it has ended.

        Raises:
            subprocess.TimeoutExpired: it has not, in so many seconds.
        """
        self._process.join(timeout)
        code = self._process.exitcode
        if code is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def run(
    arguments: Sequence[str], environment: Mapping[str, str], *, stdin: bytes = b"", timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    """Runs `jobledger ARGUMENTS` to its end.

    Raises:
        subprocess.TimeoutExpired: it takes longer than so many seconds; it is killed.
    """
    with TemporaryDirectory() as place:
        streams = Streams(*(Path(place) / name for name in Streams._fields))
        for path in streams:
            path.write_bytes(stdin if path is streams.input else b"")
        process = Forked(arguments, streams, environment)
        try:
            code = process.wait(timeout)
        finally:
            process.kill()
        return subprocess.CompletedProcess(
            arguments, code, streams.output.read_bytes().decode(), streams.errors.read_bytes().decode()
        )


def _run(arguments: Sequence[str], streams: Streams, environment: Mapping[str, str]) -> None:
    """In the fork: becomes the program."""
    os.environ.clear()
    os.environ.update(environment)
    writing = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    for number, path, flags in (
        (0, streams.input, os.O_RDONLY),
        (1, streams.output, writing),
        (2, streams.errors, writing),
    ):
        descriptor = os.open(path, flags, 0o666)
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdin = os.fdopen(0, closefd=False)
    sys.argv = ["jobledger", *arguments]
    from jobledger.cli.main import main

    main()
