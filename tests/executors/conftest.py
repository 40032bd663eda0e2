"""An executor over real processes, and the bench that it stands on."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from executors.harness import Lab
from jobledger_server.executors.local.executor import LocalExecutor


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    lab = Lab(tmp_path)
    yield lab
    lab.clear()


@pytest.fixture
async def executor(lab: Lab) -> AsyncIterator[LocalExecutor]:
    async with lab.executor() as executor:
        yield executor
