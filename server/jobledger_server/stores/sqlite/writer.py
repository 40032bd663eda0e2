"""The one writer: a thread that groups the waiting pieces of work into transactions.

A commit with `synchronous=FULL` costs a flush of the disk; work that comes in while one runs shares the next.
"""

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from jobledger.v1.events_pb2 import Event

from jobledger_server.core.ports import StoreUnavailableError
from jobledger_server.stores.errors import InvariantError
from jobledger_server.stores.sqlite.connection import is_outage, unavailable

P = ParamSpec("P")
T = TypeVar("T")

MAX_GROUP = 512

EventListener = Callable[[Sequence[Event]], None]


@dataclass(slots=True)
class Transaction:
    """What a piece of work writes through, and the events that it has stored so far."""

    connection: sqlite3.Connection
    events: list[Event] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    run: Callable[[Transaction], Any]
    future: asyncio.Future[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outcome:
    """How a piece of work ended: by an answer, or by an exception that is its caller's."""

    future: asyncio.Future[Any]
    answer: Any = None
    error: Exception | None = None

    def deliver(self) -> None:
        if self.future.done():  # the caller was cancelled
            return
        if self.error is None:
            self.future.set_result(self.answer)
        else:
            self.future.set_exception(self.error)


class Writer:
    """Runs work in the order in which it was handed in; answers once it is durable. An async context manager."""

    def __init__(self, *, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connect = connect
        self._connection: sqlite3.Connection | None = None
        self._listeners: list[EventListener] = []
        self._waiting: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self.trouble = ""
        self._closed = False
        # A daemon, so that a server that dies without closing the store is not kept alive by it.
        self._thread = threading.Thread(target=self._serve, name="jobledger-sqlite-writer", daemon=True)

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._thread.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Finishes what was handed in, then ends the thread."""
        self._closed = True
        self._waiting.put(None)
        await asyncio.to_thread(self._thread.join)

    def on_events(self, listener: EventListener) -> None:
        """Calls `listener` in the loop after each commit that stored events, before its callers get their answers."""
        self._listeners.append(listener)

    async def run(self, work: Callable[Concatenate[Transaction, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """What `work` returns, once it is committed.

        Raises:
            StoreUnavailableError: it could not be committed, or the writer is closed.
            Exception: what `work` raised; none of it is stored.
        """
        if self._closed:
            raise StoreUnavailableError("The store is closed")
        future: asyncio.Future[T] = self._loop.create_future()
        self._waiting.put(_Work(run=lambda transaction: work(transaction, *args, **kwargs), future=future))
        return await future

    def _serve(self) -> None:
        while group := self._next_group():
            try:
                self._commit(group)
            except sqlite3.Error as error:
                self._abandon(group, error)
        if self._connection is not None:
            self._connection.close()

    def _next_group(self) -> list[_Work]:
        """Waits for work and takes what is there; empty at the end."""
        group: list[_Work] = []
        work = self._waiting.get()
        while work is not None:
            group.append(work)
            if len(group) == MAX_GROUP:
                return group
            try:
                work = self._waiting.get_nowait()
            except queue.Empty:
                return group
        if group:
            self._waiting.put(None)  # the end comes after this group
        return group

    def _commit(self, group: Sequence[_Work]) -> None:
        connection = self._connection = self._connection or self._connect()
        events: list[Event] = []
        connection.execute("BEGIN IMMEDIATE")
        outcomes = [self._attempt(connection, work, events) for work in group]
        connection.execute("COMMIT")
        self.trouble = ""
        self._announce(events, outcomes)

    def _attempt(self, connection: sqlite3.Connection, work: _Work, events: list[Event]) -> _Outcome:
        """Runs one piece; where it fails by itself, what it wrote is undone and the others go on."""
        transaction = Transaction(connection)
        connection.execute("SAVEPOINT work")
        try:
            answer = work.run(transaction)
        except Exception as error:
            if isinstance(error, sqlite3.Error) and is_outage(error):
                raise
            connection.execute("ROLLBACK TO work")
            connection.execute("RELEASE work")
            return _Outcome(future=work.future, error=_as_ours(error))
        connection.execute("RELEASE work")
        events += transaction.events
        return _Outcome(future=work.future, answer=answer)

    def _announce(self, events: Sequence[Event], outcomes: Sequence[_Outcome]) -> None:
        # A callback each: the loop keeps their order, and reports one that raises without harm to the others.
        if events:
            for listener in tuple(self._listeners):
                self._loop.call_soon_threadsafe(listener, events)
        for outcome in outcomes:
            self._loop.call_soon_threadsafe(outcome.deliver)

    def _abandon(self, group: Sequence[_Work], error: sqlite3.Error) -> None:
        """Undoes what is open and tells every caller; the next group finds a connection that works, or a new one."""
        self.trouble = str(error)
        if self._connection is not None:
            try:
                self._connection.rollback()
            except sqlite3.Error:
                with suppress(sqlite3.Error):
                    self._connection.close()
                self._connection = None
        for work in group:
            # One each: a raised exception collects its caller's traceback.
            self._loop.call_soon_threadsafe(_Outcome(future=work.future, error=unavailable(error)).deliver)


def _as_ours(error: Exception) -> Exception:
    """sqlite3's exceptions stay in this package: what is left of them here is a broken constraint."""
    return InvariantError(str(error)) if isinstance(error, sqlite3.Error) else error
