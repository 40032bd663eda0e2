"""Entries of a log as lines on the terminal, or of JSON."""

from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING

from jobledger.cli import output

if TYPE_CHECKING:
    from jobledger.v1.job_pb2 import LogEntry


def show_entries(entries: "Iterable[LogEntry]", *, as_json: bool) -> None:
    """Prints entries that are there together, in one go, and at once."""
    line_of = output.json_line if as_json else _line
    output.block(map(line_of, entries))


def _line(entry: "LogEntry") -> str:
    """Time of day, level, where it comes from unless that is the output, message."""
    origin = "" if entry.subsystem in ("stdout", "stderr") else f"{output.one_line(entry.subsystem)}: "
    return f"{output.clock(entry.timestamp_utc)} {_level(entry.level)} {origin}{output.one_line(entry.message)}"


@lru_cache
def _level(number: int) -> str:
    from jobledger.v1.job_pb2 import LogLevel
    from jobledger.values import short_name

    return output.coloured(short_name(LogLevel, number).ljust(5))
