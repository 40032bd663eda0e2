"""The real program, started as a user starts it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from support import forking

Process: TypeAlias = subprocess.Popen[bytes] | forking.Forked

# For what hangs: a server is up within a second or two, and takes many times that where the machine is busy.
START_SECONDS = 60.0
STOP_SECONDS = 60.0


@dataclass
class RunningServer:
    """A server in a process of its own, on free ports."""

    data_dir: Path
    process: Process
    endpoints: dict[str, Any]
    ready_after: float

    @property
    def target(self) -> str:
        return str(self.endpoints["grpc"])

    @property
    def url(self) -> str:
        return str(self.endpoints["http"])

    @property
    def token(self) -> str:
        return Path(self.endpoints["token_file"]).read_text().strip()

    def kill(self) -> None:
        """As a crash: no chance to do anything."""
        self.process.kill()
        self.process.wait(STOP_SECONDS)

    def stop(self, *, number: signal.Signals = signal.SIGTERM) -> int:
        """As a user: a signal, then the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(STOP_SECONDS)

    def resident_megabytes(self, *, most: bool = False) -> float:
        """Memory that it has now, or the most that it ever had."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmHWM" if most else "VmRSS"))
        return int(line.split()[1]) / 1024


def launch(data_dir: Path, *flags: str, afresh: bool = False, by: Sequence[str] = ()) -> Process:
    """`jobledger up` on free ports: a fork (`support.forking`), or afresh as a user starts it.

    With `by`, afresh by way of a command that becomes it.
    """
    ports = [] if "--grpc-port" in flags else ["--grpc-port", "0", "--http-port", "0"]
    arguments = ["up", "--data-dir", str(data_dir), *ports, *flags]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("JOBLEDGER_")}
    if not (afresh or by):
        streams = forking.Streams(output_file(data_dir), output_file(data_dir))
        return forking.Forked(arguments, streams, environment)
    command = [*by, sys.executable, "-m", "jobledger.cli", *arguments]
    with output_file(data_dir).open("ab") as output:
        return subprocess.Popen(command, stdout=output, stderr=output, env=environment)


def output_file(data_dir: Path) -> Path:
    """What the server writes to stdout and stderr."""
    return data_dir.parent / f"{data_dir.name}.output"


def start(data_dir: Path, *flags: str, afresh: bool = False, by: Sequence[str] = ()) -> RunningServer:
    """Starts the program and waits until it says that it is ready."""
    began = time.monotonic()
    process = launch(data_dir, *flags, afresh=afresh, by=by)
    announced = data_dir / "endpoints.json"
    while True:
        endpoints = _announced_by(process.pid, announced)
        if endpoints and endpoints["http"] in output_file(data_dir).read_text(errors="replace"):
            return RunningServer(data_dir, process, endpoints, time.monotonic() - began)
        if process.poll() is not None or time.monotonic() - began > START_SECONDS:
            process.kill()
            told = output_file(data_dir).read_text()[-2000:]
            raise AssertionError(f"the server did not start (exit code {process.wait()}): {told}")
        pause()


def _announced_by(pid: int, file: Path) -> dict[str, Any] | None:
    try:
        endpoints = json.loads(file.read_text())
    except FileNotFoundError:
        return None
    return dict(endpoints) if endpoints["pid"] == pid else None


def pause() -> None:
    """Gives way for a moment; whoever calls looks at a condition, and has a deadline."""
    signal.sigtimedwait((), 0.01)


def run_cli(
    server: RunningServer, *arguments: str, timeout: float = 60, afresh: bool = False
) -> subprocess.CompletedProcess[str]:
    """The CLI against that server: a fork (`support.forking`), or afresh as a user starts it."""
    environment = {**os.environ, "JOBLEDGER_DATA_DIR": str(server.data_dir), "NO_COLOR": "1"}
    if not afresh:
        return forking.run(arguments, environment, timeout=timeout)
    command: Sequence[str] = [sys.executable, "-m", "jobledger.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False, env=environment)
