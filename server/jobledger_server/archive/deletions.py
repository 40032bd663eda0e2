"""Which jobs were deleted: `receipts/deletions.jsonl`, a line for each call, appended to and never rewritten.

A receipt stays in the archive when its job is deleted, and what stands beside it too. So that a recovery does not bring
the job back, this says that it is gone. Each line has a signed note of the log's key (C2SP), since a job that nothing
isolates may write here. The note's first line is no log's name, so that it can't be taken for a checkpoint.
"""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from jobledger_server.core.durable import sync_path
from jobledger_server.core.ports.archive import ArchiveError

FILE = "deletions.jsonl"
SUFFIX = "/deletions"


def deletion_text(origin: str, job_ids: Sequence[str]) -> str:
    """What is signed: whose log it is, and the jobs, a line each."""
    return "".join(f"{line}\n" for line in (f"{origin}{SUFFIX}", *job_ids))


def deleted_jobs(text: str) -> Sequence[str]:
    """The jobs in the text of a note.

    Raises:
        ArchiveError: it is none of these texts.
    """
    head, *job_ids = text.splitlines()
    if not head.endswith(SUFFIX):
        raise ArchiveError("a note that is signed, and tells of no deletions")
    return job_ids


def append_note(directory: Path, note: str) -> None:
    """Adds a signed note, durably.

    Raises:
        OSError: it could not be written; doing so again is safe.
    """
    file = directory / FILE
    is_new = not file.exists()
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "r+b") as opened:
        # What a crash left of a line that nobody was answered goes.
        end = opened.seek(0, os.SEEK_END)
        if end and os.pread(descriptor, 1, end - 1) != b"\n":
            opened.seek(0)
            end = _whole(opened.read())
        opened.truncate(end)
        opened.seek(end)
        opened.write(json.dumps({"note": note}).encode() + b"\n")
        opened.flush()
        os.fsync(opened.fileno())
    if is_new:
        sync_path(directory)


def notes(directory: Path) -> Iterator[str]:
    """The signed notes, in their order, without what a crash cut short. No signature is checked.

    Raises:
        ArchiveError: a line can't be read.
    """
    try:
        data = (directory / FILE).read_bytes()
    except FileNotFoundError:
        return
    for number, line in enumerate(data[: _whole(data)].splitlines(), 1):
        try:
            yield str(json.loads(line)["note"])
        except (ValueError, LookupError, TypeError) as error:
            raise ArchiveError(f"{FILE}, line {number}: it can't be read ({error})") from None


def _whole(data: bytes) -> int:
    return data.rfind(b"\n") + 1
