"""Which files the tools that a job names stand for, when it starts."""

import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

from jobledger_server.core.real_paths import open_real

# Of all of a job's tools together: each start reads them.
MOST_BYTES = 512 * 1024 * 1024
CHUNK = 1024 * 1024


def tool_pins(names: Sequence[str], search: str, *, hidden: Path) -> Mapping[str, str]:
    """`tool:NAME` and what it is: `sha256:` and a hash in hex, a space, the path without links; else why there is none.

    Args:
        names: without a slash, looked for as a shell does.
        search: the job's PATH; what is not absolute in it is passed over.
        hidden: a directory of which nothing is told.
    """
    directories = os.pathsep.join(part for part in search.split(os.pathsep) if part.startswith("/"))
    pins, left = {}, MOST_BYTES
    for name in names:
        found = shutil.which(name, path=directories) if directories else None
        path = Path(found).resolve() if found else None
        if path is None or path.is_relative_to(hidden.resolve()):
            pins[f"tool:{name}"] = "not found"
            continue
        said, read = _file(path, left)
        pins[f"tool:{name}"], left = f"{said} {path}", left - read
    return pins


def _file(path: Path, most: int) -> tuple[str, int]:
    """What is said of it, and how many bytes were read for that."""
    try:
        descriptor = open_real(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_size > most:
                raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
            return f"sha256:{_sha256(descriptor, status.st_size)}", status.st_size
        finally:
            os.close(descriptor)
    except OSError as error:
        return f"unknown ({error.strerror})", 0


def _sha256(descriptor: int, size: int) -> str:
    digest = hashlib.sha256()
    while size > 0 and (chunk := os.read(descriptor, min(size, CHUNK))):
        digest.update(chunk)
        size -= len(chunk)
    return digest.hexdigest()
