"""Real jobs on a real executor, and what it tells."""

import asyncio
import contextlib
import json
import os
import secrets
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jobledger_server.core.clock import SystemClock
from jobledger_server.core.ports import Launch, Outcome, ProgressReport, Running
from jobledger_server.executors.local.executor import LocalExecutor
from jobledger_server.executors.local.isolation import NONE
from jobledger_server.joblog.reader import LogQuery, LogReader
from support.isolation import isolation_for

PATIENCE = 20.0


async def eventually(holds: Callable[[], object]) -> None:
    """Waits until a condition holds; fails where it does not within 20 s."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, "it did not come about in time"
        await asyncio.sleep(0.01)


@dataclass
class Recorder:
    """An `ExecutorListener` that remembers what it was told."""

    ended: dict[tuple[str, int], list[Outcome]] = field(default_factory=dict)
    reports: list[ProgressReport] = field(default_factory=list)
    declared: list[Sequence[str]] = field(default_factory=list)
    grown: list[str] = field(default_factory=list)

    def attempt_ended(self, job_id: str, attempt: int, outcome: Outcome) -> None:
        self.ended.setdefault((job_id, attempt), []).append(outcome)

    def job_progressed(self, job_id: str, attempt: int, report: ProgressReport) -> None:
        self.reports.append(report)

    def artifacts_declared(self, job_id: str, attempt: int, paths: Sequence[str]) -> None:
        self.declared.append(paths)

    def log_grew(self, job_id: str) -> None:
        self.grown.append(job_id)


@dataclass
class Lab:
    """A data directory with an executor on it, and jobs to run there, at this level of isolation."""

    root: Path
    level: str = NONE
    recorder: Recorder = field(default_factory=Recorder)

    def executor(self) -> LocalExecutor:
        data_dir = self.root / "data"
        isolation = isolation_for(self.level, data_dir)
        return LocalExecutor(data_dir=data_dir, listener=self.recorder, clock=SystemClock(), isolation=isolation)

    def launch(self, *argv: str, **changes: object) -> Launch:
        """A job of its own with this command."""
        job_id = str(changes.pop("job_id", f"job_{secrets.token_hex(8)}"))
        attempt = int(str(changes.pop("attempt", 1)))
        job_dir = self.root / "data" / "jobs" / job_id
        job_dir.mkdir(parents=True, exist_ok=True)
        if self.level != NONE:
            (job_dir / "temp").mkdir(exist_ok=True)
        env = {
            "PATH": os.environ["PATH"],
            "JOBLEDGER_JOB_ID": job_id,
            "JOBLEDGER_ATTEMPT": str(attempt),
            "JOBLEDGER_JOB_DIR": str(job_dir),
            "JOBLEDGER_CONTROL": str(job_dir / "control"),
        }
        settled = {
            "working_dir": job_dir,
            "job_dir": job_dir,
            "log_dir": job_dir / "log",
            "grace_seconds": 5.0,
        } | changes
        return Launch(job_id=job_id, attempt=attempt, argv=argv, env=env, **settled)  # type: ignore[arg-type]

    def python(self, code: str, **changes: object) -> Launch:
        """A job that runs Python code."""
        return self.launch(sys.executable, "-S", "-c", code, **changes)

    def shell(self, script: str, **changes: object) -> Launch:
        """A job that runs a shell script."""
        return self.launch("/bin/sh", "-c", script, **changes)

    async def outcome(self, launch: Launch) -> Outcome:
        """How an attempt that was started ended."""
        key = (launch.job_id, launch.attempt)
        await eventually(lambda: key in self.recorder.ended)
        return self.recorder.ended[key][0]

    async def run(self, executor: LocalExecutor, launch: Launch) -> Outcome:
        """Starts an attempt and waits for its end."""
        started = await executor.start(launch)
        return await self.outcome(launch) if isinstance(started, Running) else started

    def clear(self) -> None:
        """Ends what a test left running: with the shim goes the job."""
        for started in self.root.glob("data/control/*/started.json"):
            if not (started.parent / "exit.json").exists():
                with contextlib.suppress(ProcessLookupError, ValueError):
                    os.kill(json.loads(started.read_text())["shim"], signal.SIGKILL)

    @staticmethod
    def content(launch: Launch) -> bytes:
        """What it wrote to stdout and stderr."""
        return LogReader(launch.log_dir, 1).read_content(0, 1 << 30)

    @staticmethod
    def messages(launch: Launch) -> Sequence[str]:
        """The messages of its log."""
        return [entry.message for entry in LogReader(launch.log_dir, 1).page(LogQuery()).entries]

    async def says(self, launch: Launch, text: str) -> None:
        """Waits until its output holds a text."""
        await eventually(lambda: text.encode() in self.content(launch))


def runs(pid: int) -> bool:
    """Whether a process runs: a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False
