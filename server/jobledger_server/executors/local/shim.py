"""Entry point of the shim: the process that starts an attempt and sees it to its end.

`main(control_dir)` wants a process of its own that leads a session. Nothing here runs in the server.
"""

import base64
import contextlib
import fcntl
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from jobledger_server.executors.local import bwrap, cgroup
from jobledger_server.executors.local.child import PASSING, Command, CommandError, become_command, start_child
from jobledger_server.executors.local.control_dir import (
    PROTOCOL,
    ControlDir,
    open_fifo,
    poke,
    read_json,
    sync_directory,
    write_json,
)
from jobledger_server.executors.local.feeder import Feeder
from jobledger_server.executors.local.isolation import BWRAP, isolation_of, private_temp
from jobledger_server.executors.local.limits import resource_limits
from jobledger_server.executors.local.process_tree import PR_SET_CHILD_SUBREAPER, boot_id, prctl, process_stat
from jobledger_server.executors.local.supervisor import Pipes, Supervisor, children_pipe
from jobledger_server.joblog.writer import LogWriter, wall_clock

PIPE_BYTES = 256 * 1024
RETRY_SECONDS = 0.5
STARTED_BYTES = 512
# The server's process group may be signalled as a whole; that is not meant for its jobs.
NOT_FOR_US = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def main(path: str, lock: int | None = None) -> None:
    """Runs the attempt whose control directory is `path`, if it was never started before.

    Args:
        path: absolute.
        lock: descriptor by which its lock is to be taken, where somebody else is to keep that beside us.
    """
    os.chdir("/")
    for number in NOT_FOR_US:
        signal.signal(number, signal.SIG_IGN)
    control = ControlDir(Path(path))
    if control.take_lock(lock) is None or control.exit.exists() or control.started.exists():
        return
    spec = read_json(control.spec)
    if spec is None or spec["protocol"] != PROTOCOL:
        sys.exit(f"{control.spec} is not of version {PROTOCOL}: server and supervisor differ; restart the server")
    _run(control, spec)


def _run(control: ControlDir, spec: dict[str, Any]) -> None:
    try:
        _claim(control)
    except OSError as error:
        sys.exit(f"The job can't be started just now: {error.strerror}")
    # Before there is a child: its end must be heard, and its orphans must become ours.
    children = children_pipe()
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    group = cgroup.create(control.path.name, control.cgroup)
    try:
        ending = _supervise(control, spec, children)
    finally:
        # Before the last word, after which nobody would look for it any more.
        if group:
            cgroup.remove(group)
    _leave_word(control, spec, ending)


def _supervise(control: ControlDir, spec: dict[str, Any], children: int) -> dict[str, Any]:
    """Starts the attempt and sees it to its end. Returns what there is to say of that."""
    log = None
    try:
        log = LogWriter(Path(spec["log_dir"]), spec["log_bytes"])
        supervisor = _start(control, spec, log, children)
    except CommandError as error:
        return _not_started(str(error), log)
    except OSError as error:
        if error.errno in PASSING:
            control.started.unlink()
            sys.exit(f"The job can't be started just now: {error.strerror}")
        return _not_started(f"The job can't be prepared: {error}", log)
    return supervisor.run()


def _claim(control: ControlDir) -> None:
    """From here on the attempt counts as started, whatever happens.

    Room is taken now for what is to be said of it: once the process runs, a full disk must not keep us from saying it.

    Raises:
        OSError: there is no room, and nothing was started.
    """
    descriptor = os.open(control.started, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, b" " * STARTED_BYTES)
        os.fsync(descriptor)
    except OSError:
        control.started.unlink()
        raise
    finally:
        os.close(descriptor)
    sync_directory(control.path)


def _not_started(message: str, log: LogWriter | None) -> dict[str, Any]:
    ending: dict[str, Any] = {"reason": "spawn_failed", "message": message, "ended_at": wall_clock()}
    return ending | ({"log": log.totals()._asdict()} if log else {})


def _start(control: ControlDir, spec: dict[str, Any], log: LogWriter, children: int) -> Supervisor:
    """Starts the command, and makes it known.

    Raises:
        CommandError: it can't be started.
        OSError: it can't be prepared, or there are no resources; nothing runs.
    """
    if not spec["argv"]:
        raise CommandError("The command is empty: name a program to run")
    wake = open_fifo(control.wake)
    job_dir = Path(spec["job_dir"])
    (job_dir / "cancelled").unlink(missing_ok=True)
    messages = open_fifo(job_dir / "control")
    stdin, feeder = _stdin(control, spec)
    stdout, stdout_end = _output_pipe()
    stderr, stderr_end = _output_pipe()
    started_at = wall_clock()
    isolation = isolation_of(spec)
    command = Command(
        argv=spec["argv"],
        env={**spec["env"], **private_temp(isolation, job_dir)},
        working_dir=spec["working_dir"],
        stdin=stdin,
        stdout=stdout_end,
        stderr=stderr_end,
        limits=resource_limits(spec.get("limits", {})),
        cgroup=cgroup.recorded(control.cgroup),
        isolation=isolation,
        job_dir=spec["job_dir"],
    )
    try:
        pid = start_child(command, bwrap.become_keeper if isolation.level == BWRAP else become_command)
    finally:
        for descriptor in (stdin, stdout_end, stderr_end):
            os.close(descriptor)
    _announce(control, spec, pid, started_at)
    pipes = Pipes(stdout, stderr, messages, wake, children)
    return Supervisor(control=control, spec=spec, pid=pid, pipes=pipes, feeder=feeder, log=log)


def _announce(control: ControlDir, spec: dict[str, Any], pid: int, started_at: int) -> None:
    stat = process_stat(pid)
    identity = {"pid": pid, "pid_started": stat.started if stat else 0, "boot_id": boot_id()}
    said = json.dumps({"shim": os.getpid(), "started_at": started_at, **identity}).encode()
    descriptor = os.open(control.started, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.pwrite(descriptor, said, 0)
    finally:
        os.close(descriptor)
    _wake_server(control, spec)


def _stdin(control: ControlDir, spec: dict[str, Any]) -> tuple[int, Feeder | None]:
    """The read end for the child, and who feeds it."""
    text = base64.b64decode(spec["stdin"])
    if not text and not spec["stdin_open"]:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC), None
    read_end, write_end = os.pipe()
    return read_end, Feeder(control, write_end, text, keep_open=spec["stdin_open"])


def _output_pipe() -> tuple[int, int]:
    """Our end, which never blocks, and the child's. Roomier than usual, so that a burst costs fewer switches."""
    read_end, write_end = os.pipe()
    os.set_blocking(read_end, False)
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        try:
            fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        except PermissionError:
            # The user's share of pipe memory is used up: the usual size does.
            return read_end, write_end
    return read_end, write_end


def _leave_word(control: ControlDir, spec: dict[str, Any], ending: dict[str, Any]) -> None:
    """Writes how it ended. Without it the job would count as lost, so a full disk is waited for."""
    started_at = (control.read_started() or {}).get("started_at", 0)
    while control.path.exists():
        try:
            write_json(control.exit, {"protocol": PROTOCOL, "started_at": started_at, **ending})
            break
        except OSError as error:
            # The complaint goes to the same disk.
            with contextlib.suppress(OSError):
                sys.stderr.write(f"{control.exit} can't be written, trying again: {error}\n")
                sys.stderr.flush()
        time.sleep(RETRY_SECONDS)
    _wake_server(control, spec)


def _wake_server(control: ControlDir, spec: dict[str, Any]) -> None:
    poke(control.server_wake, f"{spec['job_id']} {spec['attempt']}\n".encode())
