"""A fake server, and the program run against it."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cli.program import Outcome, Run, Start
from sdk.fake_server import TOKEN, FakeServer
from support import forking


@pytest.fixture
async def server() -> AsyncIterator[FakeServer]:
    async with FakeServer() as fake:
        yield fake


@pytest.fixture
def env(server: FakeServer, tmp_path: Path) -> dict[str, str]:
    """What the program finds the fake server by."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("JOBLEDGER_")}
    return env | {
        "JOBLEDGER_TARGET": server.target,
        "JOBLEDGER_TOKEN": TOKEN,
        "JOBLEDGER_DATA_DIR": str(tmp_path / "none"),
    }


@pytest.fixture
def start(env: dict[str, str]) -> Start:
    """Starts `jobledger` afresh with these arguments."""

    async def program(*arguments: str) -> asyncio.subprocess.Process:
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "jobledger.cli", *arguments), stdin=pipe, stdout=pipe, stderr=pipe, env=env
        )

    return program


@pytest.fixture
def run(env: dict[str, str]) -> Run:
    """Runs `jobledger` to its end, as a fork (`support.forking`)."""

    async def to_the_end(*arguments: str, stdin: bytes = b"", **settings: str) -> Outcome:
        done = await asyncio.to_thread(forking.run, arguments, {**env, **settings}, stdin=stdin)
        return Outcome(done.returncode, done.stdout, done.stderr)

    return to_the_end
