"""A filter of system calls: the limits of other processes are not a job's business. Standard library only.

Landlock does not guard prlimit(2), by which a job could take from the server, of the same user, what it may open or
write. The filter refuses it for any process but the caller itself, by the number 0, as setrlimit(3) and ulimit have it.
"""

import ctypes
import errno
import os
import struct
from typing import NamedTuple

PR_GET_SECCOMP, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 21, 22, 2
ALLOW, REFUSE = 0x7FFF0000, 0x00050000 | errno.EPERM
# Of <linux/bpf_common.h>: load a word of what the call is told by, jump if equal, mask, answer.
LOAD, JUMP, MASK, ANSWER = 0x20, 0x15, 0x54, 0x06
NUMBER, ARCHITECTURE, FIRST_ARGUMENT = 0, 4, 16
# Calls of x86-64 with 32-bit pointers have the same numbers and this bit.
NOT_X32 = 0xFFFFFFFF & ~0x40000000
INSTRUCTION = struct.Struct("=HBBI")


class Calls(NamedTuple):
    """Architectures as in <linux/audit.h>, and their number of prlimit64: the kernel's own, and its 32-bit one."""

    own: int
    prlimit: int
    compatible: int
    compatible_prlimit: int


KNOWN = {
    "x86_64": Calls(0xC000003E, 302, 0x40000003, 340),
    "aarch64": Calls(0xC00000B7, 261, 0x40000028, 369),
}


def available() -> bool:
    """Whether there is a filter for this machine, and a kernel that takes it."""
    return os.uname().machine in KNOWN and ctypes.CDLL(None).prctl(PR_GET_SECCOMP, 0, 0, 0, 0) >= 0


def guard_limits_of_others() -> None:
    """Installs the filter for this process and all that it will start, which gain no privileges (no_new_privs).

    Raises:
        OSError: the kernel refused.
    """
    program = program_for(KNOWN[os.uname().machine])
    code = ctypes.create_string_buffer(program, len(program))
    told = struct.pack("@HP", len(program) // INSTRUCTION.size, ctypes.addressof(code))
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, told, 0, 0):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def program_for(calls: Calls) -> bytes:
    """The filter. Jumps count the instructions that they skip: where equal, and where not."""
    instructions = (
        (LOAD, 0, 0, ARCHITECTURE),
        (JUMP, 0, 3, calls.own),
        (LOAD, 0, 0, NUMBER),
        (MASK, 0, 0, NOT_X32),
        (JUMP, 3, 5, calls.prlimit),
        (JUMP, 0, 4, calls.compatible),
        (LOAD, 0, 0, NUMBER),
        (JUMP, 0, 2, calls.compatible_prlimit),
        (LOAD, 0, 0, FIRST_ARGUMENT),
        (JUMP, 0, 1, 0),
        (ANSWER, 0, 0, ALLOW),
        (ANSWER, 0, 0, REFUSE),
    )
    return b"".join(INSTRUCTION.pack(*instruction) for instruction in instructions)
