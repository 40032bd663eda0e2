"""The store on SQLite: one file, one writer, many readers."""

from jobledger_server.stores.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
