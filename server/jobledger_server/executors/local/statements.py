"""What an attempt states in its control directory, as far as it makes sense.

Where nothing isolates a job it can write there, too. What makes none counts as not stated: whatever is in these files,
it never keeps the server from looking after this job or another.
"""

import contextlib
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from jobledger_server.core.output_names import reason_to_refuse_name
from jobledger_server.core.ports import EndReason, LogSummary, Outcome, ProgressReport
from jobledger_server.executors.local.control_dir import ControlDir
from jobledger_server.executors.local.guarded_files import UnreadableError, as_path, is_finite, read_json
from jobledger_server.executors.local.isolation import LEVELS, NONE
from jobledger_server.executors.local.messages import KINDS, Declaration, Misdeclaration, Progress
from jobledger_server.executors.local.reports import MOST_ARTIFACTS, MOST_MISDECLARED
from jobledger_server.joblog.segments import END_OF_TIME

LAST_MOMENT = END_OF_TIME - 1
LARGEST = 2**63 - 1
# Characters: a receipt must reach clients. What a supervisor says is shorter, but where it names a path.
MOST_MESSAGE = 4096
SHA256 = re.compile("[0-9a-f]{64}")
# What a log is held to where its cap can't be read any more.
LOG_BYTES = 256 * 1024 * 1024


class Launched(NamedTuple):
    """Of what was started, what the server must know to look after it. `timeout_seconds`: None for no limit."""

    log_dir: Path | None
    log_bytes: int
    stdin_open: bool
    timeout_seconds: float | None
    grace_seconds: float


def read_outcome(control: ControlDir) -> Outcome | None:
    """How the attempt ended. To be believed once the lock is free: only then the shim has had the last word.

    That is in `exit.json` where the job has put something else in place of the record, whatever this says; so the first
    that makes sense counts.

    Raises:
        OSError: it can't be read just now.
    """
    for read in (control.read_end, partial(_stated, control.exit)):
        with contextlib.suppress(ValueError, KeyError, TypeError):
            if word := read():
                return _outcome(word, _declarations(control), _level(control))
    return None


def read_progress(control: ControlDir) -> ProgressReport | None:
    """How far the job says it is.

    Raises:
        OSError: it can't be read just now.
    """
    progress = KINDS["progress"](_stated(control.progress))
    return ProgressReport(**progress.fields) if isinstance(progress, Progress) else None


def read_declared(control: ControlDir) -> Sequence[str]:
    """The artifacts that the job declared, in that order, each of them once.

    Raises:
        OSError: they can't be read just now.
    """
    return _declarations(control)[0]


def _declarations(control: ControlDir) -> tuple[Sequence[str], Sequence[str]]:
    """The artifacts that the job declared, and what it declared that none can be called; each of them once."""
    stated = _stated(control.artifacts)
    good: list[str] = []
    bad: list[str] = []
    for path in (*_texts(stated.get("paths"), MOST_ARTIFACTS), *_texts(stated.get("misdeclared"), MOST_MISDECLARED)):
        declared = KINDS["artifact"]({"path": path})
        if isinstance(declared, Declaration) and not reason_to_refuse_name(declared.path):
            good.append(declared.path)
        elif isinstance(declared, Declaration | Misdeclaration):
            bad.append(declared.path)
    return tuple(dict.fromkeys(good)), tuple(dict.fromkeys(bad))[:MOST_MISDECLARED]


def _texts(stated: object, most: int) -> Sequence[str]:
    return [it for it in stated[:most] if isinstance(it, str)] if isinstance(stated, list) else ()


def read_protocol(control: ControlDir) -> int | None:
    """The version of the control protocol under which it was written down.

    Raises:
        OSError: it can't be read just now.
    """
    protocol = _stated(control.spec).get("protocol")
    return protocol if type(protocol) is int else None


def read_launched(control: ControlDir) -> Launched:
    """What was started.

    Raises:
        OSError: it can't be read just now.
    """
    spec = _stated(control.spec)
    log_bytes = spec.get("log_bytes")
    return Launched(
        log_dir=as_path(spec.get("log_dir")),
        log_bytes=log_bytes if type(log_bytes) is int and log_bytes > 0 else LOG_BYTES,
        stdin_open=spec.get("stdin_open") is True,
        timeout_seconds=_seconds(spec.get("timeout_seconds")),
        grace_seconds=_seconds(spec.get("grace_seconds")) or 0.0,
    )


def _stated(path: Path) -> dict[str, Any]:
    try:
        return read_json(path) or {}
    except UnreadableError:
        return {}


def _level(control: ControlDir) -> str:
    isolation = _stated(control.spec).get("isolation")
    level = isolation.get("level") if isinstance(isolation, dict) else None
    return str(level) if level in LEVELS else NONE


def _outcome(word: dict[str, Any], declared: tuple[Sequence[str], Sequence[str]], isolation: str) -> Outcome:
    """Raises ValueError, KeyError or TypeError where it makes no sense."""
    return Outcome(
        reason=EndReason(word["reason"]),
        exit_code=_number_or_none(word.get("exit_code")),
        signal=_number_or_none(word.get("signal")),
        message=_message(word["message"]),
        started_at=_number(word["started_at"], LAST_MOMENT),
        ended_at=_number(word["ended_at"], LAST_MOMENT),
        log=_log(word.get("log", {})),
        declared=declared[0],
        misdeclared=declared[1],
        withheld=tuple(map(_inode, word.get("withheld", ()))),
        ignored_messages=_number(word.get("ignored_messages", 0)),
        isolation=isolation,
    )


def _number(value: object, largest: int = LARGEST) -> int:
    if type(value) is not int or not 0 <= value <= largest:
        raise ValueError(f"not a number from 0 to {largest}")
    return value


def _inode(value: object) -> int:
    # Of 64 bits, the highest among them.
    return _number(value, 2**64 - 1)


def _number_or_none(value: object) -> int | None:
    # Of 32 bits in the API.
    return None if value is None else _number(value, 2**31 - 1)


def _seconds(value: object) -> float | None:
    return float(value) if is_finite(value) else None


def _log(said: dict[str, Any]) -> LogSummary:
    log = LogSummary(**said)
    for count in (log.entries, log.warnings, log.errors):
        _number(count)
    if log.sha256 and not SHA256.fullmatch(log.sha256):
        raise ValueError("what is said to be the log's hash is none")
    return log


def _message(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("the message is not a text")
    text = value.encode("utf-8", "replace").decode()
    return text if len(text) <= MOST_MESSAGE else f"{text[:MOST_MESSAGE]}..."
