"""A real server for one test, whose ledger is looked at when it has stopped."""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import NoReturn

import grpc
import pytest
from faults.ledger import broken_promises
from support.doors import GrpcDoor
from support.eventually import eventually
from support.running import RunningServer, start

WAITS = 'while [ ! -e "$GATE" ]; do sleep 0.05; done; rm "$GATE"'


@contextmanager
def served(data_dir: Path, *flags: str, afresh: bool = False) -> Iterator[RunningServer]:
    """A server; at the end it stops, its jobs with it, and what it has written is looked at."""
    server = start(data_dir, "--stop-jobs", *flags, afresh=afresh)
    try:
        yield server
    finally:
        try:
            exit_code = server.stop()
        finally:
            server.kill()
    assert exit_code == 0
    assert broken_promises(data_dir / "jobledger.db") == []


@asynccontextmanager
async def serving(data_dir: Path, *flags: str, afresh: bool = False) -> AsyncIterator[tuple[RunningServer, GrpcDoor]]:
    """The same with a door to it."""
    with served(data_dir, *flags, afresh=afresh) as server:
        async with grpc.aio.insecure_channel(server.target) as channel:
            yield server, GrpcDoor(channel, server.token)


async def running_job(door: GrpcDoor, gate: Path, **spec: str) -> str:
    """A job that runs until there is a file `gate`, which it removes then."""
    job_id = str((await door.create("sh", "-c", WAITS, env={"GATE": str(gate)}, **spec))["job_id"])
    job = await eventually(lambda: door.get(job_id), until=lambda job: job["state"] != "queued")
    assert job["state"] == "running"
    return job_id


def not_possible(need: str, why: str) -> NoReturn:
    """Skips the test loudly; fails it where JOBLEDGER_TEST_REQUIRE says that everything must be tested."""
    if os.environ.get("JOBLEDGER_TEST_REQUIRE"):
        pytest.fail(f"{need} is required here, and can't be had: {why}")
    pytest.skip(f"{need} can't be had: {why}")
