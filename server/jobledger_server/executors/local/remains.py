"""Whatever lives of an attempt, however little is left to know it by: found, woken, ended.

What a job may do to its supervisor or to the nursery (stop it, remove its files) must not keep the attempt from its
end. They are known by the lock that they hold open, also where that file is gone.
"""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from jobledger_server.executors.local import cgroup
from jobledger_server.executors.local.control_dir import ControlDir
from jobledger_server.executors.local.process_tree import (
    PROC,
    ProcessStat,
    boot_id,
    descendants,
    process_exists,
    process_stat,
    processes,
    send_signal,
)

STANDARD_ERROR = 2


class Traces(NamedTuple):
    """What the processes of an attempt are known by.

    Attributes:
        started: what its supervisor said, as in `started.json`; empty where that is not known.
        group: its control group, if it had one.
    """

    control: ControlDir
    started: dict[str, Any]
    group: Path | None

    @classmethod
    def read(cls, control: ControlDir) -> "Traces":
        """As far as the control directory tells them."""
        return cls(control, control.read_started() or {}, cgroup.recorded(control))

    def supervisor(self) -> ProcessStat | None:
        """The supervisor, if it is seen to live. It is older than the job, unlike any later process of its number."""
        stat = process_stat(self.started["shim"]) if self._can_tell() else None
        return stat if stat and stat.started <= self.started["pid_started"] and stat.state not in "ZX" else None

    def forsaken(self) -> bool:
        """Whether the supervisor is known to have ended. That it can't be seen just now is no proof."""
        if not self._can_tell() or self.supervisor():
            return False
        pid = self.started["shim"]
        return process_stat(pid) is not None or not process_exists(pid)

    def _can_tell(self) -> bool:
        return bool(self.started.get("pid_started")) and self.started["boot_id"] == boot_id()


class Holder(NamedTuple):
    """A process that holds an attempt's lock open: a supervisor, or else the nursery that keeps the lock beside it."""

    stat: ProcessStat
    supervises: bool


def wake_stopped(traces: Traces) -> None:
    """Has the supervisor go on, or, where that is gone, whoever is to end what it left, if a signal has stopped it."""
    supervisor = traces.supervisor()
    for stat in [supervisor] if supervisor else [holder.stat for holder in holders(traces.control)]:
        if stat.state == "T":
            send_signal(stat.pid, signal.SIGCONT)


def end_remains(traces: Traces) -> bool:
    """Kills whatever is found of the attempt. Returns whether something was: to be repeated until it is not.

    A supervisor comes last: as long as it lives nothing can hide from it. The nursery is no part of the attempt, and
    lets go of the lock once it has ended what came to it. Without a supervisor, nursery and control group what has left
    the session and forgotten its environment can't be found any more.
    """
    found = in_group = bool(traces.group and cgroup.populated(traces.group))
    for stat, supervises in holders(traces.control):
        found = True
        if supervises:
            _kill(_living_below(stat.pid) or [stat])
        elif stat.state == "T":
            send_signal(stat.pid, signal.SIGCONT)
    if in_group and traces.group:
        # After what has left the group: with it goes the supervisor.
        cgroup.kill(traces.group)
    rest = list(_recognized(traces))
    _kill(rest)
    return found or bool(rest) or traces.control.lock_is_held()


def holders(control: ControlDir) -> Iterator[Holder]:
    """Other processes that hold the lock open, also where its file is gone. None is seen where there is no /proc."""
    lock, errors = _names(control.lock), _names(control.shim_errors)
    for stat in processes():
        if stat.pid == os.getpid() or stat.state in "ZX":
            continue
        files = _open_files(stat.pid)
        if not lock.isdisjoint(files.values()):
            yield Holder(stat, files.get(STANDARD_ERROR) in lock | errors)


def _names(path: Path) -> set[str]:
    """What /proc calls an open file, before and after it was removed."""
    name = os.path.realpath(path)
    return {name, f"{name} (deleted)"}


def _open_files(pid: int) -> dict[int, str]:
    """By descriptor; empty where they are none of our business."""
    found = {}
    try:
        with os.scandir(PROC / str(pid) / "fd") as files:
            for file in files:
                found[int(file.name)] = os.readlink(file.path)  # noqa: PTH115 - for every file of every process
    except OSError:
        return found
    return found


def _living_below(pid: int) -> list[ProcessStat]:
    return [stat for stat in descendants(pid) if stat.state not in "ZX"]


def _kill(found: list[ProcessStat]) -> None:
    for stat in found:
        send_signal(stat.pid, signal.SIGKILL)


def _recognized(traces: Traces) -> Iterator[ProcessStat]:
    """Processes of the attempt's session, and those that carry its names in their environment.

    None that is older than the attempt: a number that was given anew names another process. The directory tells a job
    of this server from one of a copy of its data.
    """
    started = traces.started if traces.started.get("boot_id") == boot_id() else {}
    # A job can't be in our session or group. But it may have said so where it can, so that we end ourselves.
    ours = {0, os.getsid(0), os.getpgrp()}
    job_id, _, attempt = traces.control.path.name.rpartition(".")
    names = {f"JOBLEDGER_JOB_ID={job_id}".encode(), f"JOBLEDGER_ATTEMPT={attempt}".encode()}
    place = os.fsencode(f"JOBLEDGER_JOB_DIR={traces.control.path.parents[1]}{os.sep}")
    leader, since = started.get("pid"), started.get("pid_started", 0)
    for stat in processes():
        if stat.started < since or stat.state in "ZX":
            continue
        if leader in {stat.session, stat.group} - ours or _carries(stat.pid, names, place):
            yield stat


def _carries(pid: int, names: set[bytes], place: bytes) -> bool:
    try:
        environment = (PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return False
    return names <= set(environment) and any(variable.startswith(place) for variable in environment)
