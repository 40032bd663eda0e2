"""Opens paths so that nobody can put something else in their place. Standard library only: supervisors use it."""

import errno
import os
import stat
from pathlib import Path

# To pass a directory takes no right to list it, where the system knows the difference.
PASS = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY


def open_real(path: Path, flags: int) -> int:
    """Opens an absolute path without following a link in any component. Returns a descriptor, closed on exec.

    Whoever looked at the path before, links resolved, opens what was looked at: a link that came since is refused.

    Raises:
        OSError: it can't be opened; the message names the component that is a link now.
    """
    *parents, name = path.parts[1:] or (".",)
    directory, passed = os.open("/", PASS | os.O_CLOEXEC), Path("/")
    try:
        for parent in parents:
            passed /= parent
            inner = _open_in(directory, parent, PASS, passed)
            os.close(directory)
            directory = inner
        return _open_in(directory, name, flags, path)
    finally:
        os.close(directory)


def open_real_directory(path: Path) -> int:
    """The same for a directory, which need not be readable: to enter it, and to tell it from others."""
    return open_real(path, PASS)


def _open_in(directory: int, name: str, flags: int, path: Path) -> int:
    if name == "..":
        raise PermissionError(errno.EACCES, f"{path} contains '..'")
    try:
        return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR) and is_link(directory, name):
            raise PermissionError(errno.EACCES, f"{path} was replaced by a link") from None
        raise OSError(error.errno, error.strerror, str(path)) from None


def is_link(directory: int, name: str) -> bool:
    """Whether a name in an open directory is a symbolic link."""
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode)
    except OSError:
        return False
