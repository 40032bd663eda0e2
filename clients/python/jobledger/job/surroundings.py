"""What a job finds: its configuration, a place for its output, the last checkpoint."""

import json
import os
from pathlib import Path
from typing import Any

from .channel import variable


def config() -> dict[str, Any]:
    """The job's `config`, as it was submitted; empty where there was none.

    Raises:
        NotAJobError: this is not a job.
        OSError: the file can't be read any more.
    """
    return dict(json.loads(Path(variable("JOBLEDGER_JOB_CONFIG")).read_text("utf-8")))


def restore() -> dict[str, Any] | None:
    """What an attempt before this one said last with `checkpoint`, or this one. None where there is nothing, as outside
    a job.

    Raises:
        OSError, ValueError: the job has made something else of the file.
    """
    path = os.environ.get("JOBLEDGER_CHECKPOINT")
    if not path or not os.path.lexists(path):
        return None
    return dict(json.loads(Path(path).read_text("utf-8")))


def output(path: str | os.PathLike[str]) -> Path:
    """Where to write a file that is to become an artifact. Its directory is there afterwards; the file is not made.

    Args:
        path: relative to the job's output directory, such as `reports/summary.csv`.

    Raises:
        NotAJobError: this is not a job.
        ValueError: it would lie outside the output directory, by `..`, as an absolute path or through a link.
        OSError: its directory can't be made.
    """
    _, target = below_output(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


def below_output(path: str | os.PathLike[str]) -> tuple[Path, Path]:
    """The output directory, and the path in it, both without links.

    Raises:
        NotAJobError, ValueError: as `output`.
    """
    top = Path(variable("JOBLEDGER_OUTPUT_DIR")).resolve()
    target = (top / path).resolve()
    if top not in target.parents:
        raise ValueError(f"{os.fspath(path)!r} does not lie below the output directory: name a relative path in it")
    return top, target
