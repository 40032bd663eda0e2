"""Opens what lies below a directory that somebody else may change at any moment: no link is followed, nothing is left.

Linux does it in one step (`openat2`); elsewhere each component is opened by itself, with the same outcome.
"""

import ctypes
import errno
import os
import struct
from collections.abc import Callable
from functools import cache

from jobledger_server.core.real_paths import PASS, is_link

# Of <linux/openat2.h>; the number is the same on every machine that Linux counts on from the common table.
OPENAT2 = 437
NO_MAGICLINKS, NO_SYMLINKS, BENEATH = 0x02, 0x04, 0x08
# A rename elsewhere makes the kernel ask to try again.
TRIES = 16
# The kernel does not know the call, or a filter keeps us from it; or the path is longer than it takes at once.
NOT_SERVED = frozenset({errno.ENOSYS, errno.EPERM, errno.E2BIG, errno.EINVAL, errno.ENAMETOOLONG, errno.EAGAIN})

Opening = Callable[[int, str, int], int]


def open_beneath(directory: int, path: str, flags: int) -> int:
    """Opens a path below an open directory. Returns a descriptor, closed on exec.

    Args:
        path: as `os.fsdecode` gives it; `.` is the directory itself.

    Raises:
        OSError: ELOOP for a link in any component; EXDEV for a path that leads out (absolute, or with `..`); else why
            it can't be opened.
    """
    if path.startswith("/") or ".." in path.split("/"):
        raise OSError(errno.EXDEV, "The path leads out of its directory")
    return by_the_kernel(directory, path, flags)


def by_the_kernel(directory: int, path: str, flags: int) -> int:
    """`open_beneath` by openat2, or step by step where that can't be had."""
    call, name = _syscall(), os.fsencode(path)
    if call is None:
        return step_by_step(directory, path, flags)
    how = struct.pack("@QQQ", flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0, BENEATH | NO_SYMLINKS | NO_MAGICLINKS)
    number = errno.EAGAIN
    for _ in range(TRIES):
        opened: int = call(OPENAT2, directory, name, how, len(how))
        if opened >= 0:
            return opened
        number = ctypes.get_errno()
        if number != errno.EAGAIN:
            break
    if number in NOT_SERVED:
        return step_by_step(directory, path, flags)
    raise OSError(number, os.strerror(number))


def step_by_step(directory: int, path: str, flags: int) -> int:
    """`open_beneath` where there is no openat2: each component from the one before, never through a link."""
    # What ends in a slash is a directory.
    *parents, name = [part for part in (f"{path}." if path.endswith("/") else path).split("/") if part]
    inside = os.dup(directory)
    try:
        for parent in parents:
            inner = _step(inside, parent, PASS)
            os.close(inside)
            inside = inner
        return _step(inside, name, flags)
    finally:
        os.close(inside)


def _step(directory: int, name: str, flags: int) -> int:
    try:
        return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    except OSError as error:
        # Systems differ in what they call a link where a directory was asked for.
        if error.errno != errno.ELOOP and is_link(directory, name):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP)) from None
        raise


@cache
def _syscall() -> Callable[..., int] | None:
    if os.uname().sysname != "Linux":
        return None
    call = ctypes.CDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    call.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t]
    return call
