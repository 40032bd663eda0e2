"""What goes to the terminal: tables, colours, times, JSON. Nothing that a job wrote can steer the terminal."""

import json
import os
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, TextIO

import click

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from google.protobuf.timestamp_pb2 import Timestamp

COLOURS: Final = {
    "queued": "cyan",
    "running": "blue",
    "cancelling": "yellow",
    "completed": "green",
    "failed": "red",
    "cancelled": "yellow",
    "warn": "yellow",
    "error": "red",
    "ok": "green",
}

BLOCK = 16 * 1024


def one_line(text: str) -> str:
    """The text with control characters made visible, so that it stays on its line and changes no terminal."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char == "\t" else repr(char)[1:-1] for char in text)


def coloured(word: str) -> str:
    """A state or level in its colour, where the output is a terminal and NO_COLOR is not set."""
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
        return word
    return click.style(word, fg=COLOURS.get(word.strip()))


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, colour: int | None = None) -> None:
    """Prints aligned columns.

    Args:
        colour: column of states, to be coloured.
    """
    cells = [[one_line(cell) for cell in row] for row in rows]
    widths = [max(len(row[index]) for row in [list(header), *cells]) for index in range(len(header))]
    for number, row in enumerate([list(header), *cells]):
        padded = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        if colour is not None and number:
            padded[colour] = coloured(padded[colour])
        print("  ".join(padded).rstrip())


def document(value: "Message | Any") -> None:
    """Prints one JSON document."""
    print(json.dumps(_plain(value), indent=2, ensure_ascii=False))


def line(value: "Message | Any") -> None:
    """Prints one JSON value on a line of its own, at once."""
    print(json_line(value), flush=True)


def json_line(value: "Message | Any") -> str:
    """One JSON value as a line."""
    return json.dumps(_plain(value), ensure_ascii=False)


def block(lines: Iterable[str], stream: TextIO | None = None) -> None:
    """Prints lines in one go, at once: a write for each would take most of the time."""
    stream = stream or sys.stdout
    text = "".join(f"{line}\n" for line in lines)
    # Where PYTHONUNBUFFERED is set, what a larger write has left when the reader goes away is dropped without an error.
    for start in range(0, len(text), BLOCK):
        stream.write(text[start : start + BLOCK])
    stream.flush()


def _plain(value: "Message | Any") -> Any:
    from google.protobuf.message import Message

    from jobledger.cli.plain import plain

    return plain(value) if isinstance(value, Message) else value


def note(text: str) -> None:
    """Tells the person something that is no output."""
    for part in text.splitlines():
        print(one_line(part), file=sys.stderr, flush=True)


def span(seconds: float) -> str:
    """`4.2s`, `3m10s`, `5h02m`, `2d03h`"""
    if seconds < 60:
        return f"{max(seconds, 0):.1f}s" if seconds < 10 else f"{seconds:.0f}s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes_left = divmod(minutes, 60)
    days, hours_left = divmod(hours, 24)
    if days:
        return f"{days}d{hours_left:02d}h"
    return f"{hours}h{minutes_left:02d}m" if hours else f"{minutes}m{rest:02d}s"


def seconds_between(start: "Timestamp", end: "Timestamp | None" = None) -> float:
    """Seconds from one instant to another, or to now."""
    ended = datetime.now(UTC) if end is None else end.ToDatetime(tzinfo=UTC)
    return (ended - start.ToDatetime(tzinfo=UTC)).total_seconds()


def clock(instant: "Timestamp") -> str:
    """Local time of day, to the millisecond."""
    return f"{_clock(instant.seconds)}.{instant.nanos // 1_000_000:03d}"


@lru_cache
def _clock(seconds: int) -> str:
    # Of entries that follow each other most are of the same second.
    return f"{datetime.fromtimestamp(seconds, UTC).astimezone():%H:%M:%S}"


def size(count: int) -> str:
    """`712 B`, `4.1 KiB`, `2.0 GiB`"""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def flush() -> None:
    """Writes out what is buffered, so that a reader that went away is noticed here."""
    sys.stdout.flush()


def abandon() -> None:
    """The reader went away: whatever is still buffered goes nowhere, silently."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
