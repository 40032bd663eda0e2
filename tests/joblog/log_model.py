"""A log as its documentation tells it, in the simplest way: a list."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Struct
from jobledger.v1.job_pb2 import LogEntry
from jobledger_server.joblog.segments import STREAM_LEVELS, Stream
from jobledger_server.joblog.structured import LEVEL_NAMES

LIMIT = 64 * 1024


@dataclass
class Entry:
    sequence: int
    level: int
    subsystem: str
    message: str


@dataclass
class LogModel:
    """Takes the chunks that the writer takes."""

    entries: list[Entry] = field(default_factory=list)
    content: bytes = b""
    held: dict[Stream, bytes] = field(default_factory=lambda: {Stream.STDOUT: b"", Stream.STDERR: b""})

    def write(self, stream: Stream, chunk: bytes) -> None:
        *lines, self.held[stream] = (self.held[stream] + chunk).split(b"\n")
        for line in lines:
            self._line(stream, line, b"\n")

    def end(self) -> None:
        for stream, line in self.held.items():
            if line:
                self._line(stream, line, b"")

    def _line(self, stream: Stream, line: bytes, newline: bytes) -> None:
        self.content += line + newline
        level, subsystem, message = STREAM_LEVELS[stream], stream.name.lower(), line.decode("utf-8", "replace")
        if line.startswith(b"{"):
            try:
                fields = json.loads(line)
                level, message = LEVEL_NAMES[fields["level"].lower()], fields["message"]
                subsystem = fields.get("subsystem", subsystem)
            except (ValueError, KeyError):
                pass
        self.entries.append(Entry(len(self.entries) + 1, level, subsystem, message))

    def select(self, levels: Iterable[int], subsystem: str | None, contains: str | None) -> list[Entry]:
        wanted = set(levels) or set(LEVEL_NAMES.values())
        return [
            entry
            for entry in self.entries
            if entry.level in wanted
            and subsystem in {None, entry.subsystem}
            and (contains is None or contains in entry.message)
        ]


def payload(entry: LogEntry) -> dict[str, Any]:
    """What an entry carries."""
    fields: dict[str, Any] = MessageToDict(entry.payload)
    return {key: int(value) if isinstance(value, float) else value for key, value in fields.items()}


def from_line(line: bytes) -> tuple[int, str, str, str | None, Struct | None]:
    """Level, message, subsystem, correlation_id and payload of an entry of stdout that is a JSON object."""
    fields = json.loads(line, parse_int=_exact)
    level, message = LEVEL_NAMES[fields.pop("level").lower()], fields.pop("message")
    texts = {}
    for key in ("subsystem", "correlation_id"):
        if isinstance(fields.get(key), str) and fields[key]:
            texts[key] = fields.pop(key)
    carried = fields
    if isinstance(fields.get("payload"), dict):
        own = fields.pop("payload")
        carried = fields | own
        has_payload = True
    else:
        has_payload = bool(fields)
    if "continued" in carried:
        # What the engine says of a piece of a line is not for a line to say.
        quoted = {key: carried.pop(key) for key in ("continued", "quoted") if key in carried}
        carried["quoted"] = quoted
    payload = None
    if has_payload:
        payload = Struct()
        payload.update(carried)
    return level, message, texts.get("subsystem", "stdout"), texts.get("correlation_id"), payload


def _exact(digits: str) -> int | str:
    return int(digits) if abs(int(digits)) <= 2**53 else digits
