"""A fake server, and a client of it; the surroundings of a job."""

import io
import os
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from jobledger import Client
from sdk.control_channel import Supervisor
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


@pytest.fixture
def no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests may themselves run as a job."""
    for name in [name for name in os.environ if name.startswith("JOBLEDGER_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def supervisor(no_job: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Supervisor]:
    control = tmp_path / "control"
    reader = Supervisor(control)
    monkeypatch.setenv("JOBLEDGER_CONTROL", str(control))
    yield reader
    os.close(reader.descriptor)


@pytest.fixture
def stdout(monkeypatch: pytest.MonkeyPatch) -> io.BytesIO:
    """What the job prints."""
    printed = io.BytesIO()
    monkeypatch.setattr(sys, "__stdout__", io.TextIOWrapper(printed))
    return printed
