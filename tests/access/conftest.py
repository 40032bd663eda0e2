"""A store with tokens in it, and a clock that tests set."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from jobledger_server.access.admin import TokenAdmin
from jobledger_server.access.cached_tokens import CachedTokens
from jobledger_server.access.throttle import FailureThrottle
from jobledger_server.access.tokens import Authenticator
from jobledger_server.stores.sqlite import SqliteStore
from support.clock import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    async with SqliteStore(tmp_path / "jobledger.db") as store:
        yield store


@pytest.fixture
def tokens(store: SqliteStore) -> CachedTokens:
    return CachedTokens(store)


@pytest.fixture
def admin(tokens: CachedTokens, clock: ManualClock) -> TokenAdmin:
    return TokenAdmin(tokens=tokens, clock=clock)


@pytest.fixture
def authenticator(tokens: CachedTokens, clock: ManualClock) -> Authenticator:
    return Authenticator(tokens=tokens, clock=clock, throttle=FailureThrottle(clock=clock))
