"""Opening the database file, and what SQLite's errors mean to a person."""

import sqlite3
from pathlib import Path

from jobledger_server.core.ports import StoreUnavailableError
from jobledger_server.stores.errors import SchemaError

# STRICT tables came with 3.37.
OLDEST_SQLITE = (3, 37, 0)

ADVICE = {
    "SQLITE_FULL": "The database's disk is full: free some space",
    "SQLITE_IOERR": "Reading or writing the database file failed: check the disk and the system's log",
    "SQLITE_BUSY": "Another process holds the database's write lock: wait for it, or end it",
    "SQLITE_LOCKED": "Another process holds the database's write lock: wait for it, or end it",
    "SQLITE_CORRUPT": "The database file is damaged: stop the server and run `jobledger recover`",
    "SQLITE_NOTADB": "The file is not a Jobledger database: take another data directory, or run `jobledger recover`",
    "SQLITE_READONLY": "The database file can't be written: check its owner, its permissions and the file system",
    "SQLITE_CANTOPEN": "The database file can't be opened: check that its directory exists and is writable",
}


def require_sqlite(version: tuple[int, int, int] = sqlite3.sqlite_version_info) -> None:
    """Raises SchemaError where the SQLite library is too old."""
    if version < OLDEST_SQLITE:
        have, need = (".".join(map(str, numbers)) for numbers in (version, OLDEST_SQLITE))
        raise SchemaError(f"This Python brings SQLite {have}; use one with SQLite {need} or later")


def connect(path: Path, *, busy_timeout: float, query_only: bool = False) -> sqlite3.Connection:
    """A connection in autocommit mode, so that every transaction is begun and ended in plain sight.

    Args:
        path: the database file; it is made where there is none.
        busy_timeout: seconds to wait for another process's lock.
        query_only: whether writing is refused.

    Raises:
        sqlite3.Error: it can't be opened.
    """
    # The pools hand connections from thread to thread, one at a time.
    connection = sqlite3.connect(path, timeout=busy_timeout, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute(f"PRAGMA query_only = {int(query_only)}")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def is_outage(error: sqlite3.Error) -> bool:
    """Whether it tells of the machine (disk, locks, damage), not of what was asked."""
    return isinstance(error, sqlite3.OperationalError) or type(error) is sqlite3.DatabaseError


def unavailable(error: sqlite3.Error) -> StoreUnavailableError:
    """The same in words that say what to do; the original stands at its end."""
    # Extended codes such as SQLITE_IOERR_FSYNC begin with the plain one.
    name = getattr(error, "sqlite_errorname", "")
    advice = next((text for code, text in ADVICE.items() if name.startswith(code)), "The database refused")
    return StoreUnavailableError(f"{advice} ({name or type(error).__name__}: {error})")
