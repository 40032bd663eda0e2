"""What misbehaves while something is measured, and proof that it did."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from benchmarks.serving import python
from support.running import pause

# How many processes the bomb may come to. Root ignores RLIMIT_NPROC: a cgroup holds it, or its own shape.
PROCESSES = 64
MARK = "jobledger-bench-bomb"
# Enters the cgroup, then every process forks for ever: past the limit forks fail, and they go on trying.
HELD_BOMB = """
import os
mark = "{mark}"
with open("{procs}", "w") as procs:
    procs.write("0")
while True:
    try:
        os.fork()
    except OSError:
        pass
"""
# Where no cgroup can be had: so many processes, each of which forks another one as fast as it can, one at a time.
TAME_BOMB = """
import os
mark = "{mark}"
for _ in range({doublings}):
    os.fork()
while True:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
"""
# Falls behind when its pipe is full, and catches up when it can: over any while it comes to the rate.
FLOOD = """
import sys, time
block, interval = (b"x" * 79 + b"\\n") * {block}, {interval}
due = time.monotonic()
while True:
    sys.stdout.buffer.write(block)
    sys.stdout.buffer.flush()
    due += interval
    time.sleep(max(0.0, due - time.monotonic()))
"""
FLUSHES = 100


def flood(lines_per_second: int) -> tuple[str, ...]:
    """A command that writes so many lines of 80 bytes a second, until it is ended."""
    return python(FLOOD.format(block=lines_per_second // FLUSHES, interval=1 / FLUSHES))


def bomb(cgroup: Path | None) -> tuple[str, ...]:
    """A command that forks without end, in that cgroup where there is one."""
    if cgroup is None:
        return python(TAME_BOMB.format(mark=MARK, doublings=PROCESSES.bit_length() - 1))
    return python(HELD_BOMB.format(mark=MARK, procs=cgroup / "cgroup.procs"))


def bomb_processes() -> int:
    """How many processes of a bomb there are."""
    return sum(MARK.encode() in _command_line(path) for path in Path("/proc").glob("[0-9]*/cmdline"))


def _command_line(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has ended meanwhile
        return b""


@contextmanager
def pids_cgroup(name: str) -> Iterator[Path | None]:
    """A cgroup that holds as many processes as a bomb may come to; None where none can be had.

    It goes with the block, and what is left in it too.
    """
    parent = _pids_controller()
    if parent is None:
        yield None
        return
    cgroup = parent / name
    try:
        cgroup.mkdir()
        (cgroup / "pids.max").write_text(str(PROCESSES))
    except OSError:
        yield None
        return
    try:
        yield cgroup
    finally:
        _remove(cgroup)


def _remove(cgroup: Path) -> None:
    """The kernel lets go of what was just killed a moment later."""
    for _ in range(200):
        for pid in (cgroup / "cgroup.procs").read_text().split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        try:
            cgroup.rmdir()
        except OSError:
            pause()
        else:
            return
    cgroup.rmdir()


def _pids_controller() -> Path | None:
    """Where cgroups with a limit of processes are made: version 2's root, or version 1's hierarchy."""
    try:
        mounts = [line.split()[1:4] for line in Path("/proc/mounts").read_text().splitlines()]
    except FileNotFoundError:
        return None
    for place, kind, options in mounts:
        if kind == "cgroup" and "pids" in options.split(","):
            return Path(place)
        if kind == "cgroup2" and "pids" in (Path(place) / "cgroup.subtree_control").read_text().split():
            return Path(place)
    return None
