"""Reading beside the writer: a few threads, each query on a connection and a snapshot of its own."""

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Concatenate, ParamSpec, Self, TypeVar

from jobledger_server.core.ports import StoreUnavailableError
from jobledger_server.stores.sqlite.connection import unavailable

P = ParamSpec("P")
T = TypeVar("T")

# Steps of SQLite's machine, a few milliseconds' worth, between looks at whether the caller still waits.
STEPS_BETWEEN_LOOKS = 200_000


class Readers:
    """Runs queries off the event loop. An async context manager."""

    def __init__(self, *, connect: Callable[[], sqlite3.Connection], count: int) -> None:
        self._connect = connect
        self._count = count
        # As many connections as threads: a thread never waits for one.
        self._idle: queue.SimpleQueue[sqlite3.Connection] = queue.SimpleQueue()
        self._threads = ThreadPoolExecutor(max_workers=count, thread_name_prefix="jobledger-sqlite-reader")
        self._closed = False

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self._open)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closed = True
        await asyncio.to_thread(self._close)

    async def run(
        self, query: Callable[Concatenate[sqlite3.Connection, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """What `query` returns; all that it reads is of one snapshot. Cancelled, it stops reading.

        Raises:
            StoreUnavailableError: the database can't be read, or the readers are closed.
        """
        if self._closed:
            raise StoreUnavailableError("The store is closed")
        caller_gone = threading.Event()
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._threads, self._read, lambda connection: query(connection, *args, **kwargs), caller_gone
            )
        finally:
            caller_gone.set()

    def _read(self, query: Callable[[sqlite3.Connection], T], caller_gone: threading.Event) -> T:
        connection = self._idle.get()
        # Not `interrupt()`: that might hit the connection's next query, or fall between two statements of this one.
        connection.set_progress_handler(caller_gone.is_set, STEPS_BETWEEN_LOOKS)
        try:
            return _in_snapshot(connection, query)
        except sqlite3.Error as error:
            raise unavailable(error) from error
        finally:
            connection.set_progress_handler(None, 0)
            self._idle.put(connection)

    def _open(self) -> None:
        try:
            for _ in range(self._count):
                self._idle.put(self._connect())
        except sqlite3.Error as error:
            self._close()
            raise unavailable(error) from error

    def _close(self) -> None:
        self._threads.shutdown()
        while not self._idle.empty():
            self._idle.get().close()


def _in_snapshot(connection: sqlite3.Connection, query: Callable[[sqlite3.Connection], T]) -> T:
    connection.execute("BEGIN")
    try:
        return query(connection)
    finally:
        connection.rollback()
