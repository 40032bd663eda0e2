"""A process and everything that descends from it: seen through /proc, ended for certain. Standard library only.

On Linux this process becomes the subreaper: whatever loses its parent becomes a child of ours, so that nothing gets
out of sight, and "no child is left" means that all of it is dead. Elsewhere the process group is all that is known.
"""

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from jobledger_server.executors.local import cgroup

LINUX = sys.platform == "linux"
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER = 1, 4, 36
PROC = Path("/proc")
PROC_BYTES = 4096


class ProcessStat(NamedTuple):
    """What /proc says of a process.

    Attributes:
        started: clock ticks since boot; with the pid it names one process.
        cpu_ticks: CPU time, clock ticks, with that of the children that it has waited for.
        resident_pages: memory, what it shares with others included.
    """

    pid: int
    state: str
    parent: int
    group: int
    session: int
    started: int
    cpu_ticks: int
    resident_pages: int


def prctl(option: int, value: int) -> None:
    """Sets an attribute of this process; nothing happens but on Linux.

    Raises:
        OSError: the kernel refused.
    """
    if LINUX and _libc().prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def read_proc(path: str) -> str:
    """What is in a short file below /proc. Not by `open`, whose layers cost more than the file.

    Raises:
        OSError: it can't be read; most often since the process is gone.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        read = os.read(descriptor, PROC_BYTES)
        while chunk := os.read(descriptor, PROC_BYTES):
            read += chunk
    finally:
        os.close(descriptor)
    return read.decode("utf-8", "replace")


def process_stat(pid: int) -> ProcessStat | None:
    """What is known of a process, or None where there is none (or no /proc)."""
    try:
        text = read_proc(f"{PROC}/{pid}/stat")
    except OSError:
        return None
    # The name, in parentheses, may hold anything.
    fields = text[text.rindex(")") + 2 :].split()
    return ProcessStat(
        pid=pid,
        state=fields[0],
        parent=int(fields[1]),
        group=int(fields[2]),
        session=int(fields[3]),
        started=int(fields[19]),
        cpu_ticks=sum(int(ticks) for ticks in fields[11:15]),
        resident_pages=int(fields[21]),
    )


def processes() -> Iterator[ProcessStat]:
    """All processes that /proc shows."""
    if not LINUX:
        return
    for name in os.listdir(PROC):  # noqa: PTH208 - names are enough, and there may be thousands
        stat = process_stat(int(name)) if name.isdigit() else None
        if stat is not None:
            yield stat


def children() -> list[int]:
    """Children of this process, zombies included."""
    if _kernel_lists_children():
        return _children(os.getpid())
    return [stat.pid for stat in processes() if stat.parent == os.getpid()]


def descendants(ancestor: int | None = None) -> list[ProcessStat]:
    """Descendants of a process, else of this one, with zombies; one that changes its parent meanwhile may be missed.

    What this costs grows with the tree, where the kernel lists children, not with all that runs on the machine.
    """
    if not _kernel_lists_children():
        return all_descendants(ancestor)
    found: dict[int, ProcessStat] = {}
    waiting = [ancestor or os.getpid()]
    while waiting:
        for pid in _children(waiting.pop()):
            stat = process_stat(pid)
            if stat and pid not in found:
                found[pid] = stat
                waiting.append(pid)
    return list(found.values())


def _kernel_lists_children() -> bool:
    return (PROC / "thread-self/children").exists()


def _children(pid: int) -> list[int]:
    """Each thread has those that it has started."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"{PROC}/{pid}/task"):  # noqa: PTH208 - see `read_proc`
            with contextlib.suppress(OSError):
                found += map(int, read_proc(f"{PROC}/{pid}/task/{thread}/children").split())
    return found


def all_descendants(ancestor: int | None = None) -> list[ProcessStat]:
    """The same, found among all processes."""
    by_parent: dict[int, list[ProcessStat]] = {}
    for stat in processes():
        by_parent.setdefault(stat.parent, []).append(stat)
    found = by_parent.pop(ancestor or os.getpid(), [])
    for stat in found:
        found.extend(by_parent.pop(stat.pid, []))
    return found


def boot_id() -> str:
    """Names the time since this machine was started; empty where that can't be known."""
    try:
        return read_proc(f"{PROC}/sys/kernel/random/boot_id").strip()
    except OSError:
        return ""


def process_exists(pid: int) -> bool:
    """Whether there is a process of that number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def send_signal(pid: int, number: int) -> None:
    """Signals a process, or with a negative pid a group, if it is still there and ours to signal."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def children_pipe() -> int:
    """A descriptor that turns readable when a child ends."""
    read_end, write_end = os.pipe()
    os.set_blocking(read_end, False)
    os.set_blocking(write_end, False)
    signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    return read_end


class ProcessTree:
    """The processes of a job: the first one, which leads a session and a group, and all others.

    Attributes:
        status: wait status of the first one, None while it lives.
        gone: nothing of it is left.
    """

    def __init__(self, leader: int, group: Path | None = None) -> None:
        """Tree of a leader, all of which began in the control group `group`, if that is there, as this process did."""
        self._leader = leader
        self._cgroup = group
        self._left_cgroup = False
        self.status: int | None = None
        self.gone = False

    def reap(self) -> None:
        """Takes note of whatever has ended."""
        try:
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    return
                if pid == self._leader:
                    self.status = status
        except ChildProcessError:
            self.gone = True
            if not LINUX:
                send_signal(-self._leader, signal.SIGKILL)

    def ask_to_end(self) -> None:
        """SIGTERM to the group, stopped members included. What is left of it may then use its grace period."""
        send_signal(-self._leader, signal.SIGTERM)
        send_signal(-self._leader, signal.SIGCONT)

    def group_lives(self) -> bool:
        """Whether a member of the first process's group, which was asked to end, is still at it."""
        return any(stat.group == self._leader for stat in self._descendants())

    def kill(self) -> None:
        """SIGKILL to everything that is known of it by now. More may come to light: to be repeated until `gone`."""
        if self._cgroup:
            self._left_cgroup = self._left_cgroup or cgroup.leave(self._cgroup)
            if self._left_cgroup:
                cgroup.kill(self._cgroup)
        if self.status is None:
            send_signal(-self._leader, signal.SIGKILL)
        for stat in self._descendants():
            send_signal(stat.pid, signal.SIGKILL)

    @staticmethod
    def _descendants() -> list[ProcessStat]:
        """Descendants of this process that live."""
        return [stat for stat in all_descendants() if stat.state not in "ZX"]
