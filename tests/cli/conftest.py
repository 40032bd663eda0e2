"""A fake server, and the real program run against it."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cli.program import Outcome, Run, Start
from sdk.fake_server import TOKEN, FakeServer


@pytest.fixture
async def server() -> AsyncIterator[FakeServer]:
    async with FakeServer() as fake:
        yield fake


@pytest.fixture
def start(server: FakeServer, tmp_path: Path) -> Start:
    """Starts `jobledger` with these arguments, the fake server as its server."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("JOBLEDGER_")}
    env |= {"JOBLEDGER_TARGET": server.target, "JOBLEDGER_TOKEN": TOKEN, "JOBLEDGER_DATA_DIR": str(tmp_path / "none")}

    async def program(*arguments: str, **settings: str) -> asyncio.subprocess.Process:
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "jobledger.cli", *arguments),
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            env={**env, **settings},
        )

    return program


@pytest.fixture
def run(start: Start) -> Run:
    """Runs `jobledger` to its end."""

    async def to_the_end(*arguments: str, stdin: bytes = b"", **settings: str) -> Outcome:
        process = await start(*arguments, **settings)
        async with asyncio.timeout(20):
            out, err = await process.communicate(stdin)
        assert process.returncode is not None
        return Outcome(process.returncode, out.decode(), err.decode())

    return to_the_end
