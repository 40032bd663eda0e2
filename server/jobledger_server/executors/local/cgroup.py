"""A control group of its own for each attempt, where this process may make one (cgroup v2). Standard library only.

Whatever descends from the job is in it, however it hides, and the kernel ends all of it at one word: also when nobody
is left who would know it by its parents. A job with the rights to do so (root's) may move itself out. So this comes
beside the look at the process tree, never in its place; where there are no control groups the tree alone must do.

Its supervisor is born in it, and what that starts is in it by descent: to start a command there by itself would take a
fork that only Python code can do, which costs several times as much. It leaves before it says that word.
"""

import contextlib
import ctypes
import os
import signal
import struct
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

from jobledger_server.executors.local.control_dir import ControlDir
from jobledger_server.executors.local.guarded_files import as_path, read_bytes

PREFIX = "jobledger-"
LEFTOVER_SECONDS = 600.0
# Processes and threads of a job at a time, its supervisor included: past them it can't fork.
MOST_PROCESSES = 4096
# Of clone3(2): its number, which is the same on all architectures, and the layout of its arguments.
SYS_CLONE3 = 435
CLONE_INTO_CGROUP = 0x2_0000_0000
CLONE_ARGS = struct.Struct("=11Q")


@cache
def place() -> Path | None:
    """Directory of the control group that this process is in: the only place where it may make others."""
    try:
        membership = Path("/proc/self/cgroup").read_text(encoding="utf-8")
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8")
    except OSError:
        return None
    return find_place(membership, mounts)


def find_place(membership: str, mounts: str) -> Path | None:
    """The same, from what /proc has as `cgroup` and `mountinfo`; None where what is mounted doesn't show it."""
    name = next((Path(line[3:]) for line in membership.splitlines() if line.startswith("0::")), None)
    for mount in (line.split() for line in mounts.splitlines()):
        _, _, _, root, mounted_at, *rest = mount
        if name and rest[rest.index("-") + 1] == "cgroup2" and name.is_relative_to(root) and ".." not in name.parts:
            return Path(mounted_at) / name.relative_to(root)
    return None


def make(name: str) -> Path | None:
    """Makes a control group. None where it can't be had."""
    parent = place()
    if parent is None:
        return None
    group = parent / f"{PREFIX}{name}.{os.urandom(4).hex()}"
    try:
        os.mkdir(group)  # noqa: PTH102 - for every job
    except OSError:
        return None
    _hold_to_processes(group)
    return group


def count_processes() -> None:
    """Has the groups that are made from now on hold a job to so many processes, where that can be had."""
    parent = place()
    with contextlib.suppress(OSError):
        if parent and "pids" not in (parent / "cgroup.subtree_control").read_text(encoding="ascii").split():
            (parent / "cgroup.subtree_control").write_text("+pids", encoding="ascii")


def _hold_to_processes(group: Path) -> None:
    """A job that forks without end must not take the machine's processes from all others."""
    with contextlib.suppress(OSError):
        descriptor = os.open(group / "pids.max", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, b"%d" % MOST_PROCESSES)
        finally:
            os.close(descriptor)


def leave(group: Path) -> bool:
    """Moves this process out of it, to where it was made. Returns whether it could. This takes milliseconds."""
    try:
        (group.parent / "cgroup.procs").write_text("0", encoding="ascii")
    except OSError:
        return False
    return True


def recorded(control: ControlDir) -> Path | None:
    """The control group that a supervisor wrote down, if there is one."""
    group = control.read_group() or _noted(control.cgroup)
    return group if group and group.name.startswith(PREFIX) else None


def _noted(file: Path) -> Path | None:
    """The same under protocol 1, which had a file for it. Half a line may name somebody else's."""
    try:
        line = read_bytes(file).decode()
    except (OSError, ValueError):
        return None
    return as_path(line.rstrip("\n")) if line.endswith("\n") else None


def fork(group: Path | None) -> int:
    """Forks. The child is in the control group from the start, if that takes it; else where its parent is.

    Raises:
        OSError: there are no processes or no memory left.
    """
    if group:
        # Whatever is in the way of this one call, the plain one may do.
        with contextlib.suppress(OSError):
            return _clone_into(group)
    return os.fork()


@cache
def _system_call() -> Callable[..., int]:
    # Of the two kinds of library this is the one that keeps the interpreter's lock: the child needs it.
    call = ctypes.PyDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    return call


def _clone_into(group: Path) -> int:
    """To be born in a control group costs nothing; to be moved there costs 8 ms: it waits for every CPU.

    Raises:
        OSError: it could not be done, and nothing was forked.
    """
    descriptor = os.open(group, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    arguments = CLONE_ARGS.pack(CLONE_INTO_CGROUP, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, 0, 0, descriptor)
    call = _system_call()
    ctypes.pythonapi.PyOS_BeforeFork()
    pid: int = call(ctypes.c_long(SYS_CLONE3), arguments, ctypes.c_size_t(CLONE_ARGS.size))
    number = ctypes.get_errno()
    if pid == 0:
        ctypes.pythonapi.PyOS_AfterFork_Child()
    else:
        ctypes.pythonapi.PyOS_AfterFork_Parent()
    os.close(descriptor)
    if pid < 0:
        raise OSError(number, os.strerror(number))
    return pid


def kill(group: Path) -> None:
    """SIGKILL to all that is in it, and to what is being forked meanwhile."""
    with contextlib.suppress(OSError):
        (group / "cgroup.kill").write_text("1", encoding="ascii")


def populated(group: Path) -> bool:
    """Whether something in it lives: zombies do not."""
    try:
        return "populated 1" in (group / "cgroup.events").read_text(encoding="ascii").splitlines()
    except OSError:
        return False


def cpu_seconds(group: Path) -> float:
    """CPU time of all that was ever in it; 0 where it does not count."""
    return _figures(group / "cpu.stat").get("usage_usec", 0) / 1e6


def memory_bytes(group: Path) -> int:
    """Memory of all that is in it, that of files in memory included; 0 where it does not count (controller `memory`).

    Not `memory.current`: it holds what was read from the disk too, which the kernel takes back when it likes.
    """
    figures = _figures(group / "memory.stat")
    return figures.get("anon", 0) + figures.get("shmem", 0)


def _figures(path: Path) -> dict[str, int]:
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except OSError:
        return {}
    return {name: int(figure) for name, figure in (line.split() for line in lines)}


def remove(group: Path) -> None:
    """Removes it, with those that the job has made in it, unless something in it lives."""
    with contextlib.suppress(OSError):
        os.rmdir(group)  # noqa: PTH106 - for every job
        return
    for directory, _, _ in os.walk(group, topdown=False):
        with contextlib.suppress(OSError):
            Path(directory).rmdir()


def remove_leftovers() -> None:
    """Removes the empty ones that a crash left behind; not those that somebody is just about to use."""
    parent = place()
    for group in parent.glob(f"{PREFIX}*") if parent else ():
        with contextlib.suppress(OSError):
            if time.time() - group.stat().st_mtime > LEFTOVER_SECONDS:
                remove(group)
