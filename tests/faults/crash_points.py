"""A program that kills forks of itself, each at a random moment of making a store and writing to it.

Usage: crash_points.py SEED RUNS DIRECTORY

Prints a line of JSON for each run: `directory`, and `acknowledged`, what the store had answered for by then.
A fork costs milliseconds where a new interpreter would cost the better part of a second.
"""

import asyncio
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from jobledger_server.core.ports import JobChange, JobRecord, Store
from jobledger_server.stores.sqlite import SqliteStore
from support.records import COMPLETED, RUNNING, a_change, a_receipt, a_record, state_changed

WRITERS, ROUNDS = 4, 3
JOBS = WRITERS * ROUNDS


async def write_jobs(database: Path, acknowledgements: int) -> None:
    """Migrates an empty file, then takes some jobs at the same time from their creation to their end."""
    async with SqliteStore(database) as store, asyncio.TaskGroup() as writers:
        for _ in range(WRITERS):
            writers.create_task(write_some(store, acknowledgements))


async def write_some(store: Store, acknowledgements: int) -> None:
    for _ in range(ROUNDS):
        record = a_record()
        await store.create_job(record, [state_changed(record)])
        os.write(acknowledgements, f"created:{record.job.job_id}\n".encode())
        await store.update_job(record.job.job_id, started)
        await store.update_job(record.job.job_id, ended)
        os.write(acknowledgements, f"ended:{record.job.job_id}\n".encode())


def started(stored: JobRecord) -> JobChange:
    return a_change(stored, RUNNING)


def ended(stored: JobRecord) -> JobChange:
    return a_change(stored, COMPLETED, receipt=a_receipt(stored.job.job_id))


def run(directory: Path, seconds: float) -> list[str]:
    """Writes in a fork, which is killed after so many seconds unless it has ended. Returns what was acknowledged."""
    directory.mkdir()
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        asyncio.run(write_jobs(directory / "jobledger.db", write_end))
        os._exit(0)
    os.close(write_end)
    if signal.sigtimedwait({signal.SIGCHLD}, seconds) is None:
        os.kill(pid, signal.SIGKILL)
        signal.sigwait({signal.SIGCHLD})
    os.waitpid(pid, 0)
    with os.fdopen(read_end) as acknowledged:
        return acknowledged.read().split()


def main(seed: str, runs: str, place: str) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    chance = random.Random(seed)
    began = time.monotonic()
    assert len(run(Path(place) / "whole", 60)) == 2 * JOBS
    whole = time.monotonic() - began
    for number in range(int(runs)):
        directory = Path(place) / str(number)
        print(json.dumps({"acknowledged": run(directory, chance.uniform(0, whole)), "directory": str(directory)}))


main(*sys.argv[1:])
