"""What a job says through its control pipe: one JSON object a line, of at most 64 KiB. Standard library only."""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

# Beyond PIPE_BUF (4096 bytes) a write may be torn by those of other processes; a single writer need not care.
MAX_MESSAGE = 65536
COUNTS = ("items_completed", "items_total")


class Progress(NamedTuple):
    """How far the job says it is: only the fields that it gave."""

    fields: dict[str, Any]


class LogLine(NamedTuple):
    """A structured line for the log, if its level and message are in order."""

    line: bytes


class MessageReader:
    """Cuts what comes through the pipe into messages.

    Attributes:
        ignored: lines that could not be understood.
    """

    def __init__(self) -> None:
        self._held = b""
        self._overlong = False
        self.ignored = 0

    def feed(self, chunk: bytes) -> Iterator[Progress | LogLine]:
        """The messages that `chunk` completes. To be used up before the next call."""
        *lines, self._held = (self._held + chunk).split(b"\n")
        for line in lines:
            if not self._overlong and len(line) < MAX_MESSAGE and (message := _parse(line)):
                yield message
            elif line:
                self.ignored += 1
            self._overlong = False
        if len(self._held) >= MAX_MESSAGE:
            self._held, self._overlong = b"x", True


def _parse(line: bytes) -> Progress | LogLine | None:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        return None
    kind = fields.pop("type", None) if isinstance(fields, dict) else None
    if kind == "log":
        return LogLine(json.dumps(fields, ensure_ascii=True).encode())
    return _progress(fields) if kind == "progress" else None


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
