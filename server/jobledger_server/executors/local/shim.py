"""Entry point of the shim: the process that starts an attempt and sees it to its end.

`main(control_dir)` wants a process of its own that leads a session. Nothing here runs in the server.
"""

import base64
import fcntl
import os
import selectors
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jobledger_server.executors.local import bwrap, cgroup
from jobledger_server.executors.local.child import PASSING, Command, CommandError, become_command, start_child
from jobledger_server.executors.local.control_dir import PROTOCOL, ControlDir
from jobledger_server.executors.local.feeder import Feeder
from jobledger_server.executors.local.guarded_files import open_fifo, read_json, write_json
from jobledger_server.executors.local.isolation import BWRAP, isolation_of, private_temp
from jobledger_server.executors.local.limits import core_limit, resource_limits
from jobledger_server.executors.local.process_tree import (
    PR_SET_CHILD_SUBREAPER,
    boot_id,
    children_pipe,
    prctl,
    process_stat,
)
from jobledger_server.executors.local.record import Record
from jobledger_server.executors.local.secret_names import withheld
from jobledger_server.executors.local.supervisor import Pipes, Supervisor
from jobledger_server.joblog.redaction import RedactingLogWriter, Secrets
from jobledger_server.joblog.writer import LogWriter, wall_clock

PIPE_BYTES = 256 * 1024
RETRY_SECONDS = 0.5


class Prepared(NamedTuple):
    """What supervision takes: our ends, and `theirs`, which are the command's stdin, stdout and stderr."""

    pipes: Pipes
    selector: selectors.BaseSelector
    feeder: Feeder | None
    theirs: tuple[int, int, int]


# The server's process group may be signalled as a whole; that is not meant for its jobs.
NOT_FOR_US = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def main(
    path: str, lock: int | None = None, secret_env: Mapping[str, str] | None = None, group: Path | None = None
) -> None:
    """Runs the attempt whose control directory is `path`, if it was never started before.

    Args:
        path: absolute.
        lock: descriptor by which its lock is to be taken, where somebody else is to keep that beside us.
        secret_env: variables that go to the command alone: not to disk, nor into its log.
        group: the control group that this process was born in, where it is the attempt's own. Our parent removes it.
    """
    nursery = os.getppid()
    os.chdir("/")
    for number in NOT_FOR_US:
        signal.signal(number, signal.SIG_IGN)
    control = ControlDir(Path(path))
    # Of two shims the later one must not hold the lock once the other has ended: the attempt would seem to live.
    if (
        control.take_lock(lock, unless=control.started.exists) is None
        or control.exit.exists()
        or control.started.exists()
    ):
        return
    spec = read_json(control.spec)
    if spec is None or spec["protocol"] != PROTOCOL:
        sys.exit(f"{control.spec} is not of version {PROTOCOL}: server and supervisor differ; restart the server")
    secret_env = secret_env or {}
    _run(control, {**spec, "env": {**spec["env"], **secret_env}}, Secrets(secret_env.values()), group)
    if group and os.getppid() != nursery and cgroup.leave(group):
        cgroup.remove(group)


def _run(control: ControlDir, spec: dict[str, Any], secrets: Secrets, group: Path | None) -> None:
    try:
        # From here on the attempt counts as started, whatever happens.
        record = Record(control.started, group)
    except OSError as error:
        sys.exit(f"The job can't be started just now: {error.strerror}")
    # Before there is a child: its end must be heard, and its orphans must become ours.
    children = children_pipe()
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    if not record.names_group:
        # What nobody would know of later does not count.
        group = None
    _leave_word(control, record, _supervise(control, spec, record, children, secrets, group))


def _supervise(
    control: ControlDir, spec: dict[str, Any], record: Record, children: int, secrets: Secrets, group: Path | None
) -> dict[str, Any]:
    """Starts the attempt and sees it to its end. Returns what there is to say of that."""
    log = None
    try:
        log = _open_log(Path(spec["log_dir"]), spec["log_bytes"], secrets)
        prepared = _prepare(control, spec, children)
        boot, started_at = boot_id(), wall_clock()
        pid = _start(spec, prepared)
    except CommandError as error:
        return _not_started(secrets.hide_in_text(str(error)), log)
    except OSError as error:
        if error.errno in PASSING:
            record.withdraw()
            sys.exit(f"The job can't be started just now: {error.strerror}")
        return _not_started(f"The job can't be prepared: {error}", log)
    # From here on it runs: nothing takes the claim back, or it could be started a second time.
    _announce(record, pid, started_at, boot)
    word = Supervisor(
        control=control,
        spec=spec,
        pid=pid,
        group=group,
        pipes=prepared.pipes,
        selector=prepared.selector,
        feeder=prepared.feeder,
        log=log,
        secrets=secrets,
    ).run()
    named = withheld(Path(spec["job_dir"], "output"), secrets)
    return {"started_at": started_at, **word, **({"withheld": named} if named else {})}


def _open_log(log_dir: Path, cap_bytes: int, secrets: Secrets) -> LogWriter:
    """A job without secrets pays nothing for those of others."""
    return RedactingLogWriter(log_dir, cap_bytes, secrets) if secrets else LogWriter(log_dir, cap_bytes)


def _not_started(message: str, log: LogWriter | None) -> dict[str, Any]:
    ending: dict[str, Any] = {"reason": "spawn_failed", "message": message, "ended_at": wall_clock()}
    return ending | ({"log": log.totals()._asdict()} if log else {})


def _prepare(control: ControlDir, spec: dict[str, Any], children: int) -> Prepared:
    """Opens all that supervision takes.

    Raises:
        OSError: it can't be prepared, or there are no resources.
    """
    selector = selectors.DefaultSelector()
    job_dir = Path(spec["job_dir"])
    (job_dir / "cancelled").unlink(missing_ok=True)
    messages = open_fifo(job_dir / "control")
    stdin, feeder = _stdin(control, spec)
    stdout, stdout_end = _output_pipe()
    stderr, stderr_end = _output_pipe()
    pipes = Pipes(stdout, stderr, messages, children)
    return Prepared(pipes, selector, feeder, (stdin, stdout_end, stderr_end))


def _start(spec: dict[str, Any], prepared: Prepared) -> int:
    """Starts the command. Returns its pid.

    Raises:
        CommandError: it can't be started.
        OSError: there are no resources; nothing runs.
    """
    if not spec["argv"]:
        raise CommandError("The command is empty: name a program to run")
    isolation = isolation_of(spec)
    stdin, stdout, stderr = prepared.theirs
    command = Command(
        argv=spec["argv"],
        env={**spec["env"], **private_temp(isolation, Path(spec["job_dir"]))},
        working_dir=spec["working_dir"],
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        limits=[*resource_limits(spec.get("limits", {})), core_limit(*spec.get("core_bytes", (0, 0)))],
        isolation=isolation,
        job_dir=spec["job_dir"],
    )
    try:
        return start_child(command, bwrap.become_keeper if isolation.level == BWRAP else become_command)
    finally:
        for descriptor in prepared.theirs:
            os.close(descriptor)


def _announce(record: Record, pid: int, started_at: int, boot: str) -> None:
    """Writes down that it runs. Takes no file but one to see when it started: 0 where that can't be told."""
    stat = process_stat(pid)
    identity = {"pid": pid, "pid_started": stat.started if stat else 0, "boot_id": boot}
    record.started({"shim": os.getpid(), "started_at": started_at, **identity})


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


def _leave_word(control: ControlDir, record: Record, ending: dict[str, Any]) -> None:
    """Writes how it ended. Without it the job would count as lost, so a full disk is waited for.

    The server is told by our own end, and by the nursery once the lock is free: before that it would not believe it.
    """
    word = {"protocol": PROTOCOL, "started_at": 0, **ending}
    while control.path.exists():
        try:
            if not record.ended(word):
                write_json(control.exit, word)
            break
        except OSError as error:
            control.complain(f"The end of the job can't be written, trying again: {error}")
        time.sleep(RETRY_SECONDS)
