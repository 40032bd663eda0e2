"""A real store, and a clock that tests set."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from jobledger_server.stores.sqlite import SqliteStore
from support.clock import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    async with SqliteStore(tmp_path / "jobledger.db") as store:
        yield store
