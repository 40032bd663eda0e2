"""What was acknowledged survives `kill -9`."""

import asyncio
import os
import random
import signal
import sys
from pathlib import Path

from jobledger_server.core.ports import JobFilter, Store
from stores.backends import Backend
from support.records import RUNNING

WRITER = Path(__file__).parent.parent / "stores" / "crashing_writer.py"


async def write_until_killed(backend: Backend, acknowledgements: int) -> dict[str, str]:
    """Lets another process write, kills it after so many acknowledgements, and returns what it was told of each job."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        WRITER,
        backend.name,
        backend.directory,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(WRITER.parent.parent)},
    )
    assert process.stdout is not None
    lines = [await process.stdout.readline() for _ in range(acknowledgements)]
    process.send_signal(signal.SIGKILL)
    lines += (await process.stdout.read()).splitlines(keepends=True)
    assert await process.wait() == -signal.SIGKILL
    # A last line that was cut short says nothing.
    return dict(line.decode().split() for line in lines if line.endswith(b"\n"))


async def check_survivors(store: Store, acknowledged: dict[str, str]) -> None:
    for job_id, state in acknowledged.items():
        record = await store.get_job(job_id)
        assert record is not None
        assert state == "queued" or record.job.state == RUNNING
    page = await store.list_jobs(JobFilter(), limit=100_000)
    events = await store.events_after(0, limit=1_000_000)
    assert page.total == len(page.records) == sum((await store.count_by_state()).values())
    assert [event.sequence_number for event in events] == list(range(1, len(events) + 1))
    # Each state that a job has reached stands with its event, or neither does.
    assert len(events) == sum(1 + (record.job.state == RUNNING) for record in page.records)


async def test_every_acknowledged_job_and_change_survives_a_kill(backend: Backend) -> None:
    """The store is killed at random moments of its work, again and again, and opened after each."""
    acknowledged: dict[str, str] = {}
    for _ in range(4):
        acknowledged |= await write_until_killed(backend, random.randrange(1, 400))
        async with backend.open() as store:
            await check_survivors(store, acknowledged)
