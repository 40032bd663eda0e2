"""The writer: groups, savepoints, failing commits, the end."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from jobledger.v1.events_pb2 import Event
from jobledger_server.core.ports import InvariantError, StoreUnavailableError
from jobledger_server.stores.sqlite.connection import connect
from jobledger_server.stores.sqlite.writer import Transaction, Writer


class Bench:
    """A writer over a table of one column, whose statements can be watched and made to fail."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.statements: list[str] = []
        self.fail_on: set[str] = set()
        self.opened = 0
        with closing(connect(path, busy_timeout=0)) as connection:
            connection.execute("CREATE TABLE t (x INTEGER UNIQUE) STRICT")

    def connect(self) -> sqlite3.Connection:
        self.opened += 1
        bench = self

        class Watched(sqlite3.Connection):
            def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
                bench.statements.append(sql)
                if sql in bench.fail_on:
                    raise sqlite3.OperationalError("disk I/O error")
                return super().execute(sql, *parameters)

            def rollback(self) -> None:
                self.execute("ROLLBACK")

        return sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=0, factory=Watched)

    @property
    def commits(self) -> int:
        return self.statements.count("COMMIT")

    def rows(self) -> list[int]:
        with closing(connect(self.path, busy_timeout=0)) as connection:
            return [x for (x,) in connection.execute("SELECT x FROM t ORDER BY x")]


def add(transaction: Transaction, x: int) -> int:
    transaction.connection.execute("INSERT INTO t (x) VALUES (?)", (x,))
    transaction.events.append(Event(sequence_number=x))
    return x


def add_then_raise(transaction: Transaction, x: int) -> None:
    add(transaction, x)
    raise LookupError(x)


def wait_for(transaction: Transaction, started: threading.Event, go_on: threading.Event) -> None:
    started.set()
    assert go_on.wait(10)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "writer.db")


@pytest.fixture
async def writer(bench: Bench) -> AsyncIterator[Writer]:
    async with Writer(connect=bench.connect) as writer:
        yield writer


async def grouped(writer: Writer, *work: Any) -> list[Any]:
    """Hands in pieces of work while the writer is busy, so that they share one transaction."""
    started, go_on = threading.Event(), threading.Event()
    busy = asyncio.ensure_future(writer.run(wait_for, started, go_on))
    await asyncio.to_thread(started.wait, 10)
    waiting = asyncio.gather(*(writer.run(*piece) for piece in work), return_exceptions=True)
    await asyncio.sleep(0)  # lets each hand in its work
    go_on.set()
    await asyncio.gather(busy, return_exceptions=True)
    return await waiting


async def test_work_that_waits_shares_one_commit(writer: Writer, bench: Bench) -> None:
    assert await grouped(writer, *((add, x) for x in range(50))) == list(range(50))
    assert bench.commits == 2  # of what kept the writer busy, and of the fifty
    assert bench.rows() == list(range(50))


async def test_work_is_done_in_the_order_in_which_it_was_handed_in(writer: Writer) -> None:
    order: list[int] = []
    await grouped(writer, *((lambda _, x: order.append(x), x) for x in range(50)))
    assert order == list(range(50))


async def test_work_that_fails_is_undone_alone(writer: Writer, bench: Bench) -> None:
    heard: list[Event] = []
    writer.on_events(heard.extend)
    outcomes = await grouped(writer, (add, 1), (add_then_raise, 2), (add, 1), (add, 3))
    assert outcomes[0::3] == [1, 3]
    assert isinstance(outcomes[1], LookupError)
    assert isinstance(outcomes[2], InvariantError), "sqlite3's own exceptions stay inside"
    assert bench.rows() == [1, 3]
    assert [event.sequence_number for event in heard] == [1, 3]


@pytest.mark.parametrize("statement", ["BEGIN IMMEDIATE", "COMMIT", "RELEASE work"])
async def test_when_a_transaction_fails_every_caller_hears_and_nothing_is_stored(
    writer: Writer, bench: Bench, statement: str
) -> None:
    heard: list[Event] = []
    writer.on_events(heard.extend)
    started, go_on = threading.Event(), threading.Event()
    before = asyncio.create_task(writer.run(wait_for, started, go_on))
    await asyncio.to_thread(started.wait)
    bench.fail_on = {statement}
    together = asyncio.gather(*(writer.run(add, x) for x in range(5)), return_exceptions=True)
    await asyncio.sleep(0)
    go_on.set()
    outcomes = await together
    await asyncio.gather(before, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [StoreUnavailableError] * 5
    assert "disk I/O error" in str(outcomes[0])
    assert (bench.rows(), heard) == ([], [])
    bench.fail_on = set()
    assert await writer.run(add, 7) == 7
    assert bench.rows() == [7]


async def test_a_connection_that_can_not_be_rolled_back_is_replaced(writer: Writer, bench: Bench) -> None:
    bench.fail_on = {"COMMIT", "ROLLBACK"}
    with pytest.raises(StoreUnavailableError):
        await writer.run(add, 1)
    bench.fail_on = set()
    assert await writer.run(add, 2) == 2
    assert (bench.opened, bench.rows()) == (2, [2])


async def test_a_database_that_can_not_be_opened_is_tried_again(bench: Bench, tmp_path: Path) -> None:
    path, bench.path = bench.path, tmp_path / "nowhere" / "writer.db"
    async with Writer(connect=bench.connect) as writer:
        with pytest.raises(StoreUnavailableError, match="can't be opened"):
            await writer.run(add, 1)
        bench.path = path
        assert await writer.run(add, 1) == 1


async def test_each_caller_hears_of_a_commit_after_the_listeners_and_before_the_next_commit(writer: Writer) -> None:
    told: list[str] = []
    writer.on_events(lambda events: told.extend(f"event {event.sequence_number}" for event in events))

    async def call(x: int) -> None:
        await writer.run(add, x)
        told.append(f"answer {x}")

    for x in range(3):
        await call(x)
    assert told == ["event 0", "answer 0", "event 1", "answer 1", "event 2", "answer 2"]


async def test_a_caller_that_gave_up_harms_nobody(writer: Writer, bench: Bench) -> None:
    """Its work is done all the same: it was handed in."""
    started, go_on = threading.Event(), threading.Event()
    busy = asyncio.ensure_future(writer.run(wait_for, started, go_on))
    await asyncio.to_thread(started.wait, 10)
    gone, stays = asyncio.ensure_future(writer.run(add, 1)), asyncio.ensure_future(writer.run(add, 2))
    await asyncio.sleep(0)  # lets each hand in its work
    gone.cancel()
    go_on.set()
    await busy
    assert await stays == 2
    assert gone.cancelled()
    assert bench.rows() == [1, 2]


async def test_what_was_handed_in_before_the_end_is_done(bench: Bench) -> None:
    async with Writer(connect=bench.connect) as writer:
        waiting = [asyncio.ensure_future(writer.run(add, x)) for x in range(20)]
        await asyncio.sleep(0)  # lets each hand in its work
    assert await asyncio.gather(*waiting) == list(range(20))
    assert bench.rows() == list(range(20))


async def test_after_the_end_nothing_is_taken(bench: Bench) -> None:
    async with Writer(connect=bench.connect) as writer:
        await writer.run(add, 1)
    with pytest.raises(StoreUnavailableError, match="closed"):
        await writer.run(add, 2)
