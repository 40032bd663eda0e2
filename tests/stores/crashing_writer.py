"""A program that writes to a store until it is killed, and says on stdout what was acknowledged.

Usage: crashing_writer.py BACKEND DIRECTORY
"""

import asyncio
import os
import sys
from pathlib import Path

from jobledger_server.core.ids import ulid
from jobledger_server.core.ports import Store
from stores.backends import Backend
from support.records import NOW, RUNNING, a_change, a_record, state_changed


async def write_jobs(store: Store) -> None:
    while True:
        # Ids of one run must not repeat those of the run before it.
        record = a_record(job_id=f"job_{ulid(NOW, os.urandom(10))}")
        await store.create_job(record, [state_changed(record)])
        print(record.job.job_id, "queued", flush=True)
        await store.update_job(record.job.job_id, lambda stored: a_change(stored, RUNNING))
        print(record.job.job_id, "running", flush=True)


async def main(name: str, directory: str) -> None:
    async with Backend(name=name, directory=Path(directory)).open() as store, asyncio.TaskGroup() as writers:
        for _ in range(8):
            writers.create_task(write_jobs(store))


asyncio.run(main(*sys.argv[1:]))
