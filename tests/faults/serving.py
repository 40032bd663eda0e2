"""A real server for one test, and what must hold of its ledger whatever happened to it."""

import os
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import NoReturn

import grpc
import pytest
from support.doors import GrpcDoor
from support.eventually import eventually
from support.running import RunningServer, start

# Of the states' numbers in the database, 4 and above are terminal.
TERMINAL = 4
WAITS = 'while [ ! -e "$GATE" ]; do sleep 0.05; done; rm "$GATE"'


@contextmanager
def served(data_dir: Path, *flags: str) -> Iterator[RunningServer]:
    """A server; at the end it stops, its jobs with it, and what it has written is looked at."""
    server = start(data_dir, "--stop-jobs", *flags)
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
async def serving(data_dir: Path, *flags: str) -> AsyncIterator[tuple[RunningServer, GrpcDoor]]:
    """The same with a door to it."""
    with served(data_dir, *flags) as server:
        async with grpc.aio.insecure_channel(server.target) as channel:
            yield server, GrpcDoor(channel, server.token)


async def running_job(door: GrpcDoor, gate: Path, **spec: str) -> str:
    """A job that runs until there is a file `gate`, which it removes then."""
    job_id = str((await door.create("sh", "-c", WAITS, env={"GATE": str(gate)}, **spec))["job_id"])
    job = await eventually(lambda: door.get(job_id), until=lambda job: job["state"] != "queued")
    assert job["state"] == "running"
    return job_id


def broken_promises(database: Path) -> list[str]:
    """What is wrong with a ledger that nobody writes to now, in words; read from the file itself."""
    with closing(sqlite3.connect(database)) as connection:
        sound = connection.execute("PRAGMA quick_check").fetchall()
        jobs = dict(connection.execute("SELECT job_id, state FROM jobs"))
        receipts = {job_id for (job_id,) in connection.execute("SELECT job_id FROM receipts")}
        numbers = [number for (number,) in connection.execute("SELECT sequence_number FROM events ORDER BY 1")]
    ended = {job_id for job_id, state in jobs.items() if state >= TERMINAL}
    found = [f"{job_id} ended without a receipt" for job_id in sorted(ended - receipts)]
    found += [f"{job_id} has a receipt and has not ended" for job_id in sorted(receipts - ended)]
    found += [] if numbers == list(range(1, len(numbers) + 1)) else [f"the events are not dense: {numbers}"]
    return found + ([] if sound == [("ok",)] else [f"the file is damaged: {sound}"])


def not_possible(need: str, why: str) -> NoReturn:
    """Skips the test loudly; fails it where JOBLEDGER_TEST_REQUIRE says that everything must be tested."""
    if os.environ.get("JOBLEDGER_TEST_REQUIRE"):
        pytest.fail(f"{need} is required here, and can't be had: {why}")
    pytest.skip(f"{need} can't be had: {why}")
