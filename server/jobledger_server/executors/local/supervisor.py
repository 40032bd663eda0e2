"""The life of one attempt, from its first process to the last word about it. Standard library and `joblog` alone.

Output goes to the log as it comes. The end comes by itself, or is brought about: SIGTERM to the group, the grace
period, SIGKILL to all descendants until none is left. Only then there is a word of how it ended (`record`).
"""

import contextlib
import os
import selectors
import time
from pathlib import Path
from typing import Any, NamedTuple

from jobledger_server.executors.local import capture
from jobledger_server.executors.local.capture import Capture
from jobledger_server.executors.local.control_dir import ControlDir
from jobledger_server.executors.local.feeder import Feeder
from jobledger_server.executors.local.guarded_files import UnreadableError, open_fifo, poke
from jobledger_server.executors.local.limits import Breach, LimitWatch
from jobledger_server.executors.local.process_tree import ProcessTree
from jobledger_server.executors.local.reports import NEVER, Reports, chunks
from jobledger_server.joblog.redaction import Secrets
from jobledger_server.joblog.writer import LogWriter, wall_clock

# How long what is dead may take to let go of its pipes, and what is killed to die.
DRAIN_SECONDS, KILL_SECONDS = 1.0, 30.0
KILL_INTERVAL, GROUP_INTERVAL, FIRST_LOOK, LOOK_INTERVAL = 0.02, 0.1, 0.05, 5.0
# How often it is looked whether the job has read what it was sent.
UNREAD_INTERVAL = 0.25
LOG_WAKE_INTERVAL, WAKE_RETRY_SECONDS = 0.05, 0.5
# When the server is told that it runs. Most short jobs have ended by then: their start and end are told as one.
FIRST_WAKE = 0.02
TROUBLE_SECONDS = 0.1


class Pipes(NamedTuple):
    """Our ends: what the process says; `children` turns readable when a child ends."""

    stdout: int
    stderr: int
    messages: int
    children: int


class Supervisor:
    """Watches over a process that runs."""

    def __init__(
        self,
        *,
        control: ControlDir,
        spec: dict[str, Any],
        pid: int,
        group: Path | None,
        pipes: Pipes,
        selector: selectors.BaseSelector,
        feeder: Feeder | None,
        log: LogWriter,
        secrets: Secrets,
    ) -> None:
        """Watch over what a shim has started, both in the control group `group`, if that is there.

        `secrets` are hidden in the job's messages; in its output, `log` does that.
        """
        self._control = control
        self._job_dir = Path(spec["job_dir"])
        self._name = f"{spec['job_id']} {spec['attempt']}\n".encode()
        self._tree = ProcessTree(pid, group)
        self._pipes = pipes
        self._feeder = feeder
        self._reports = Reports(
            pipes.messages,
            control=control,
            job_dir=self._job_dir,
            take_log_line=self._take_log_line,
            secrets=secrets,
        )
        self._selector = selector
        self._output = Capture(
            stdout=pipes.stdout, stderr=pipes.stderr, selector=selector, log=log, grown=self._log_grew
        )
        self._reason = "exited"
        self._limit_message = ""
        self._limits = LimitWatch(spec.get("limits", {}), self._job_dir, group)
        self._ended_at = 0
        timeout = spec["timeout_seconds"]
        self._grace = float(spec["grace_seconds"])
        self._times_out = NEVER if timeout is None else time.monotonic() + float(timeout)
        self._kill_from = NEVER
        self._give_up = NEVER
        self._drain_until = NEVER
        self._wake_due = time.monotonic() + FIRST_WAKE
        self._woke = self._wake_due - LOG_WAKE_INTERVAL
        self._wake: int | None = None
        # A job that ends before it is looked for the first time needs nothing by which it could be ended.
        self._look_due = 0.0 if feeder else time.monotonic() + FIRST_LOOK

    def run(self) -> dict[str, Any]:
        """Until nothing of the process is left. Returns what is to be said of its end (`Record.ended`)."""
        self._register()
        while not self._over():
            try:
                self._turn()
            except OSError:
                # No files just now, or something in the place of one of ours. It is no reason for us to end, and the
                # job with us: what is due stays due.
                time.sleep(TROUBLE_SECONDS)
        # The last words of the job, and all of it on disk.
        self._reports.read()
        self._output.close()
        self._reports.finish()
        # Whatever the job has put in its place: it must not keep us from the last word.
        with contextlib.suppress(OSError):
            (self._job_dir / "control").unlink()
        return self._last_word()

    def _turn(self) -> None:
        """Takes what is there, and does what is due."""
        try:
            for key, _ in self._selector.select(max(0.0, self._next_deadline() - time.monotonic())):
                key.data()
        finally:
            self._advance(time.monotonic())

    def _register(self) -> None:
        pipes = self._pipes
        self._selector.register(pipes.children, selectors.EVENT_READ, lambda: _drain(pipes.children))
        self._selector.register(pipes.messages, selectors.EVENT_READ, self._reports.read)
        self._output.watch()

    def _over(self) -> bool:
        """Everything is dead and its pipes are read; or it will not die."""
        now = time.monotonic()
        return now >= self._give_up or (self._tree.gone and (not self._output.open or now >= self._drain_until))

    def _next_deadline(self) -> float:
        now = time.monotonic()
        output = self._output
        deadlines = [self._give_up, self._drain_until, output.retry_due, output.show_due, self._wake_due]
        deadlines.append(self._reports.due)
        if self._tree.status is None and not self._ending:
            deadlines.append(self._times_out)
        if self._feeder and self._feeder.unread:
            deadlines.append(now + UNREAD_INTERVAL)
        if not self._tree.gone:
            deadlines.append(self._limits.due)
            deadlines.append(max(self._kill_from, now + KILL_INTERVAL))
            if self._tree.status is not None:
                # No signal tells when the rest of its group has ended.
                deadlines.append(now + GROUP_INTERVAL)
        return min(self._look_due, *deadlines)

    # --- the end ---

    @property
    def _ending(self) -> bool:
        return self._reason != "exited"

    def _advance(self, now: float) -> None:
        """Does whatever is due."""
        self._tree.reap()
        if self._tree.status is None:
            if now >= self._times_out:
                self._ask_to_end("timed_out", self._grace)
        elif not self._ended_at:
            self._leader_ended(now)
        if not self._tree.gone and now >= self._kill_from:
            self._give_up = min(self._give_up, now + KILL_SECONDS)
            self._tree.kill()
        elif not self._tree.gone and self._ended_at and not self._tree.group_lives():
            self._kill_from = now
        elif self._tree.gone:
            patience = DRAIN_SECONDS if self._output.retry_due == NEVER else capture.PATIENCE
            self._give_up, self._drain_until = NEVER, min(self._drain_until, now + patience)
        # After what ends it: that must not fail for want of what these need.
        if not self._tree.gone and now >= self._limits.due:
            self._hold_to(self._limits.look(now))
        if now >= self._look_due:
            self._look()
        if self._feeder and self._feeder.count_read():
            self._wake_due = now
        self._tell(now)

    def _leader_ended(self, now: float) -> None:
        if not self._ending:
            self._kill_from = now
            cause = self._limits.cause_of(self._tree.status)
            if cause:
                self._reason, self._limit_message = cause
        self._ended_at = wall_clock()
        if self._feeder:
            self._stop_feeding(self._feeder)

    def _hold_to(self, breach: Breach | None) -> None:
        """Memory is taken back at once: the machine may not have as much as a grace period would cost."""
        if breach:
            grace = None if breach.reason == "out_of_memory" else self._grace
            self._ask_to_end(breach.reason, grace, breach.message)

    def _ask_to_end(self, reason: str, grace: float | None, message: str = "") -> None:
        """The first signal, unless the process ended before it: then that end stands. No grace: it is SIGKILL."""
        now = time.monotonic()
        self._tree.reap()
        if self._tree.status is not None and not self._ending:
            return
        if not self._ending:
            self._reason, self._limit_message = reason, message
            if reason == "cancelled":
                self._tell_job()
            if grace is not None:
                self._tree.ask_to_end()
        self._kill_from = min(self._kill_from, now + (grace or 0.0))

    def _tell_job(self) -> None:
        """A file by which the job can learn that it was cancelled, before the signal."""
        with contextlib.suppress(OSError):
            os.close(os.open(self._job_dir / "cancelled", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))

    def _last_word(self) -> dict[str, Any]:
        status = self._tree.status
        code = None if status is None else os.waitstatus_to_exitcode(status)
        message = f"{self._limit_message} {self._output.trouble}".strip()
        if not self._tree.gone:
            self._reason = "unkillable"
            message = f"Something of it still runs {KILL_SECONDS:.0f} s after SIGKILL. {message}".rstrip()
        return {
            "reason": self._reason,
            "exit_code": code if code is not None and code >= 0 else None,
            "signal": -code if code is not None and code < 0 else None,
            "message": message,
            "ended_at": self._ended_at or wall_clock(),
            "log": self._output.totals()._asdict(),
            "ignored_messages": self._reports.ignored,
        }

    # --- what the server says, and what it is told ---

    def _log_grew(self) -> None:
        self._wake_due = min(self._wake_due, self._woke + LOG_WAKE_INTERVAL)

    def _take_log_line(self, line: bytes) -> None:
        if not self._output.take_line(line):
            self._reports.ignore()

    def _woken(self, wake: int) -> None:
        _drain(wake)
        self._look()

    def _listen(self) -> None:
        """Lets itself be woken from now on. Where that can't be had just now, it may be at the next look."""
        with contextlib.suppress(OSError):
            self._wake = wake = open_fifo(self._control.wake)
            self._selector.register(wake, selectors.EVENT_READ, lambda: self._woken(wake))

    def _look(self) -> None:
        """Sees what the server wants. Where its directory is gone nobody could ever end the job: then it ends now."""
        self._look_due = 0.0
        if self._wake is None:
            # Before the look, so that what comes after it wakes us.
            self._listen()
        try:
            request = self._control.cancel_request() if self._control.path.exists() else self._grace
        except UnreadableError:
            # Nobody but the job or its user could have put it there. So that it can be ended at all, it is now.
            request = self._grace
        if request is not None:
            self._ask_to_end("cancelled", request)
        if self._feeder and self._tree.status is None:
            self._feed()
        self._look_due = time.monotonic() + (WAKE_RETRY_SECONDS if self._wake is None else LOOK_INTERVAL)

    def _feed(self) -> None:
        feeder = self._feeder
        if feeder is None or feeder.descriptor is None:
            return
        descriptor = feeder.descriptor
        feeder.write()
        registered = descriptor in self._selector.get_map()
        if registered and not feeder.wants_write:
            self._selector.unregister(descriptor)
        elif not registered and feeder.wants_write:
            self._selector.register(descriptor, selectors.EVENT_WRITE, self._feed)

    def _stop_feeding(self, feeder: Feeder) -> None:
        if feeder.descriptor is not None and feeder.descriptor in self._selector.get_map():
            self._selector.unregister(feeder.descriptor)
        feeder.close()

    def _tell(self, now: float) -> None:
        """Tells the server of the job's reports and of the log, not more often than it can use."""
        self._output.retry(now)
        self._output.show(now)
        if now >= self._reports.due:
            self._reports.write(now)
            self._wake_due = now
        if now >= self._wake_due:
            self._wake_due, self._woke = NEVER, now
            poke(self._control.server_wake, self._name)


def _drain(descriptor: int) -> None:
    for _ in chunks(descriptor):
        pass
