"""A store with tokens in it, and a clock that tests set."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from jobledger_server.access.admin import TokenAdmin
from jobledger_server.access.cached_tokens import CachedTokens
from jobledger_server.access.throttle import FailureThrottle
from jobledger_server.access.tokens import Authenticator
from jobledger_server.service.tasks import Tasks
from jobledger_server.stores.sqlite import SqliteStore
from support.clock import ManualClock
from support.issuer import Issuer, issuing
from support.jwt_bench import Bench


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


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with issuing() as issuer:
        yield issuer


@pytest.fixture
async def stranger() -> AsyncIterator[Issuer]:
    """Somebody else's server, which must never be asked for anything."""
    async with issuing() as stranger:
        yield stranger
        assert stranger.asked == []


@pytest.fixture
async def tasks() -> AsyncIterator[Tasks]:
    tasks = Tasks()
    yield tasks
    await tasks.stop()


@pytest.fixture
async def bench(issuer: Issuer, clock: ManualClock, tasks: Tasks) -> Bench:
    return Bench(issuer, clock, tasks)
