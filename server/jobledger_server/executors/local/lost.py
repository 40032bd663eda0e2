"""Attempts whose shim is gone without a word: what is left of them is ended, and the end recorded."""

import os
import signal
import time
from pathlib import Path
from typing import Any

from jobledger_server.executors.local import cgroup
from jobledger_server.executors.local.control_dir import PROTOCOL, ControlDir, read_json, write_json
from jobledger_server.executors.local.process_tree import (
    PROC,
    ProcessStat,
    boot_id,
    processes,
    send_signal,
)
from jobledger_server.joblog.writer import LogWriter

KILL_SECONDS, KILL_INTERVAL = 5.0, 0.02
IDENTITY = ("JOBLEDGER_JOB_ID", "JOBLEDGER_ATTEMPT", "JOBLEDGER_JOB_DIR")
MESSAGE = "Its supervisor is gone and left no word: it was killed, or the machine went down"


def bury(control: ControlDir, now: int) -> None:
    """Ends what is left of the attempt, repairs its log and writes `exit.json`. May block for seconds.

    Nothing happens where its shim lives after all, or the end is recorded already.

    Args:
        now: microseconds since the epoch.

    Raises:
        OSError: it could not be written.
    """
    lock = control.take_lock()
    if lock is None:
        return
    try:
        if control.exit.exists():
            return
        spec = read_json(control.spec) or {"env": {}}
        started = control.read_started() or {}
        group = cgroup.recorded(control.cgroup)
        survived = _kill_rest(spec, started, group)
        if group:
            cgroup.remove(group)
        word = {
            "protocol": PROTOCOL,
            "reason": "lost",
            "message": f"{MESSAGE}{'; something of it still runs' if survived else ''}",
            "started_at": started.get("started_at", 0),
            "ended_at": now,
            "log": _seal_log(spec),
        }
        write_json(control.exit, word)
    finally:
        os.close(lock)


def _seal_log(spec: dict[str, Any]) -> dict[str, Any]:
    if "log_dir" not in spec:
        return {}
    log = LogWriter(Path(spec["log_dir"]), spec["log_bytes"])
    try:
        log.seal()
        return log.totals()._asdict()
    finally:
        log.close()


def _kill_rest(spec: dict[str, Any], started: dict[str, Any], group: Path | None) -> bool:
    """Kills what can be recognized as the attempt's. Returns whether something survived.

    If the nursery lived when the shim was killed then nothing is left by now, see there. If it did not: the control
    group has all of it; without one, what has left the session and forgotten its environment can't be found any more.
    """
    if started and started["boot_id"] != boot_id():
        return False
    deadline = time.monotonic() + KILL_SECONDS
    while (rest := _rest(spec, started)) or (group and cgroup.populated(group)):
        if time.monotonic() > deadline:
            return True
        for stat in rest:
            send_signal(stat.pid, signal.SIGKILL)
        if group:
            cgroup.kill(group)
        time.sleep(KILL_INTERVAL)
    return False


def _rest(spec: dict[str, Any], started: dict[str, Any]) -> list[ProcessStat]:
    """Processes of the attempt's session, and those that carry its names in their environment.

    None that is older than the attempt: a number that was given anew names another process.
    """
    names = {f"{key}={spec['env'].get(key)}".encode() for key in IDENTITY}
    leader, since = started.get("pid"), started.get("pid_started", 0)
    return [
        stat
        for stat in processes()
        if stat.started >= since
        and stat.state not in "ZX"
        and (leader in {stat.session, stat.group} or names <= _environment(stat.pid))
    ]


def _environment(pid: int) -> set[bytes]:
    try:
        return set((PROC / str(pid) / "environ").read_bytes().split(b"\0"))
    except OSError:
        return set()
