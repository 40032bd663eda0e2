"""The implementations that the contract suite runs on, by name, so that a process started by a test finds them too."""

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

from jobledger_server.core.ports import Store
from jobledger_server.stores.sqlite import SqliteStore

BACKENDS = ("sqlite",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """A place where a store is kept. Opening it again finds what was stored before."""

    name: str
    directory: Path

    def open(self) -> AbstractAsyncContextManager[Store]:
        if self.name == "sqlite":
            return SqliteStore(self.directory / "jobledger.db")
        raise ValueError(f"no backend is named {self.name}")
