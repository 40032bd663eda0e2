"""Implementations of the ports, one after the other."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from executors.harness import Lab
from jobledger_server.core.ports import Store
from jobledger_server.executors.local.executor import LocalExecutor
from jobledger_server.executors.local.isolation import LEVELS
from stores.backends import BACKENDS, Backend


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    return Backend(name=request.param, directory=tmp_path)


@pytest.fixture
async def store(backend: Backend) -> AsyncIterator[Store]:
    async with backend.open() as store:
        yield store


@pytest.fixture(params=LEVELS)
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lab]:
    lab = Lab(tmp_path, level=request.param)
    yield lab
    lab.clear()


@pytest.fixture
async def executor(lab: Lab) -> AsyncIterator[LocalExecutor]:
    async with lab.executor() as executor:
        yield executor
