"""Files between processes that do not trust each other: read without waiting or following links, replaced whole."""

import contextlib
import errno
import json
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO, TypeGuard, cast

from jobledger_server.core.durable import sync_path

# More than a request to create a job can bring about.
MOST_BYTES = 16 * 1024 * 1024
LARGEST_NUMBER = 2**63
# Never waits for whoever is at the other end of a FIFO, never follows a link.
GUARDED = os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
# What `open` says of something that is no file that we could have written.
FOREIGN = frozenset({errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.ENOTDIR, errno.EACCES})


class UnreadableError(ValueError):
    """A file is not as server and shim write it: somebody else has put something in its place."""


def write_json(path: Path, value: object, *, durable: bool = True) -> None:
    """Replaces a file by a JSON document: readers see the old one or the new one.

    A directory in its place is moved aside: it must keep nobody from asking for an end, or from telling of it.
    """
    text = json.dumps(value)
    try:
        write_text(path, text, durable=durable)
    except IsADirectoryError:
        set_aside(path)
        write_text(path, text, durable=durable)


def write_text(path: Path, text: str, *, durable: bool = True) -> None:
    """Replaces a file by a text. What stands in its place is not followed, nor is anything left where it fails."""
    temporary = path.with_suffix(f".{os.urandom(4).hex()}.tmp")
    try:
        with temporary.open("x", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync_path(path.parent)


def read_json(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file, or None where there is no such file.

    Raises:
        UnreadableError: what is there is not one.
        OSError: it can't be read just now.
    """
    try:
        content = read_bytes(path)
    except FileNotFoundError:
        return None
    try:
        value = json.loads(content.decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError) as error:
        raise UnreadableError(f"{path} is not JSON") from error
    if not isinstance(value, dict):
        raise UnreadableError(f"{path} holds no JSON object")
    return value


def read_bytes(path: Path) -> bytes:
    """What is in a file.

    Raises:
        UnreadableError: it is no file, or larger than any that is written here.
        OSError: it is not there, or can't be read just now.
    """
    with open_guarded(path) as file:
        # No more than it has: whoever reads makes room for all that is asked for.
        content = file.read(min(os.fstat(file.fileno()).st_size, MOST_BYTES) + 1)
    if len(content) > MOST_BYTES:
        raise UnreadableError(f"{path} is larger than {MOST_BYTES} bytes")
    return content


def open_guarded(path: Path, flags: int = os.O_RDONLY, mode: str = "rb") -> BinaryIO:
    """Opens a file without waiting for anybody, and without following a link.

    Args:
        flags: as for `os.open`; `mode`: the same, as for `open`.

    Raises:
        UnreadableError: it is no file.
        OSError: it is not there, or can't be opened just now.
    """
    try:
        descriptor = os.open(path, flags | GUARDED, 0o600)
    except OSError as error:
        if error.errno in FOREIGN:
            raise UnreadableError(f"{path} is not a file that can be opened") from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UnreadableError(f"{path} is not a file")
    return cast("BinaryIO", os.fdopen(descriptor, mode))


def as_path(value: object) -> Path | None:
    """The path that something which was read names; None where it is no text, or names no file of any system."""
    if not isinstance(value, str) or not value or "\0" in value:
        return None
    try:
        os.fsencode(value)
    except UnicodeEncodeError:
        return None
    return Path(value)


def is_finite(value: object) -> TypeGuard[float]:
    """Whether something that was read is a number that can be reckoned with."""
    return isinstance(value, int | float) and -LARGEST_NUMBER < value < LARGEST_NUMBER


def poke(fifo: Path, message: bytes) -> None:
    """Wakes whoever reads a FIFO. Nothing happens where that can't be done: a wake is a hint, and worth no job."""
    with contextlib.suppress(OSError):
        descriptor = os.open(fifo, os.O_WRONLY | GUARDED)
        try:
            if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
                os.write(descriptor, message)
        finally:
            os.close(descriptor)


def open_fifo(path: Path) -> int:
    """Makes a FIFO anew and opens it for reading, so that it never ends and nobody waits to open it."""
    try:
        os.mkfifo(path, 0o600)
    except FileExistsError:
        _clear(path)
        os.mkfifo(path, 0o600)
    return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)


def _clear(path: Path) -> None:
    try:
        path.unlink()
    except IsADirectoryError:
        set_aside(path)


def set_aside(path: Path) -> None:
    """Makes room for a file where somebody has put something else."""
    path.rename(path.with_suffix(f".{os.urandom(4).hex()}.tmp"))
