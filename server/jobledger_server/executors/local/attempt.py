"""What a server knows of one attempt. All that touches files here blocks, and is meant for a thread."""

import asyncio
import base64
import os
import threading
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from jobledger_server.core.ports import (
    EndReason,
    InputClosedError,
    Launch,
    LogSummary,
    NewerAttemptError,
    Outcome,
    ProgressReport,
    Running,
)
from jobledger_server.executors.local.control_dir import PROTOCOL, ControlDir, poke, read_json, write_json
from jobledger_server.executors.local.isolation import NO_ISOLATION, Isolation, isolation_of
from jobledger_server.joblog.segments import log_extent

PROGRESS_FIELDS = ("phase", "percent", "items_completed", "items_total", "eta_seconds")


class View(NamedTuple):
    """An attempt at one moment.

    Attributes:
        outcome: how it ended, if it has.
        running: its process, once that has started; `shim`: that of its shim.
        alive: its shim lives, or something that a shim left behind when it was killed.
        begun: its shim began to start it, so that it must not be started again.
    """

    outcome: Outcome | None
    running: Running | None
    shim: int | None
    alive: bool
    begun: bool


class News(NamedTuple):
    """What came since the last look, and the view. `declared` is all that was declared so far; empty: nothing new."""

    view: View
    progress: ProgressReport | None
    declared: Sequence[str]
    log_grew: bool


class Attempt:
    """An attempt that this server has to do with.

    Attributes:
        changed: set when there may be something new to see.
        starting: held while it is started or found; `writing`: while the server writes into its control directory.
        follower: tells the listener about it, while it runs.
        queued: follow-ups that the process has not taken yet, at the last look.
    """

    def __init__(self, *, job_id: str, number: int, control_root: Path) -> None:
        self.job_id = job_id
        self.number = number
        self.control = ControlDir(control_root / f"{job_id}.{number}")
        self.changed = asyncio.Event()
        self.starting = asyncio.Lock()
        self.writing = asyncio.Lock()
        self.follower: asyncio.Task[None] | None = None
        self.queued = 0
        # Two threads may come to the follow-ups: one that looks for news, one that queues another.
        self._input_lock = threading.Lock()
        self._sent: int | None = None
        self._log_dir: Path | None = None
        self._seen_log: tuple[int, int] | None = None
        self._seen_progress: tuple[int, int] | None = None
        self._seen_declared: tuple[int, int] | None = None
        self._stamp: tuple[object, ...] = ()

    # --- reading ---

    def refuse_newer(self) -> None:
        """Raises NewerAttemptError where the attempt was written down by a later protocol than ours."""
        protocol = (read_json(self.control.spec) or {}).get("protocol", PROTOCOL)
        if protocol > PROTOCOL:
            raise NewerAttemptError(
                f"{self.job_id}, attempt {self.number}, was started by a newer Jobledger: it speaks control protocol "
                f"{protocol}, this version up to {PROTOCOL}. Run the newer version, at least until the job has ended"
            )

    def view(self) -> View:
        """The attempt as its control directory tells it."""
        # The lock first: if it is free by now, whatever its holder wrote is there.
        alive = self.control.lock_is_held()
        word = read_json(self.control.exit)
        started = self.control.read_started()
        outcome = _outcome(word, self._declared(), self._level()) if word else None
        running = Running(pid=started["pid"], started_at=started["started_at"]) if started else None
        shim = started["shim"] if started else None
        return View(outcome, running, shim, alive, started is not None)

    def news(self) -> News:
        """The view, and what is new since the last call."""
        view = self.view()
        if not view.begun:
            return News(view, None, (), log_grew=False)
        log = log_extent(self._log())
        grew, self._seen_log = log != self._seen_log, log
        with self._input_lock:
            self._count_inputs()
        return News(view, self._new_progress(), self._newly_declared(), log_grew=grew)

    def look_anew(self) -> None:
        """Takes nothing for seen: everything is news again."""
        self._stamp = ()
        self._seen_log = self._seen_progress = self._seen_declared = None

    def has_changed(self) -> bool:
        """Whether something that the shim does shows since the last call."""
        stamp = (
            self.control.lock_is_held(),
            _changed_at(self.control.path),
            _changed_at(self.control.input_ack),
            log_extent(self._log()),
        )
        changed, self._stamp = stamp != self._stamp, stamp
        return changed

    def complaint(self) -> str:
        """The last thing that the shim complained of, or that it said nothing."""
        try:
            lines = self.control.shim_errors.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        except FileNotFoundError:
            lines = []
        return lines[-1] if lines else "The job's supervisor ended before it could start anything"

    def _new_progress(self) -> ProgressReport | None:
        changed_at = _changed_at(self.control.progress)
        if changed_at == self._seen_progress:
            return None
        self._seen_progress = changed_at
        report = read_json(self.control.progress)
        return ProgressReport(**{field: report.get(field) for field in PROGRESS_FIELDS}) if report else None

    def _newly_declared(self) -> Sequence[str]:
        changed_at = _changed_at(self.control.artifacts)
        if changed_at == self._seen_declared:
            return ()
        self._seen_declared = changed_at
        return self._declared()

    def _declared(self) -> Sequence[str]:
        return tuple((read_json(self.control.artifacts) or {"paths": ()})["paths"])

    def _level(self) -> str:
        return isolation_of(read_json(self.control.spec) or {}).level

    def _log(self) -> Path:
        if self._log_dir is None:
            spec = read_json(self.control.spec)
            if spec is None:
                raise FileNotFoundError(f"{self.control.spec} is gone")
            self._log_dir = Path(spec["log_dir"])
        return self._log_dir

    def _count_inputs(self) -> int:
        """How many there are. A follow-up that a crash cut short is cut off, so only with the lock held."""
        if self._sent is None:
            self._sent = self.control.repair_inputs()
        self.queued = self._sent - self.control.acknowledged()
        return self._sent

    # --- writing ---

    def prepare(self, launch: Launch, isolation: Isolation = NO_ISOLATION) -> None:
        """Writes down what to start, durably."""
        self.control.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.control.shim_errors.unlink(missing_ok=True)
        write_json(self.control.spec, _spec(launch, isolation))

    def request_cancel(self, grace_seconds: float) -> None:
        """Asks for the end, durably. Nothing happens where there is nothing to end."""
        if self.control.exit.exists() or not self.control.spec.exists():
            return
        asked = self.control.cancel_request()
        grace = grace_seconds if asked is None else min(asked, grace_seconds)
        write_json(self.control.cancel, {"grace_seconds": grace})
        poke(self.control.wake, b"\n")

    def _takes_input(self) -> bool:
        control = self.control
        if control.exit.exists() or control.input_closed.exists():
            return False
        return bool((read_json(control.spec) or {}).get("stdin_open"))

    def queue_input(self, data: bytes, *, close: bool) -> int:
        """Queues a follow-up, durably. Returns how many wait.

        Raises:
            InputClosedError: the attempt takes none, or no more.
        """
        with self._input_lock:
            if not self._takes_input():
                raise InputClosedError
            sent = self._count_inputs()
            self.control.append_input(data, close=close)
            if close:
                self.control.close_input()
            self._sent = sent + 1
            self._count_inputs()
        poke(self.control.wake, b"\n")
        return self.queued


def _spec(launch: Launch, isolation: Isolation) -> dict[str, Any]:
    return {
        "protocol": PROTOCOL,
        "job_id": launch.job_id,
        "attempt": launch.attempt,
        "argv": list(launch.argv),
        "env": dict(launch.env),
        "working_dir": str(launch.working_dir),
        "job_dir": str(launch.job_dir),
        "log_dir": str(launch.log_dir),
        "stdin": base64.b64encode(launch.stdin).decode("ascii"),
        "stdin_open": launch.stdin_open,
        "timeout_seconds": launch.timeout_seconds,
        "grace_seconds": launch.grace_seconds,
        "log_bytes": launch.log_bytes,
        "limits": {name: value for name, value in asdict(launch.limits).items() if value is not None},
        "isolation": isolation._asdict(),
    }


def _outcome(word: dict[str, Any], declared: Sequence[str], isolation: str) -> Outcome:
    return Outcome(
        reason=EndReason(word["reason"]),
        exit_code=word.get("exit_code"),
        signal=word.get("signal"),
        message=word["message"],
        started_at=word["started_at"],
        ended_at=word["ended_at"],
        log=LogSummary(**word.get("log", {})),
        declared=declared,
        ignored_messages=word.get("ignored_messages", 0),
        isolation=isolation,
    )


def _changed_at(path: Path) -> tuple[int, int] | None:
    try:
        stat = os.stat(path)  # noqa: PTH116 - called for every running job every second
    except FileNotFoundError:
        return None
    return stat.st_mtime_ns, stat.st_ino
