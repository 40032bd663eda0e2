"""A fake server, and a client of it."""

from collections.abc import AsyncIterator

import pytest
from jobledger import Client
from sdk.fake_server import TOKEN, FakeServer


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Nothing of the developer's own settings, or of a server that runs on this machine, reaches a test."""
    for name in ("TARGET", "TOKEN", "TOKEN_FILE"):
        monkeypatch.delenv(f"JOBLEDGER_{name}", raising=False)
    monkeypatch.setenv("JOBLEDGER_DATA_DIR", str(tmp_path_factory.mktemp("nothing")))


@pytest.fixture
async def server() -> AsyncIterator[FakeServer]:
    async with FakeServer() as fake:
        yield fake


@pytest.fixture
async def client(server: FakeServer) -> AsyncIterator[Client]:
    async with Client.connect(server.target, token=TOKEN, timeout=5.0, retry_for=2.0, reconnect_for=5.0) as connected:
        yield connected
