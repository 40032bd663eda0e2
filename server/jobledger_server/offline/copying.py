"""Copies of files that others may be changing, or a job may have put something else in the place of."""

import hashlib
import os
import stat
from pathlib import Path

CHUNK = 1024 * 1024


def copy_file(source: Path, target: Path, *, sha256: str | None = None) -> int | None:
    """Copies a regular file, for its owner alone. Links are not followed, and FIFOs not waited for.

    Args:
        sha256: what its bytes should be.

    Returns:
        Its size in bytes; None where there is no such file; -1 where its bytes are others, and nothing is copied.
    """
    try:
        descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if isinstance(error, FileNotFoundError) or source.is_symlink():
            return None
        raise
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        size, found = _copy(descriptor, target)
    finally:
        os.close(descriptor)
    if sha256 is not None and found != sha256:
        target.unlink()
        return -1
    return size


def copy_blob(source: Path, target: Path, sha256: str) -> int | None:
    """Copies a blob from one directory of blobs to another. Returns what `copy_file` does."""
    place = target / sha256[:2]
    place.mkdir(mode=0o700, exist_ok=True)
    return copy_file(source / sha256[:2] / sha256[2:], place / sha256[2:], sha256=sha256)


def copy_tree(source: Path, target: Path) -> int:
    """Copies the regular files in a directory and below; what is gone meanwhile is left out. Returns their bytes."""
    copied = 0
    if source.is_symlink():
        return copied
    for directory, _, names in os.walk(source):
        place = target / Path(directory).relative_to(source)
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        copied += sum(copy_file(Path(directory) / name, place / name) or 0 for name in names)
    return copied


def _copy(descriptor: int, target: Path) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as file:
        while chunk := os.read(descriptor, CHUNK):
            digest.update(chunk)
            file.write(chunk)
            size += len(chunk)
    return size, digest.hexdigest()
