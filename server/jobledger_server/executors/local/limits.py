"""What a job may use, and whether it keeps to that. Standard library only.

The kernel holds single processes to some limits. What the whole tree uses is looked at from time to time: its CPU time
and memory where there is /proc, the files in its directory everywhere. Looking takes a tenth of the time at most: what
takes long is done less often.
"""

import contextlib
import math
import os
import resource
import signal
import stat
import time
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from jobledger_server.executors.local import cgroup
from jobledger_server.executors.local.process_tree import LINUX, PROC, ProcessStat, descendants

CPU_INTERVAL, MEMORY_INTERVAL, DISK_INTERVAL = 1.0, 0.25, 2.0
# The kernel ends single processes by their CPU time so many seconds past the limit, where our look comes late. Its own
# count is coarse: right at the limit a process could end by it of which our count does not say yet that it is over.
CPU_SLACK = 1
# A process that catches SIGXCPU may use so much more CPU time, seconds.
CPU_GRACE = 5
# Entries of the directory that are looked at before other things get their turn, and for how long they do.
WALK_SLICE, WALK_PAUSE = 1000, 0.02
# How many times as long as a look took nothing is looked at.
REST = 9
BLOCK = 512
TICKS_PER_SECOND, PAGE = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
# How a shell reports the signal that ended its last command.
SHELL_SIGNAL_BASE = 128
NEVER = float("inf")


class ResourceLimit(NamedTuple):
    """Arguments of setrlimit."""

    resource: int
    soft: int
    hard: int


class Breach(NamedTuple):
    """A limit that was passed: the reason to end the job, as in `EndReason`, and what to tell of it."""

    reason: str
    message: str


def resource_limits(limits: Mapping[str, float]) -> list[ResourceLimit]:
    """What the kernel is to hold each process to. Limits that this process has itself are never widened.

    Args:
        limits: as in `spec.json`: fields of `Limits` by name, without those that are not limited.
    """
    found = []
    if "cpu_seconds" in limits:
        soft = math.ceil(limits["cpu_seconds"]) + CPU_SLACK
        found.append(_within(resource.RLIMIT_CPU, soft, soft + CPU_GRACE))
    kinds = {"open_files": resource.RLIMIT_NOFILE, "file_size_bytes": resource.RLIMIT_FSIZE}
    if not LINUX:
        # Address space is a poor measure of memory, but here nothing tells what the tree uses.
        kinds["memory_bytes"] = resource.RLIMIT_AS
    for name, kind in kinds.items():
        if name in limits:
            found.append(_within(kind, int(limits[name]), int(limits[name])))
    return found


def core_limit(soft: int, hard: int) -> ResourceLimit:
    """What the kernel is to hold the core files of each process to, bytes."""
    return ResourceLimit(resource.RLIMIT_CORE, soft, hard)


def _within(kind: int, soft: int, hard: int) -> ResourceLimit:
    highest = resource.getrlimit(kind)[1]
    if highest == resource.RLIM_INFINITY:
        return ResourceLimit(kind, soft, hard)
    return ResourceLimit(kind, min(soft, highest), min(hard, highest))


class LimitWatch:
    """Watches what the descendants of this process use, and the directory of their job.

    Args:
        limits: as in `spec.json`: fields of `Limits` by name, without those that are not limited.
        group: the attempt's control group, if there is one. It counts what ended unseen, and memory that is nobody's;
            this process, which is in it, too.
    """

    def __init__(self, limits: Mapping[str, float], job_dir: Path, group: Path | None = None) -> None:
        self._limits = limits
        self._group = group
        self._job_dir = str(job_dir)
        self._processes_due = 0.0 if limits.keys() & {"cpu_seconds", "memory_bytes"} else NEVER
        self._disk_due = 0.0 if "disk_bytes" in limits else NEVER
        self._walk: Iterator[int] | None = None
        self._walked = 0

    @property
    def due(self) -> float:
        """When to look again, on the monotonic clock."""
        return min(self._processes_due, self._disk_due)

    def look(self, now: float) -> Breach | None:
        """Looks at what is due. Returns a limit that it finds passed."""
        breach = None
        if now >= self._processes_due:
            breach = self._look_at_processes()
            interval = MEMORY_INTERVAL if "memory_bytes" in self._limits else CPU_INTERVAL
            self._processes_due = _next(now, interval)
        if now >= self._disk_due:
            began = time.monotonic()
            breach = self._walk_on() or breach
            self._disk_due = _next(began, DISK_INTERVAL if self._walk is None else WALK_PAUSE)
        return breach

    def cause_of(self, status: int | None) -> Breach | None:
        """The limit that is to blame for the end of the first process, if one is.

        Args:
            status: its wait status. An end without an error is nobody's fault.
        """
        if not status:
            return None
        code = os.waitstatus_to_exitcode(status)
        number = -code if code < 0 else code - SHELL_SIGNAL_BASE
        if "file_size_bytes" in self._limits and number == signal.SIGXFSZ:
            limit = self._limits["file_size_bytes"]
            return Breach("disk_limit", f"Wrote a file of more than {limit} bytes (limits.file_size_bytes)")
        if "cpu_seconds" in self._limits and (number == signal.SIGXCPU or self._is_over_cpu(descendants())):
            return self._cpu_breach()
        return None

    def _look_at_processes(self) -> Breach | None:
        tree = descendants()
        memory = self._limits.get("memory_bytes", NEVER)
        # What processes share counts for each of them here; the exact figure is asked for only if it matters.
        is_over = sum(it.resident_pages for it in tree) * PAGE > memory and sum(map(_memory, tree)) > memory
        if is_over or (self._group and cgroup.memory_bytes(self._group) - _own_memory() > memory):
            return Breach("out_of_memory", f"Used more than {memory} bytes of memory (limits.memory_bytes)")
        return self._cpu_breach() if self._is_over_cpu(tree) else None

    def _is_over_cpu(self, tree: list[ProcessStat]) -> bool:
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        alive = sum(it.cpu_ticks for it in tree) / TICKS_PER_SECOND
        # A child that its parent does not wait for (SIGCHLD ignored) is counted there alone.
        in_group = cgroup.cpu_seconds(self._group) - time.process_time() if self._group else 0.0
        return max(ended.ru_utime + ended.ru_stime + alive, in_group) > self._limits.get("cpu_seconds", NEVER)

    def _cpu_breach(self) -> Breach:
        return Breach("cpu_limit", f"Used more than {self._limits['cpu_seconds']:.12g} s of CPU time (limits.cpu_time)")

    def _walk_on(self) -> Breach | None:
        """Goes on with the walk through the directory for a while, or begins another one."""
        if self._walk is None:
            self._walk, self._walked = _sizes(self._job_dir), 0
        sizes = list(islice(self._walk, WALK_SLICE))
        self._walked += sum(sizes)
        if len(sizes) < WALK_SLICE:
            self._walk = None
        limit = self._limits["disk_bytes"]
        if self._walked <= limit:
            return None
        return Breach("disk_limit", f"Its directory takes more than {limit} bytes of disk (limits.disk_bytes)")


def _next(began: float, interval: float) -> float:
    now = time.monotonic()
    return now + max(interval, REST * (now - began))


def _memory(process: ProcessStat) -> int:
    """Bytes, with its share of what it shares with others; all of that where its share can't be known."""
    try:
        return _rolled_up(process.pid, b"Pss:")
    except ProcessLookupError:
        return 0
    except (OSError, StopIteration):
        return process.resident_pages * PAGE


def _own_memory() -> int:
    """Bytes that are this process's alone: what it has in common with its parent counts in the group of that."""
    try:
        return _rolled_up(os.getpid(), b"Private_Dirty:")
    except (OSError, StopIteration):
        return 0


def _rolled_up(pid: int, name: bytes) -> int:
    with (PROC / str(pid) / "smaps_rollup").open("rb") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def _sizes(root: str) -> Iterator[int]:
    """Bytes that each entry takes on disk, at any depth. Links are not followed, and a file of many names counts once.

    Entries that vanish or can't be read are left out.
    """
    waiting = [root]
    known: set[tuple[int, int]] = set()
    while waiting:
        directory = waiting.pop()
        for name, entry in _entries(directory):
            key = (entry.st_dev, entry.st_ino)
            yield 0 if key in known else entry.st_blocks * BLOCK
            if stat.S_ISDIR(entry.st_mode):
                waiting.append(f"{directory}/{name}")
            elif entry.st_nlink > 1:
                known.add(key)


def _entries(directory: str) -> Iterator[tuple[str, os.stat_result]]:
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return
    try:
        with os.scandir(descriptor) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    yield entry.name, entry.stat(follow_symlinks=False)
    finally:
        os.close(descriptor)
