"""Which files of a job have a secret in their names: found where the secrets are known. Standard library and `joblog`.

They are told by number (inode), so that what says which they are holds no secret itself.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from jobledger_server.joblog.redaction import Secrets

# A job that leaves more does so on purpose, and this is against accidents.
MOST_LOOKED_AT, MOST_TOLD = 1_000_000, 200_000


def withheld(output_dir: Path, secrets: Secrets) -> list[int]:
    """Inodes of what is under `output/` with a path that holds a secret. What is in such a directory is left out.

    Called when the job's tree is dead. What can't be read is no file that could be collected.
    """
    if not secrets:
        return []
    found: list[int] = []
    for _, (path, inode) in zip(range(MOST_LOOKED_AT), _entries(output_dir, secrets), strict=False):
        if len(found) < MOST_TOLD and secrets.hide_in_text(path) != path:
            found.append(inode)
    return found


def _entries(output_dir: Path, secrets: Secrets) -> Iterator[tuple[str, int]]:
    pending = [""]
    while pending:
        inside = pending.pop()
        try:
            with os.scandir(output_dir / inside) as entries:
                for entry in entries:
                    path = f"{inside}{entry.name}"
                    yield path, entry.inode()
                    if entry.is_dir(follow_symlinks=False) and secrets.hide_in_text(path) == path:
                        pending.append(f"{path}/")
        except OSError:
            continue
