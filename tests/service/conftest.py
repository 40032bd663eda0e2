"""A real store, a clock that tests set, and a server over an executor that does what they say."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from jobledger_server.core import beneath
from jobledger_server.stores.sqlite import SqliteStore
from support.clock import ManualClock
from support.executors import ScriptedExecutor
from support.services import Services, serving


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    async with SqliteStore(tmp_path / "jobledger.db") as store:
        yield store


@pytest.fixture
def executor(clock: ManualClock) -> ScriptedExecutor:
    return ScriptedExecutor(clock=clock)


@pytest.fixture
def most() -> int:
    """Jobs that run at a time."""
    return 2


@pytest.fixture
async def served(
    tmp_path: Path, store: SqliteStore, clock: ManualClock, executor: ScriptedExecutor, most: int
) -> AsyncIterator[Services]:
    async with serving(tmp_path, store=store, clock=clock, executor=executor, most=most) as served:
        yield served


@pytest.fixture(params=["openat2", "step by step"])
def opening(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """For what holds however files are opened."""
    if request.param == "step by step":
        monkeypatch.setattr(beneath, "_syscall", lambda: None)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """The output directory of a job."""
    output = tmp_path / "job" / "output"
    output.mkdir(parents=True)
    return output
