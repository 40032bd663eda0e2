"""Entries for the job's log."""

import json
import logging
import os
import select
import sys
import traceback
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from .channel import MAX_LINE, line, send

LEVELS: Final = ("trace", "debug", "info", "warn", "warning", "error", "critical", "fatal")
# A deeper payload would cost the whole entry.
MAX_DEPTH = 20
# Cut to this, an entry fits in a line whatever its characters need.
SHORT_MESSAGE, SHORT_NAME = 8000, 256
PATIENCE = 0.1

_STANDARD_FIELDS: Final = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName", "correlation_id"}


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
    if len(line(entry)) >= MAX_LINE:
        entry = _cut(entry)
    said = line({"type": "log", **entry})
    # What is longer would keep others waiting: it goes where there is room.
    if len(said) > select.PIPE_BUF or not send(said, patience=PATIENCE):
        _print(line(entry))


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


def _print(entry: bytes) -> None:
    """Onto the real standard output, wherever `sys.stdout` goes meanwhile.

    Nowhere, if the job has closed it, or is within a write to it that a signal handler interrupts (a RuntimeError).
    """
    if sys.__stdout__ is None:
        return
    with suppress(OSError, ValueError, RuntimeError):
        sys.__stdout__.flush()
        sys.__stdout__.buffer.write(entry)
        sys.__stdout__.buffer.flush()
