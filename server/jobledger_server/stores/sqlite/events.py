"""Events: numbered in the transaction that stores them, by a counter that outlives their deletion."""

import sqlite3
from collections.abc import Sequence

from jobledger.v1.events_pb2 import Event

from jobledger_server.core.ports import EventBounds
from jobledger_server.stores.sqlite import counters
from jobledger_server.stores.sqlite.writer import Transaction


def append(transaction: Transaction, events: Sequence[Event]) -> None:
    """Stores copies of the events with their numbers, and notes them for the listeners."""
    if not events:
        return
    first = counters.take(transaction.connection, "event", len(events))
    numbered = [_numbered(event, number) for number, event in enumerate(events, first)]
    transaction.connection.executemany(
        "INSERT INTO events (sequence_number, event) VALUES (?, ?)",
        [(event.sequence_number, event.SerializeToString(deterministic=True)) for event in numbered],
    )
    transaction.events += numbered


def after(connection: sqlite3.Connection, sequence: int, *, limit: int) -> Sequence[Event]:
    rows = connection.execute(
        "SELECT event FROM events WHERE sequence_number > ? ORDER BY sequence_number LIMIT ?", (sequence, limit)
    )
    return [Event.FromString(data) for (data,) in rows]


def drop(transaction: Transaction, through: int) -> int:
    return transaction.connection.execute("DELETE FROM events WHERE sequence_number <= ?", (through,)).rowcount


def bounds(connection: sqlite3.Connection) -> EventBounds:
    last = counters.last(connection, "event")
    (first,) = connection.execute("SELECT min(sequence_number) FROM events").fetchone()
    return EventBounds(first=last + 1 if first is None else first, last=last)


def _numbered(event: Event, number: int) -> Event:
    numbered = Event()
    numbered.CopyFrom(event)
    numbered.sequence_number = number
    return numbered
