"""For the authors of jobs: say how far the job is, write log entries, learn of cancellation, leave artifacts.

    from jobledger import job

    for row in job.track(rows, phase="reading"):
        job.raise_if_cancelled()
        work(row)

Standard library alone, in this one file. A report never blocks for long and never ends the job: what can't be said is
left out, and a log entry goes to standard output instead. Outside a job, reports do nothing and nothing is ever
cancelled; whatever only a job has raises NotAJobError. All of it may be called from any thread, and after a fork.

    id: str         this job's id, such as `job_01j9...`
    run_id: str     the id of its run, such as `run_01j9...`
    attempt: int    which attempt of the job this is, from 1
"""

import json
import logging
import os
import select
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sized
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, TypeGuard, TypeVar

if TYPE_CHECKING:
    id: str  # noqa: A001 - read as `job.id`
    run_id: str
    attempt: int

__all__ = [
    "CancelledError",
    "LogHandler",
    "NotAJobError",
    "cancelled",
    "config",
    "log",
    "output",
    "progress",
    "raise_if_cancelled",
    "track",
]

LEVELS: Final = ("trace", "debug", "info", "warn", "warning", "error", "critical", "fatal")
# What the reader takes. A longer phase or a deeper payload would cost the whole report.
MAX_LINE, MAX_PHASE, MAX_DEPTH = 64 * 1024 - 1, 256, 20
# Cut to this, an entry fits in MAX_LINE whatever its characters need.
SHORT_MESSAGE, SHORT_NAME = 8000, 256
REPORT_INTERVAL, LOG_PATIENCE = 0.1, 0.1

_IDENTITY: Final = {"id": "JOBLEDGER_JOB_ID", "run_id": "JOBLEDGER_RUN_ID", "attempt": "JOBLEDGER_ATTEMPT"}
_STANDARD_FIELDS: Final = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName", "correlation_id"}

T = TypeVar("T")


class NotAJobError(RuntimeError):
    """This process does not run as a job, so it has no id, configuration or output directory."""


class CancelledError(BaseException):
    """The job was cancelled. Not an Exception, so that a loop that survives faults of its items does not survive it."""


def __getattr__(name: str) -> Any:
    """`id`, `run_id` and `attempt`, read when they are asked for.

    Raises:
        NotAJobError: this is not a job.
    """
    if name not in _IDENTITY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = _variable(_IDENTITY[name])
    return int(value) if name == "attempt" else value


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
        _send(_line({"type": "progress", **report}))


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
    completed, due = 0, monotonic() + REPORT_INTERVAL
    progress(phase=phase, completed=completed, total=total)
    try:
        for item in iterable:
            yield item
            completed += 1
            if monotonic() >= due:
                due = monotonic() + REPORT_INTERVAL
                progress(phase=phase, completed=completed, total=total)
    finally:
        progress(phase=phase, completed=completed, total=total)


def log(
    level: str,
    message: str,
    /,
    *,
    subsystem: str | None = None,
    correlation_id: str | None = None,
    **payload: Any,
) -> None:
    """Writes an entry to the job's log.

    It goes to standard output, as the same JSON line, where the control channel does not take it within a tenth of a
    second, or where it is longer than the channel keeps in one piece (4 KiB on Linux). Entries that go different ways
    may change places.

    Args:
        level: one of `trace`, `debug`, `info`, `warn`, `error`; `warning`, `critical` and `fatal` are understood too.
        message: the text. An entry over 64 KiB is cut, and its payload is `{"truncated": true}`.
        subsystem: part of the job that says it; `control`, or `stdout`, where it is not given.
        correlation_id: what ties entries together.
        payload: any further values. What JSON does not know becomes text.

    Raises:
        ValueError: there is no such level; outside a job too, so that it shows where a script is tried by hand.
    """
    if level not in LEVELS:
        raise ValueError(f"there is no level {level!r}: use one of {', '.join(LEVELS)}")
    _log(level, message, subsystem, correlation_id, payload)


class LogHandler(logging.Handler):
    """Sends the records of `logging` to the job's log: `logging.basicConfig(handlers=[job.LogHandler()])`.

    The logger's name becomes the subsystem; `extra` becomes the payload, but for `correlation_id`, which is the entry's
    own; an exception becomes `payload.exception`: `{type, message, traceback}`. A level between two counts as the lower
    one, below DEBUG as `trace`, CRITICAL as `error`. Formatters are not used. Outside a job it does nothing.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Sends one record. A record whose message can't be formed is told of as by any other handler."""
        try:
            payload = {key: value for key, value in vars(record).items() if key not in _STANDARD_FIELDS}
            if record.exc_info and record.exc_info[1]:
                payload["exception"] = _exception(record.exc_info[1])
            if record.stack_info:
                payload["stack"] = record.stack_info
            correlation_id = getattr(record, "correlation_id", None)
            _log(_level_name(record.levelno), record.getMessage(), record.name, correlation_id, payload)
        except Exception:  # noqa: BLE001 - what `logging` asks of handlers: it reports the fault, and the job goes on
            self.handleError(record)


def cancelled() -> bool:
    """Whether the job was asked to end. Always False outside a job.

    It is so before SIGTERM comes, and the grace period runs: what is not over at its end is killed.
    """
    directory = os.environ.get("JOBLEDGER_JOB_DIR")
    return bool(directory) and os.path.lexists(f"{directory}/cancelled")


def raise_if_cancelled() -> None:
    """Leaves the work where `cancelled()`.

    Raises:
        CancelledError: the job was asked to end.
    """
    if cancelled():
        raise CancelledError("the job was cancelled")


def config() -> dict[str, Any]:
    """The job's `config`, as it was submitted; empty where there was none.

    Raises:
        NotAJobError: this is not a job.
        OSError: the file can't be read any more.
    """
    return dict(json.loads(Path(_variable("JOBLEDGER_JOB_CONFIG")).read_text("utf-8")))


def output(path: str | os.PathLike[str]) -> Path:
    """Where to write a file that is to become an artifact. Its directory is there afterwards; the file is not made.

    Args:
        path: relative to the job's output directory, such as `reports/summary.csv`.

    Raises:
        NotAJobError: this is not a job.
        ValueError: it would lie outside the output directory, by `..`, as an absolute path or through a link.
        OSError: its directory can't be made.
    """
    top = Path(_variable("JOBLEDGER_OUTPUT_DIR")).resolve()
    target = (top / path).resolve()
    if top not in target.parents:
        raise ValueError(f"{os.fspath(path)!r} does not lie below the output directory: name a relative path in it")
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


def _variable(name: str) -> str:
    if value := os.environ.get(name):
        return value
    raise NotAJobError(
        f"{name} is not set: this is not running as a Jobledger job. Start it with `jobledger run`, "
        "or set the variable to try it by hand"
    )


def _log(
    level: str, message: str, subsystem: str | None, correlation_id: str | None, payload: Mapping[str, Any]
) -> None:
    if not os.environ.get("JOBLEDGER_CONTROL"):
        return
    entry: dict[str, Any] = {"level": level, "message": str(message)}
    names = {"subsystem": subsystem, "correlation_id": correlation_id}
    entry |= {key: str(value) for key, value in names.items() if value}
    if payload:
        entry["payload"] = {key: _plain(value) for key, value in payload.items()}
    if len(_line(entry)) > MAX_LINE:
        entry = _cut(entry)
    if not _send(_line({"type": "log", **entry}), patience=LOG_PATIENCE):
        _print(_line(entry))


def _cut(entry: Mapping[str, Any]) -> dict[str, Any]:
    names = {key: entry[key][:SHORT_NAME] for key in ("level", "subsystem", "correlation_id") if key in entry}
    return {**names, "message": entry["message"][:SHORT_MESSAGE], "payload": {"truncated": True}}


def _plain(value: object) -> Any:
    """The value as JSON has it. NaN and infinities become text, as does what is nested too deeply to be read."""
    try:
        text = json.dumps(value, default=str)
        plain = json.loads(text, parse_constant=str)
        return plain if _depth(plain) <= MAX_DEPTH else text
    except Exception:  # noqa: BLE001 - cycles, odd keys, a `__str__` that raises: no reason to end the job
        return f"a {type(value).__name__} that can't be written as JSON"


def _depth(value: object) -> int:
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    return 1 + max(map(_depth, value), default=0) if isinstance(value, list) else 0


def _exception(error: BaseException) -> dict[str, str]:
    text = "".join(traceback.format_exception(error))
    return {"type": type(error).__name__, "message": str(error), "traceback": text}


def _level_name(number: int) -> str:
    bounds = ((logging.ERROR, "error"), (logging.WARNING, "warn"), (logging.INFO, "info"), (logging.DEBUG, "debug"))
    return next((name for bound, name in bounds if number >= bound), "trace")


def _makes_sense(value: float | None) -> TypeGuard[float]:
    return value is not None and 0 <= value < 2**63


def _line(message: Mapping[str, Any]) -> bytes:
    # A lone surrogate, as names of files have them, is no text for the reader.
    return json.dumps(message, ensure_ascii=False).encode("utf-8", "replace") + b"\n"


def _send(line: bytes, *, patience: float = 0.0) -> bool:
    """Whether the control channel took the line within `patience` seconds.

    It is opened anew for each line, so that threads and forks share nothing, a job may close what it did not open, and
    nobody is killed by SIGPIPE for writing to a reader that has long gone. Up to PIPE_BUF bytes go in one piece.
    """
    path = os.environ.get("JOBLEDGER_CONTROL")
    if not path or len(line) > select.PIPE_BUF:
        return False
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return _write(descriptor, line, monotonic() + patience)
    except OSError:
        return False
    finally:
        os.close(descriptor)


def _write(descriptor: int, line: bytes, deadline: float) -> bool:
    room = select.poll()
    room.register(descriptor, select.POLLOUT)
    while True:
        try:
            os.write(descriptor, line)
            return True
        except BlockingIOError:
            left = deadline - monotonic()
            if left <= 0 or not any(found & select.POLLOUT for _, found in room.poll(1000 * left)):
                return False


def _print(line: bytes) -> None:
    """Onto the real standard output, wherever `sys.stdout` goes meanwhile.

    Nowhere, if the job has closed it, or is within a write to it that a signal handler interrupts (a RuntimeError).
    """
    if sys.__stdout__ is None:
        return
    with suppress(OSError, ValueError, RuntimeError):
        sys.__stdout__.flush()
        sys.__stdout__.buffer.write(line)
        sys.__stdout__.buffer.flush()
