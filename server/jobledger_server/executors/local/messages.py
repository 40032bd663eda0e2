"""What a job says through its control pipe: one JSON object a line, of at most 64 KiB.

Standard library and `joblog` only.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from jobledger_server.joblog.redaction import NO_SECRETS, Secrets

# Beyond PIPE_BUF (4096 bytes) a write may be torn by those of other processes; a single writer need not care.
MAX_MESSAGE = 65536
MAX_PATH = 1024
COUNTS = ("items_completed", "items_total")


class Progress(NamedTuple):
    """How far the job says it is: only the fields that it gave."""

    fields: dict[str, Any]


class LogLine(NamedTuple):
    """A structured line for the log, if its level and message are in order."""

    line: bytes


class Declaration(NamedTuple):
    """A file that the job is going to leave: path relative to `output/`, without `.` and `..`."""

    path: str


class Misdeclaration(NamedTuple):
    """What was declared, and can't be: its beginning, one character longer than any path."""

    path: str


class Checkpoint(NamedTuple):
    """What the next attempt is to know: a JSON object, as ASCII text."""

    text: str


Message = Progress | LogLine | Declaration | Misdeclaration | Checkpoint


class MessageReader:
    """Cuts what comes through the pipe into messages.

    Attributes:
        ignored: lines that could not be understood.
    """

    def __init__(self, secrets: Secrets = NO_SECRETS) -> None:
        """Reader of messages in which secrets are hidden."""
        self._secrets = secrets
        self._held = b""
        self._overlong = False
        self.ignored = 0

    def feed(self, chunk: bytes) -> Iterator[Message]:
        """The messages that `chunk` completes. To be used up before the next call."""
        *lines, self._held = (self._held + chunk).split(b"\n")
        for line in lines:
            if not self._overlong and len(line) < MAX_MESSAGE and (message := _parse(line, self._secrets)):
                yield message
            elif line:
                self.ignored += 1
            self._overlong = False
        if len(self._held) >= MAX_MESSAGE:
            self._held, self._overlong = b"x", True


def _parse(line: bytes, secrets: Secrets) -> Message | None:
    try:
        fields = json.loads(secrets.hide_in_json(line) if secrets else line)
        kind = fields.pop("type", None) if isinstance(fields, dict) else None
        parse = KINDS.get(kind) if isinstance(kind, str) else None
        return parse(fields) if parse else None
    except (ValueError, RecursionError):
        return None


def _log_line(fields: dict[str, Any]) -> LogLine:
    return LogLine(json.dumps(fields, ensure_ascii=True).encode())


def _declaration(fields: dict[str, Any]) -> Declaration | Misdeclaration | None:
    """None for what is no path. What else no artifact can be called is for the server to tell."""
    path = fields.get("path")
    if not isinstance(path, str):
        return None
    parts = [part for part in path.split("/") if part not in ("", ".")]
    leads_out = path.startswith("/") or ".." in parts or not parts
    if leads_out or len(path) > MAX_PATH or "\\" in path or not path.isprintable():
        return Misdeclaration(path[: MAX_PATH + 1])
    return Declaration("/".join(parts))


def _checkpoint(fields: dict[str, Any]) -> Checkpoint | None:
    """None unless `data` is an object that every reader of JSON takes: NaN and infinities are not."""
    data = fields.get("data")
    return Checkpoint(json.dumps(data, allow_nan=False)) if isinstance(data, dict) else None


def _progress(fields: dict[str, Any]) -> Progress | None:
    """The fields that are known; None where one of them makes no sense."""
    known: dict[str, Any] = {}
    if "progress_percent" in fields:
        fields = {"percent": fields["progress_percent"], **fields}
    if (phase := fields.get("phase")) is not None:
        if not isinstance(phase, str) or len(phase) > 256:
            return None
        known["phase"] = phase.encode("utf-8", "replace").decode()
    for key in ("percent", "eta_seconds", *COUNTS):
        if (value := fields.get(key)) is None:
            continue
        if not _is_quantity(value) or (key in COUNTS and value != int(value)):
            return None
        known[key] = int(value) if key in COUNTS else float(value)
    if known.get("percent", 0) > 100:
        return None
    return Progress(known) if known else None


def _is_quantity(value: object) -> bool:
    """Whether it is a finite number from 0 that fits in 64 bits."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 2**63


KINDS: Final[Mapping[str, Callable[[dict[str, Any]], Message | None]]] = {
    "artifact": _declaration,
    "checkpoint": _checkpoint,
    "log": _log_line,
    "progress": _progress,
}
