"""The one writer: a thread that groups the waiting pieces of work into transactions.

A commit with `synchronous=FULL` costs a flush of the disk; work that comes in while one runs shares the next.
"""

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from jobledger.v1.events_pb2 import Event

from jobledger_server.core.audit import take_pending
from jobledger_server.core.ports import InvariantError, StoreUnavailableError
from jobledger_server.stores.sqlite.audit import append_with
from jobledger_server.stores.sqlite.cache import Entry, JobCache
from jobledger_server.stores.sqlite.connection import is_outage, unavailable

P = ParamSpec("P")
T = TypeVar("T")

MAX_GROUP = 512

EventListener = Callable[[Sequence[Event]], None]


@dataclass(slots=True)
class Transaction:
    """What a piece of work writes through, and what it has stored so far.

    Attributes:
        events: those that it has stored.
        cache: jobs as they were before this group, but for those that the group has changed.
        before: jobs as the group has left them so far; None for one of which the file alone knows. `changed`: as this
            piece of work leaves them.
    """

    connection: sqlite3.Connection
    events: list[Event] = field(default_factory=list)
    cache: JobCache = field(default_factory=JobCache)
    before: Mapping[str, Entry | None] = field(default_factory=dict)
    changed: dict[str, Entry | None] = field(default_factory=dict)

    def take(self, job_id: str) -> Entry | None:
        """What is known of a job that is about to change. From here on the file alone knows of it, until `leave`."""
        known = self.before.get(job_id, self.cache.take(job_id))
        known = self.changed.get(job_id, known)
        self.changed[job_id] = None
        return known

    def leave(self, job_id: str, entry: Entry) -> None:
        """Says how the job is from the commit on."""
        self.changed[job_id] = entry


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
        self.cache = JobCache()
        self._connection: sqlite3.Connection | None = None
        self._listeners: list[EventListener] = []
        self._waiting: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self.trouble = ""
        # See `ports.JobStore.revision`.
        self.revision: int | None = 0
        self._revisions = 0
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
        self.cache = JobCache()

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
        pending = take_pending()
        if pending is None:
            return await self._hand_in(lambda transaction: work(transaction, *args, **kwargs))

        def audited(transaction: Transaction) -> tuple[bool, T]:
            before = transaction.connection.total_changes
            answer = work(transaction, *args, **kwargs)
            changed = transaction.connection.total_changes != before
            append_with(transaction.connection, pending.entry, answer, changed=changed)
            return changed, answer

        try:
            changed, answer = await self._hand_in(audited)
        except Exception:  # a caller that is cancelled does not undo what it handed in
            pending.give_back()
            raise
        if not changed:
            pending.give_back()
        return answer

    async def _hand_in(self, run: Callable[[Transaction], T]) -> T:
        future: asyncio.Future[T] = self._loop.create_future()
        self._waiting.put(_Work(run=run, future=future))
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
        done = Transaction(connection, cache=self.cache)
        connection.execute("BEGIN IMMEDIATE")
        if len(group) == 1:
            outcomes = [self._attempt_alone(connection, group[0], done)]
        else:
            outcomes = [self._attempt(connection, work, done) for work in group]
        if connection.in_transaction:
            if done.changed:
                self.revision = None  # from here on, until the commit has returned, nobody can tell what readers see
            connection.execute("COMMIT")
            self._revise()
        self.trouble = ""
        for job_id, entry in done.changed.items():
            if entry is not None:
                self.cache.put(job_id, entry)
        self._announce(done.events, outcomes)

    def _revise(self) -> None:
        """Ends a time without a revision: from here on, what readers see has a new number."""
        if self.revision is None:
            self._revisions += 1
            self.revision = self._revisions

    def _attempt(self, connection: sqlite3.Connection, work: _Work, done: Transaction) -> _Outcome:
        """Runs one piece; where it fails by itself, what it wrote is undone and the others go on."""
        connection.execute("SAVEPOINT work")
        outcome = self._run(connection, work, done)
        if outcome.error is not None:
            connection.execute("ROLLBACK TO work")
        connection.execute("RELEASE work")
        return outcome

    def _attempt_alone(self, connection: sqlite3.Connection, work: _Work, done: Transaction) -> _Outcome:
        """The same where there are no others: then a failure ends the whole transaction."""
        outcome = self._run(connection, work, done)
        if outcome.error is not None:
            connection.execute("ROLLBACK")
        return outcome

    def _run(self, connection: sqlite3.Connection, work: _Work, done: Transaction) -> _Outcome:
        transaction = Transaction(connection, cache=self.cache, before=done.changed)
        try:
            answer = work.run(transaction)
        except Exception as error:
            if isinstance(error, sqlite3.Error) and is_outage(error):
                raise
            return _Outcome(future=work.future, error=_as_ours(error))
        done.events += transaction.events
        done.changed |= transaction.changed
        return _Outcome(future=work.future, answer=answer)

    def _announce(self, events: Sequence[Event], outcomes: Sequence[_Outcome]) -> None:
        # To wake the loop takes longer than most of what it is woken for: once for all of them.
        self._loop.call_soon_threadsafe(self._deliver, events, outcomes)

    def _deliver(self, events: Sequence[Event], outcomes: Sequence[_Outcome]) -> None:
        # A callback for each listener: the loop reports one that raises without harm to the others. Who waits for an
        # answer goes on after them.
        for listener in tuple(self._listeners) if events else ():
            self._loop.call_soon(listener, events)
        for outcome in outcomes:
            outcome.deliver()

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
        self._revise()
        for work in group:
            # One each: a raised exception collects its caller's traceback.
            self._loop.call_soon_threadsafe(_Outcome(future=work.future, error=unavailable(error)).deliver)


def _as_ours(error: Exception) -> Exception:
    """sqlite3's exceptions stay in this package: what is left of them here is a broken constraint."""
    return InvariantError(str(error)) if isinstance(error, sqlite3.Error) else error
