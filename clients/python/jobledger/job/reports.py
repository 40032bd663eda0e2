"""What a job says of itself: how far it is, what it is going to leave, what its next attempt is to know."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sized
from time import monotonic
from typing import Any, TypeGuard, TypeVar

from .channel import MAX_LINE, line, send
from .surroundings import below_output

# A longer phase would cost the whole report.
MAX_PHASE = 256
INTERVAL = 0.1
# How long to wait for room for what is said once, and for what the next attempt depends on.
PATIENCE, CHECKPOINT_PATIENCE = 0.1, 1.0

T = TypeVar("T")


def progress(
    percent: float | None = None,
    *,
    phase: str | None = None,
    completed: int | None = None,
    total: int | None = None,
    eta_seconds: float | None = None,
) -> None:
    """Says how far the job is. What is not given stays as it was said before.

    A number that makes no sense here (negative, infinite, NaN) is left out. Only the latest of many reports counts, and
    one that finds no room is dropped.

    Args:
        percent: 0 to 100; more counts as 100. Taken from `completed` and `total` where it is not given.
        phase: what the job is doing, in up to 256 characters.
        completed: items that are done.
        total: items that there are.
        eta_seconds: seconds until it is likely to be done.
    """
    if percent is None and completed is not None and total:
        percent = 100 * completed / total
    counts = {"items_completed": completed, "items_total": total}
    measures = {"percent": percent, "eta_seconds": eta_seconds}
    report: dict[str, Any] = {key: int(count) for key, count in counts.items() if _makes_sense(count)}
    report |= {key: float(measure) for key, measure in measures.items() if _makes_sense(measure)}
    if "percent" in report:
        report["percent"] = min(report["percent"], 100.0)
    if phase is not None:
        report["phase"] = str(phase)[:MAX_PHASE]
    if report:
        send(line({"type": "progress", **report}))


def track(iterable: Iterable[T], *, phase: str | None = None, total: int | None = None) -> Iterator[T]:
    """The items of `iterable`, with reports of progress as they are used up: before the first, at most 10 a second, and
    at the end, however the loop is left.

    Args:
        iterable: what to go through.
        phase: what the job is doing, in up to 256 characters.
        total: how many items there are; not needed where `iterable` has a length. Without it no percentage is told.
    """
    if total is None and isinstance(iterable, Sized):
        total = len(iterable)
    completed, due = 0, monotonic() + INTERVAL
    progress(phase=phase, completed=completed, total=total)
    try:
        for item in iterable:
            yield item
            completed += 1
            if monotonic() >= due:
                due = monotonic() + INTERVAL
                progress(phase=phase, completed=completed, total=total)
    finally:
        progress(phase=phase, completed=completed, total=total)


def artifact(path: str | os.PathLike[str]) -> None:
    """Says that the job is going to leave this file, so that those who watch see it as `pending`.

    At the end of the job it is collected, whatever the job's `artifacts` name; where it is not there, it counts as
    failed. Files that are not declared are collected too, as far as `artifacts` name them. 1,000 can be declared.

    Args:
        path: relative to the job's output directory, or below it, as `output` answers.

    Raises:
        ValueError: it lies outside the output directory.
    """
    if not os.environ.get("JOBLEDGER_OUTPUT_DIR"):
        return
    top, target = below_output(path)
    send(line({"type": "artifact", "path": target.relative_to(top).as_posix()}), patience=PATIENCE)


def checkpoint(data: Mapping[str, Any], /) -> None:
    """Has the job's supervisor keep what the next attempt needs in order to go on: see `restore`.

    Only the latest of many counts: it is on disk a tenth of a second later, and at the end of the attempt in any case.

    Args:
        data: what JSON knows, in less than 64 KiB. More belongs into a file in the job's directory, and its name here.

    Raises:
        TypeError, ValueError: JSON does not know it, or it is too long; outside a job too, so that it shows where a
            script is tried by hand.
    """
    # In ASCII: any text comes back as it was, names of files among them that are no UTF-8.
    said = json.dumps({"type": "checkpoint", "data": dict(data)}, allow_nan=False).encode() + b"\n"
    if len(said) > MAX_LINE:
        raise ValueError(f"a checkpoint of {len(said)} bytes is too long: keep it in a file, and its name here")
    send(said, patience=CHECKPOINT_PATIENCE)


def _makes_sense(value: float | None) -> TypeGuard[float]:
    return value is not None and 0 <= value < 2**63
