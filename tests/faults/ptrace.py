"""Ends a process right before its n-th system call that writes, whichever of its threads makes it. Linux alone.

`ptrace` is each thread's own: whoever attaches must follow, from the same thread, and must have no other children that
it waits for meanwhile.
"""

import ctypes
import os
import platform
import signal
import sys
from pathlib import Path
from typing import NamedTuple

PTRACE_SYSCALL, PTRACE_SEIZE, PTRACE_INTERRUPT, PTRACE_GET_SYSCALL_INFO = 24, 0x4206, 0x4207, 0x420E
TRACESYSGOOD, TRACECLONE, EXITKILL = 0x1, 0x8, 0x100000
SYSCALL_ENTRY = 1
WAIT_FOR_THREADS = 0x40000000  # __WALL
SYSCALL_STOP = signal.SIGTRAP | 0x80

# What changes files, names or what is durable of them: numbers on x86_64 and aarch64, None where there is none.
WRITING: dict[str, tuple[int | None, int | None]] = {
    "write": (1, 64),
    "pwrite64": (18, 68),
    "writev": (20, 66),
    "pwritev": (296, 70),
    "pwritev2": (328, 287),
    "sendfile": (40, 71),
    "copy_file_range": (326, 285),
    "fsync": (74, 82),
    "fdatasync": (75, 83),
    "truncate": (76, 45),
    "ftruncate": (77, 46),
    "fallocate": (285, 47),
    "creat": (85, None),
    "open": (2, None),
    "openat": (257, 56),
    "mkdir": (83, None),
    "mkdirat": (258, 34),
    "mknod": (133, None),
    "mknodat": (259, 33),
    "rename": (82, None),
    "renameat": (264, 38),
    "renameat2": (316, 276),
    "link": (86, None),
    "linkat": (265, 37),
    "symlink": (88, None),
    "symlinkat": (266, 36),
    "unlink": (87, None),
    "unlinkat": (263, 35),
    "rmdir": (84, None),
}
# Opening counts where it may create a file: the place of its flags among the arguments.
FLAGS_OF = {"open": 1, "openat": 2}
MACHINES = ("x86_64", "aarch64")


class SyscallInfo(ctypes.Structure):
    """`struct ptrace_syscall_info`, as far as an entry fills it."""

    _fields_ = (
        ("op", ctypes.c_uint8),
        ("padding", ctypes.c_uint8 * 3),
        ("arch", ctypes.c_uint32),
        ("instruction_pointer", ctypes.c_uint64),
        ("stack_pointer", ctypes.c_uint64),
        ("number", ctypes.c_uint64),
        ("arguments", ctypes.c_uint64 * 6),
    )


class Trace(NamedTuple):
    """How a process was followed.

    Attributes:
        calls: names of its writing calls in order; the last one was not made where `killed`.
        exit_code: as `os.waitstatus_to_exitcode` gives it.
    """

    calls: tuple[str, ...]
    killed: bool
    exit_code: int


def possible() -> bool:
    """Whether system and machine are ones that this module knows."""
    return sys.platform == "linux" and platform.machine() in MACHINES


def attach(pid: int) -> None:
    """Takes hold of every thread of a child, and of those that it will start; not of processes that it forks.

    Raises:
        PermissionError: the system forbids it.
    """
    options = TRACESYSGOOD | TRACECLONE | EXITKILL
    for thread in Path(f"/proc/{pid}/task").iterdir():
        _ptrace(PTRACE_SEIZE, int(thread.name), options)
        _ptrace(PTRACE_INTERRUPT, int(thread.name))


def follow(pid: int, *, kill_before: int) -> Trace:
    """Lets a child that is attached run to its end, or to right before its writing call of that number, from 1 on."""
    calls: list[str] = []
    while True:
        thread, status = os.waitpid(-1, WAIT_FOR_THREADS)
        if not os.WIFSTOPPED(status):
            if thread == pid:
                return Trace(tuple(calls), len(calls) == kill_before, os.waitstatus_to_exitcode(status))
            continue
        call = _writing_call(thread) if os.WSTOPSIG(status) == SYSCALL_STOP else None
        if call and len(calls) < kill_before:
            calls.append(call)
            if len(calls) == kill_before:
                os.kill(pid, signal.SIGKILL)
        _resume(thread, status)


def _resume(thread: int, status: int) -> None:
    """Lets a thread go on to its next system call, with the signal that it was stopped for, if it was for one."""
    number = os.WSTOPSIG(status)
    is_signal = number != SYSCALL_STOP and status >> 16 == 0
    try:
        _ptrace(PTRACE_SYSCALL, thread, number if is_signal else 0)
    except ProcessLookupError:
        return  # killed meanwhile: the next wait tells


def _writing_call(thread: int) -> str | None:
    """The name of the call that a thread is about to make, if it is one that writes."""
    info = SyscallInfo()
    try:
        _ptrace(PTRACE_GET_SYSCALL_INFO, thread, ctypes.addressof(info), ctypes.sizeof(info))
    except ProcessLookupError:
        return None
    name = NAMES.get(info.number) if info.op == SYSCALL_ENTRY else None
    if name in FLAGS_OF and not info.arguments[FLAGS_OF[name]] & os.O_CREAT:
        return None
    return name


def _names() -> dict[int, str]:
    if not possible():
        return {}
    column = MACHINES.index(platform.machine())
    return {number: name for name, numbers in WRITING.items() if (number := numbers[column]) is not None}


NAMES = _names()


LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
LIBC.ptrace.restype = ctypes.c_long


def _ptrace(request: int, thread: int, data: int = 0, address: int = 0) -> None:
    if LIBC.ptrace(request, thread, address, data) == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
