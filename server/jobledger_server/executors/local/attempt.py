"""What a server knows of one attempt. All that touches files here blocks, and is meant for a thread."""

import asyncio
import base64
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from jobledger_server.core.ports import (
    InputClosedError,
    Launch,
    NewerAttemptError,
    Outcome,
    ProgressReport,
    Running,
)
from jobledger_server.executors.local import cgroup, core_dumps
from jobledger_server.executors.local.child import PASSING
from jobledger_server.executors.local.control_dir import PROTOCOL, ControlDir
from jobledger_server.executors.local.followups import FollowUps
from jobledger_server.executors.local.guarded_files import UnreadableError, poke, read_bytes, write_json
from jobledger_server.executors.local.isolation import NO_ISOLATION, Isolation
from jobledger_server.executors.local.remains import Traces, wake_stopped
from jobledger_server.executors.local.reports import NEVER
from jobledger_server.executors.local.statements import (
    Launched,
    read_declared,
    read_launched,
    read_outcome,
    read_progress,
    read_protocol,
)
from jobledger_server.executors.local.supervisor import KILL_SECONDS
from jobledger_server.joblog.segments import log_extent

# How often a shim must be seen to be late, a second apart: they may all have been held up, and this server with them.
LATE_LOOKS = 10


class View(NamedTuple):
    """An attempt at one moment.

    Attributes:
        outcome: how it ended, if it has.
        running: its process, once that has started; `shim`: that of its shim.
        alive: its shim lives, or something that a shim left behind when it was killed.
        begun: its shim began to start it, so that it must not be started again.
        written: what to start is written down; not looked at where it has begun.
        progressed: it has ended, and has said how far it was.
    """

    outcome: Outcome | None
    running: Running | None
    shim: int | None
    alive: bool
    begun: bool
    written: bool
    progressed: bool


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
    """

    def __init__(self, *, job_id: str, number: int, control_root: Path) -> None:
        self.job_id = job_id
        self.number = number
        self.control = ControlDir(control_root / f"{job_id}.{number}")
        self.changed = asyncio.Event()
        self.starting = asyncio.Lock()
        self.writing = asyncio.Lock()
        self.follower: asyncio.Task[None] | None = None
        self._follow_ups = FollowUps(self.control)
        self._spec: Launched | None = None
        self._traces: Traces | None = None
        # By the monotonic clock: when its shim should have brought about the end, however unwilling the job.
        self._must_end = NEVER
        self._looked_after = False
        self._late_looks = 0
        self._seen_log: tuple[int, int] | None = None
        self._seen_progress: tuple[int, int] | None = None
        self._seen_declared: tuple[int, int] | None = None
        self._stamp: tuple[object, ...] = ()

    @property
    def queued(self) -> int:
        """Follow-ups that the process has not taken yet, at the last look."""
        return self._follow_ups.waiting

    # --- reading ---

    def refuse_newer(self) -> None:
        """Raises NewerAttemptError where the attempt was written down by a later protocol than ours."""
        protocol = read_protocol(self.control)
        if protocol is not None and protocol > PROTOCOL:
            raise NewerAttemptError(
                f"{self.job_id}, attempt {self.number}, was started by a newer Jobledger: it speaks control protocol "
                f"{protocol}, this version up to {PROTOCOL}. Run the newer version, at least until the job has ended"
            )

    def view(self) -> View:
        """The attempt as its control directory tells it."""
        # The lock first: if it is free by now, whatever its holder wrote is there.
        alive = self.control.lock_is_held()
        started = self.control.read_started()
        outcome = None if alive else read_outcome(self.control)
        running = Running(pid=started["pid"], started_at=started["started_at"]) if started else None
        shim = started["shim"] if started else None
        if started and alive and self._traces is None:
            self._traces = Traces(self.control, started, cgroup.recorded(self.control))
        progressed = outcome is not None and _changed_at(self.control.progress) is not None
        written = started is not None or self.control.spec.exists()
        return View(outcome, running, shim, alive, started is not None, written, progressed)

    def news(self) -> News:
        """The view, and what is new since the last call."""
        view = self.view()
        if not view.begun:
            return News(view, None, (), log_grew=False)
        if view.outcome:
            # It says the rest, and its end wakes who waits for the log.
            return News(view, self._new_progress(), (), log_grew=False)
        self._expect_end(view)
        log = self._log_extent()
        grew, self._seen_log = log != self._seen_log, log
        self._follow_ups.look()
        return News(view, self._new_progress(), self._newly_declared(), log_grew=grew)

    def look_anew(self) -> None:
        """Takes nothing for seen: everything is news again."""
        self._stamp = ()
        self._seen_log = self._seen_progress = self._seen_declared = None

    def traces(self) -> Traces:
        """What its processes are known by: as it was seen to run, since what it has left may have been removed."""
        return self._traces or Traces.read(self.control)

    def overdue(self) -> bool:
        """Whether its shim should have brought about its end by now."""
        return self._late_looks >= LATE_LOOKS

    def give_up(self) -> None:
        """Notes that its shim is not waited for any more.

        Raises:
            OSError: there is no room. Perhaps that is all that the shim waits for.
        """
        try:
            write_json(self.control.overdue, {})
        except OSError as error:
            if error.errno in PASSING:
                raise

    def look_after(self) -> bool:
        """Has its shim go on where somebody has stopped it. Returns whether there is something new to see, as below.

        Not at the first look: who is to be woken is hard to find just when the shim has ended, as most have by now.
        """
        if self._looked_after:
            wake_stopped(self.traces())
        self._looked_after = True
        self._late_looks += time.monotonic() > self._must_end
        return self.has_changed() or self.overdue()

    def has_changed(self) -> bool:
        """Whether something that the shim does shows since the last call."""
        stamp = (
            self.control.lock_is_held(),
            _changed_at(self.control.path),
            _changed_at(self.control.input_ack),
            self._log_extent(),
        )
        changed, self._stamp = stamp != self._stamp, stamp
        return changed

    def complaint(self) -> str:
        """The last thing that the shim complained of, or that it said nothing."""
        try:
            lines = read_bytes(self.control.shim_errors).decode("utf-8", "replace").strip().splitlines()
        except (FileNotFoundError, UnreadableError):
            lines = []
        return lines[-1] if lines else "The job's supervisor ended before it could start anything"

    def _new_progress(self) -> ProgressReport | None:
        changed_at = _changed_at(self.control.progress)
        if changed_at == self._seen_progress:
            return None
        self._seen_progress = changed_at
        return read_progress(self.control)

    def _newly_declared(self) -> Sequence[str]:
        changed_at = _changed_at(self.control.artifacts)
        if changed_at == self._seen_declared:
            return ()
        self._seen_declared = changed_at
        return read_declared(self.control)

    def _launched(self) -> Launched:
        """What was started, as it was at the first look."""
        spec = self._spec or read_launched(self.control)
        if spec.log_dir:
            self._spec = spec
        return spec

    def _log_extent(self) -> tuple[int, int]:
        log_dir = self._launched().log_dir
        return log_extent(log_dir) if log_dir else (0, 0)

    def _expect_end(self, view: View) -> None:
        """Settles when it must have ended. Counted from when this server saw it first: early it must never be."""
        spec = self._launched()
        if self._must_end == NEVER and spec.timeout_seconds is not None:
            self._end_within(spec.timeout_seconds + spec.grace_seconds)
        if view.alive and self.traces().forsaken():
            # The nursery ends the rest, at once.
            self._end_within(0.0)

    def _end_within(self, seconds: float) -> None:
        self._must_end = min(self._must_end, time.monotonic() + seconds + KILL_SECONDS)

    # --- writing ---

    def prepare(self, launch: Launch, isolation: Isolation = NO_ISOLATION, *, known: bool = False) -> bool:
        """Writes down what to start, durably.

        Returns False, and does nothing, where something of the attempt is there which the caller does not know of.
        """
        try:
            self.control.path.mkdir(mode=0o700, parents=True)
        except FileExistsError:
            if not known:
                return False
            self.control.shim_errors.unlink(missing_ok=True)
        write_json(self.control.spec, _spec(launch, isolation))
        return True

    def request_cancel(self, grace_seconds: float) -> None:
        """Asks for the end, durably. Nothing happens where there is nothing to end."""
        # That there is a word of its end says nothing: the job itself may have written it.
        if not self.control.path.exists():
            return
        try:
            asked = self.control.cancel_request()
        except UnreadableError:
            asked = None
        grace = grace_seconds if asked is None else min(asked, grace_seconds)
        write_json(self.control.cancel, {"grace_seconds": grace})
        self._end_within(grace)
        poke(self.control.wake, b"\n")

    def remove(self) -> None:
        """Removes its control directory: file by file, unless a job has put something else there.

        Raises:
            OSError: it can't be removed; FileNotFoundError: it is not there.
        """
        with os.scandir(self.control.path) as entries:
            names = [entry.path for entry in entries]
        try:
            for name in names:
                os.unlink(name)  # noqa: PTH108 - done for every job
            self.control.path.rmdir()
        except OSError:
            shutil.rmtree(self.control.path)

    def _takes_input(self) -> bool:
        control = self.control
        if control.read_end() or control.exit.exists() or control.input_closed.exists():
            return False
        return self._launched().stdin_open

    def queue_input(self, data: bytes, *, close: bool) -> int:
        """Queues a follow-up, durably. Returns how many wait. Not for two threads at once.

        Raises:
            InputClosedError: the attempt takes none, or no more.
            InputFullError: it is too much beside what waits.
            OSError: it can't be stored.
        """
        if not self._takes_input():
            raise InputClosedError
        try:
            self._follow_ups.add(data, close=close)
        except UnreadableError as error:
            raise InputClosedError from error
        if close:
            self.control.close_input()
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
        "core_bytes": core_dumps.limit_of_job(has_secrets=bool(launch.secret_env)),
        "isolation": isolation._asdict(),
    }


def _changed_at(path: Path) -> tuple[int, int] | None:
    try:
        stat = os.stat(path)  # noqa: PTH116 - called for every running job every second
    except FileNotFoundError:
        return None
    return stat.st_mtime_ns, stat.st_ino
