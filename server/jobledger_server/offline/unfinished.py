"""What there is on disk, and perhaps runs, of jobs of which no receipt tells: said, ended, moved aside.

Their specification was in the database alone. What their directories say of them is not believed, since a job can write
there; so they can't come back, and nothing of them may go on unseen.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jobledger_server.core.ids import is_job_id
from jobledger_server.executors.local import forsaken
from jobledger_server.executors.local.control_dir import ControlDir

PLACES = ("jobs", "logs")


@dataclass(kw_only=True)
class Unfinished:
    """A job without a receipt: its directories, and the attempts that run."""

    job_id: str
    directories: list[Path] = field(default_factory=list)
    running: list[ControlDir] = field(default_factory=list)
    survived: bool = False


def unfinished_jobs(data_dir: Path, known: Collection[str]) -> Sequence[Unfinished]:
    """Jobs with directories here that are not known, by id."""
    found: dict[str, Unfinished] = {}
    for place in PLACES:
        for directory in sorted((data_dir / place).glob("job_*")):
            if directory.name not in known and is_job_id(directory.name):
                found.setdefault(directory.name, Unfinished(job_id=directory.name)).directories.append(directory)
    for job_id, control in forsaken.attempts(data_dir / "control"):
        if job_id not in known:
            job = found.setdefault(job_id, Unfinished(job_id=job_id))
            job.running += [control] if forsaken.lives(control) else []
    return [found[job_id] for job_id in sorted(found)]


def end_all(jobs: Sequence[Unfinished]) -> None:
    """Ends what runs of them."""
    for job in jobs:
        for control in job.running:
            job.survived |= not forsaken.end(control)


def move_aside(jobs: Sequence[Unfinished], data_dir: Path, stamp: str) -> Path | None:
    """Moves their directories to where no server removes them. Returns where that is; None where there are none."""
    target = data_dir / f"unfinished.before-{stamp}"
    for job in jobs:
        for directory in job.directories:
            place = target / directory.parent.name
            for made in (target, place):
                made.mkdir(mode=0o700, exist_ok=True)
            directory.rename(place / directory.name)
    return target if target.exists() else None


def described(jobs: Sequence[Unfinished]) -> Sequence[Mapping[str, object]]:
    """For JSON."""
    return [
        {
            "job_id": job.job_id,
            "running": bool(job.running),
            "survived": job.survived,
            "directories": [str(directory) for directory in job.directories],
        }
        for job in jobs
    ]
