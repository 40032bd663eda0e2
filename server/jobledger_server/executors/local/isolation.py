"""The levels of isolation: what keeps a job from the files of the server and of other jobs. Standard library only.

A job may read what the user can read, but for the server's data directory. It may write to its own directory, which is
within that, and to the working directory that was named for it. `landlock` and `bwrap` say how each comes about.
"""

from pathlib import Path
from typing import Any, NamedTuple

NONE, LANDLOCK, BWRAP = LEVELS = ("none", "landlock", "bwrap")
TMP = "/tmp"  # noqa: S108 - nothing is put there: it is what a job finds in its place that matters


class IsolationError(Exception):
    """A job, or any job at all, can't be isolated. The message says why, and what to do instead."""


class Isolation(NamedTuple):
    """What an attempt is started under.

    Attributes:
        level: one of `LEVELS`.
        data_dir: what is kept from jobs, with links resolved; empty at level `none`.
        program: path of bwrap, where that is the level.
    """

    level: str = NONE
    data_dir: str = ""
    program: str = ""


NO_ISOLATION = Isolation()


def isolation_of(spec: dict[str, Any]) -> Isolation:
    """What an attempt's `spec.json` says; of one that is older than isolation: none."""
    return Isolation(**spec.get("isolation", {}))


def private_temp(isolation: Isolation, job_dir: Path) -> dict[str, str]:
    """The variable by which a job finds its own directory for temporary files; nothing where it needs none."""
    if isolation.level == NONE:
        return {}
    return {"TMPDIR": TMP if isolation.level == BWRAP else str(job_dir / "temp")}


def writable(isolation: Isolation, job_dir: str, working_dir: str) -> list[Path]:
    """The directories that a job may write to, without links: its own, and its working directory.

    Args:
        working_dir: without links; one that is there now is not to be followed, so it is not looked at here.

    Raises:
        IsolationError: to write there is to write to the server's own files.
    """
    job, data, work = Path(job_dir).resolve(), Path(isolation.data_dir).resolve(), Path(working_dir)
    if work.is_relative_to(job):
        return [job]
    if work.is_relative_to(data):
        raise IsolationError(
            f"the working directory {working_dir} lies in the server's data directory, which no job may enter: "
            "name another one"
        )
    if isolation.level == LANDLOCK and data.is_relative_to(work):
        raise IsolationError(
            f"the working directory {working_dir} holds the server's data directory, which can't be excepted: "
            "name a directory within it"
        )
    return [job, work]


def objection(isolation: Isolation, job_dir: Path, working_dir: str) -> str | None:
    """Why a job may not have that working directory; None where it may."""
    if isolation.level == NONE:
        return None
    try:
        writable(isolation, str(job_dir), working_dir)
    except IsolationError as error:
        return str(error)
    return None


def hides(isolation: Isolation, job_dir: str, working_dir: str, path: Path) -> bool:
    """Whether a job can't read a path that the server can, as far as names tell."""
    real = path.resolve()
    if any(real.is_relative_to(place) for place in writable(isolation, job_dir, working_dir)):
        return False
    hidden = [isolation.data_dir, *([TMP] if isolation.level == BWRAP else [])]
    return any(real.is_relative_to(Path(place).resolve()) for place in hidden)
