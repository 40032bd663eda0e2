"""Implementations of the ports, one after the other."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from jobledger_server.core.ports import Store
from stores.backends import BACKENDS, Backend


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    return Backend(name=request.param, directory=tmp_path)


@pytest.fixture
async def store(backend: Backend) -> AsyncIterator[Store]:
    async with backend.open() as store:
        yield store
