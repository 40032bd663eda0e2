"""Numbers that are given once: a row each, raised in the transaction that uses them."""

import sqlite3
from typing import Literal

Counter = Literal["event", "artifact"]


def take(connection: sqlite3.Connection, counter: Counter, count: int) -> int:
    """The first of `count` consecutive new numbers, from 1 on."""
    (last,) = connection.execute(
        "UPDATE counters SET last = last + ? WHERE name = ? RETURNING last", (count, counter)
    ).fetchone()
    first: int = last - count + 1
    return first


def last(connection: sqlite3.Connection, counter: Counter) -> int:
    """The last number that was given; 0 where none was."""
    (number,) = connection.execute("SELECT last FROM counters WHERE name = ?", (counter,)).fetchone()
    return int(number)
