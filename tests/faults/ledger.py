"""What must hold of a ledger whatever happened to it, read from the database file itself."""

import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

from jobledger.v1.events_pb2 import Event

# Of the states' numbers in the database, 4 and above are terminal.
TERMINAL = 4


def broken_promises(database: Path) -> list[str]:
    """What is wrong with a ledger that nobody writes to now, in words."""
    with closing(sqlite3.connect(database)) as connection:
        states = dict(connection.execute("SELECT job_id, state FROM jobs"))
        events = [(number, Event.FromString(data)) for number, data in connection.execute(EVENTS)]
        return [
            *_damage(connection),
            *_receipts(connection, states),
            *_history(states, [event for _, event in events]),
            *_numbers("events", [number for number, _ in events], first=1),
            *_counts(connection, states),
        ]


EVENTS = "SELECT sequence_number, event FROM events ORDER BY 1"


def _damage(connection: sqlite3.Connection) -> Iterator[str]:
    sound = connection.execute("PRAGMA quick_check").fetchall()
    if sound != [("ok",)]:
        yield f"the file is damaged: {sound}"
    if (orphans := connection.execute("PRAGMA foreign_key_check").fetchall()) != []:
        yield f"rows refer to what is not there: {orphans}"


def _receipts(connection: sqlite3.Connection, states: Mapping[str, int]) -> Iterator[str]:
    """A job has a receipt if it has ended, and the log of receipts a leaf for each."""
    leaves = dict(connection.execute("SELECT job_id, leaf_index FROM receipts"))
    ended = {job_id for job_id, state in states.items() if state >= TERMINAL}
    yield from (f"{job_id} ended without a receipt" for job_id in sorted(ended - leaves.keys()))
    yield from (f"{job_id} has a receipt and has not ended" for job_id in sorted((leaves.keys() & states) - ended))
    yield from _numbers("leaves", sorted(leaves.values()), first=0)


def _history(states: Mapping[str, int], events: list[Event]) -> Iterator[str]:
    """The last event of a job tells its state, and one event alone tells of its end."""
    told: dict[str, int] = {}
    ends: Counter[str] = Counter()
    for event in events:
        if event.HasField("state_changed"):
            told[event.job.job_id] = event.state_changed.new_state
            ends[event.job.job_id] += event.state_changed.new_state >= TERMINAL
    yield from (
        f"{job_id} is in state {state}, its events end with {told.get(job_id)}"
        for job_id, state in states.items()
        if told.get(job_id) != state
    )
    yield from (f"{job_id} ended {count} times" for job_id, count in ends.items() if count > 1)


def _numbers(what: str, numbers: list[int], *, first: int) -> Iterator[str]:
    if numbers != list(range(first, first + len(numbers))):
        yield f"the {what} are not numbered densely: {numbers}"


def _counts(connection: sqlite3.Connection, states: Mapping[str, int]) -> Iterator[str]:
    """The counters that totals come from say what there is."""
    counted = dict(connection.execute("SELECT state, jobs FROM job_counts WHERE jobs > 0"))
    if counted != Counter(states.values()):
        yield f"the counters say {counted}, there are {dict(Counter(states.values()))}"
