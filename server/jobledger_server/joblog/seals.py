"""Seals: the hashes of a segment's files, taken when nothing more is written to them, so that damage shows.

`00000001.seal` is what `sha256sum 00000001.data 00000001.index` prints, so that `sha256sum --check *.seal` in the log's
directory needs nothing of ours. Standard library only.
"""

import hashlib
from pathlib import Path

from jobledger_server.joblog.segments import DATA, INDEX, SEAL, DamagedLogError, segment_path


def write_seal(log_dir: Path, number: int) -> None:
    """Seals a segment. One that can't be written whole does not count as a seal: seal again.

    Raises:
        OSError: it can't be written.
    """
    seal_path(log_dir, number).write_bytes(_hashes(log_dir, number))


def seal_path(log_dir: Path, number: int) -> Path:
    """Where a segment's seal is, or would be."""
    return segment_path(log_dir, number, SEAL)


def seal_bytes(number: int) -> int:
    """Size of a segment's seal."""
    return sum(len(_line("0" * 64, segment_path(Path(), number, suffix))) for suffix in (DATA, INDEX))


def is_sealed(log_dir: Path, number: int) -> bool:
    """Whether a segment has a whole seal."""
    try:
        return seal_path(log_dir, number).stat().st_size == seal_bytes(number)
    except FileNotFoundError:
        return False


def seal_holds(log_dir: Path, number: int) -> bool | None:
    """Whether a segment is as it was when it was sealed; None where it has no seal."""
    if not is_sealed(log_dir, number):
        return None
    try:
        return seal_path(log_dir, number).read_bytes() == _hashes(log_dir, number)
    except FileNotFoundError:
        return False


def damaged(log_dir: Path, number: int, found: str) -> DamagedLogError:
    """The error for a segment that does not fit together, in itself or with its neighbours, and what the seals say.

    Args:
        found: what is wrong with it.
    """
    for suspect in (number, number - 1, number + 1):
        if seal_holds(log_dir, suspect) is False:
            name = segment_path(log_dir, suspect, "")
            return DamagedLogError(f"{name} was changed after it was sealed ({found}): restore it from a backup")
    name = segment_path(log_dir, number, "")
    if is_sealed(log_dir, number):
        return DamagedLogError(f"{name}: {found}, though it is as it was sealed: report this as a bug")
    return DamagedLogError(f"{name}: {found}. It has no seal to be checked against: restore it from a backup")


def _hashes(log_dir: Path, number: int) -> bytes:
    lines = []
    for suffix in (DATA, INDEX):
        path = segment_path(log_dir, number, suffix)
        with path.open("rb") as file:
            lines.append(_line(hashlib.file_digest(file, "sha256").hexdigest(), path))
    return b"".join(lines)


def _line(digest: str, path: Path) -> bytes:
    return f"{digest}  {path.name}\n".encode()
