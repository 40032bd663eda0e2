"""Isolation by Landlock: this process gives up what it is not to touch, for itself and all that it starts.

Landlock only ever grants, and what it grants of a directory it grants of all below. So that everything but the data
directory can be read, the neighbours of each directory on the way to it are granted, not these directories: they can
be passed, not listed, and what is made in them later can't be read. A second name of the data directory (a bind mount)
would not be known. Standard library only.
"""

import contextlib
import ctypes
import os
import stat
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

from jobledger_server.executors.local import seccomp

# The same on every architecture that Python runs on.
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
CREATE_RULESET_VERSION, RULE_PATH_BENEATH = 1, 1
RULESET = struct.Struct("=QQQ")
RULE = struct.Struct("=Qi")
# Before this version (Linux 6.2) files could be cut off whatever the rules.
LEAST_ABI = 3
SCOPES_ABI, IOCTL_ABI = 6, 5

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
MAKE_CHAR, MAKE_BLOCK = 1 << 6, 1 << 11
TRUNCATE, IOCTL_DEV = 1 << 14, 1 << 15
EVERYTHING = (1 << 15) - 1
READ = EXECUTE | READ_FILE | READ_DIR
# All but making devices, by which root could reach the disks themselves.
WRITE = EVERYTHING & ~MAKE_CHAR & ~MAKE_BLOCK
OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
# Abstract sockets and signals: not to processes that are not the job's.
SCOPES = 0b11

DEV = Path("/dev")
DEVICES = ("null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "shm")
PR_SET_NO_NEW_PRIVS = 38
CAPABILITY_VERSION = 0x20080522


def abi() -> int:
    """The version of Landlock that this kernel has; 0 where it has none."""
    try:
        return _syscall(CREATE_RULESET, None, 0, CREATE_RULESET_VERSION)
    except OSError:
        return 0


def restrict(*, hidden: Path, writable: Sequence[int]) -> None:
    """Keeps this process, and all that it will start, to reading all but `hidden` and to writing to `writable`.

    Capabilities go as well, so that root is no more than an owner of files, and the limits of other processes are kept
    from it where `seccomp` can.

    Args:
        writable: descriptors of directories: a name could lead elsewhere by now.

    Raises:
        OSError: it can't be done. This process is not of use any more.
    """
    version = abi()
    handled = EVERYTHING | (IOCTL_DEV if version >= IOCTL_ABI else 0)
    scopes = SCOPES if version >= SCOPES_ABI else 0
    ruleset = _syscall(CREATE_RULESET, RULESET.pack(handled, 0, scopes), RULESET.size, 0)
    for path in _readable(hidden):
        _grant(ruleset, path, READ)
    for name in DEVICES:
        _grant(ruleset, str(DEV / name), handled & (WRITE | IOCTL_DEV))
    for directory in writable:
        _grant_open(ruleset, directory, WRITE)
    _check(_libc().prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    _syscall(RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)
    _drop_capabilities()
    if seccomp.available():
        seccomp.guard_limits_of_others()


def _readable(hidden: Path) -> Iterator[str]:
    """The neighbours of each directory on the way to `hidden`: but for links, which could lead there, and devices."""
    for on_the_way in (hidden, *hidden.parents)[:-1]:
        if on_the_way.parent.is_relative_to(DEV):
            continue
        # What can't be listed can't be granted: then it is out of reach.
        with contextlib.suppress(PermissionError), os.scandir(on_the_way.parent) as entries:
            for entry in entries:
                path = Path(entry.path)
                if path not in (on_the_way, DEV) and not entry.is_symlink():
                    yield entry.path


def _grant(ruleset: int, path: str, rights: int) -> None:
    """Grants rights of a path, if there is one, and of what is below."""
    try:
        descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (FileNotFoundError, PermissionError):
        return
    try:
        _grant_open(ruleset, descriptor, rights)
    finally:
        os.close(descriptor)


def _grant_open(ruleset: int, descriptor: int, rights: int) -> None:
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISLNK(mode):
        allowed = rights if stat.S_ISDIR(mode) else rights & OF_FILES
        _syscall(ADD_RULE, ruleset, RULE_PATH_BENEATH, RULE.pack(allowed, descriptor), 0)


def _drop_capabilities() -> None:
    header = struct.pack("=Ii", CAPABILITY_VERSION, 0)
    _check(_libc().capset(header, bytes(24)))


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _syscall(number: int, *arguments: object) -> int:
    """Raises OSError where it fails."""
    return _check(_libc().syscall(ctypes.c_long(number), *arguments))


def _check(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
