"""The server dies in the middle of a sweep, and the next one finishes the work."""

import asyncio
from pathlib import Path

import grpc
import pytest
from faults.ledger import broken_promises
from support.doors import GrpcDoor
from support.eventually import eventually
from support.running import start

JOBS = 60
RULES = """
[retention]
events = "never"
jobs = "0s"
logs.info = "0s"
job_dirs.completed = "0s"
"""


def left(data_dir: Path) -> list[int]:
    """How many directories of logs, directories of jobs and artifacts there are."""
    places = (data_dir / "logs").glob("*"), (data_dir / "jobs").glob("*"), (data_dir / "blobs").glob("[0-9a-f]?/*")
    return [len(list(place)) for place in places]


@pytest.mark.timeout(240)
async def test_a_sweep_that_is_killed_again_and_again_is_finished(tmp_path: Path) -> None:
    data_dir, config = tmp_path / "data", tmp_path / "jobledger.toml"
    server = start(data_dir)
    async with grpc.aio.insecure_channel(server.target) as channel:
        door = GrpcDoor(channel, server.token)
        script = 'echo "$JOBLEDGER_JOB_ID" > "$JOBLEDGER_OUTPUT_DIR/own"; echo all > "$JOBLEDGER_OUTPUT_DIR/shared"'
        job_ids = [(await door.create("sh", "-c", script))["job_id"] for _ in range(JOBS)]
        receipts = {job_id: await receipt_of(door, job_id) for job_id in job_ids}
    assert server.stop() == 0
    assert left(data_dir) == [JOBS, JOBS, JOBS + 1]
    config.write_text(RULES)
    for goal in (JOBS * 2, JOBS, JOBS // 2):
        server = start(data_dir, "--config", str(config))
        async with grpc.aio.insecure_channel(server.target) as channel:
            sweep = asyncio.create_task(GrpcDoor(channel, server.token).call("CollectGarbage"))
            await eventually(lambda goal=goal: asyncio.to_thread(lambda: sum(left(data_dir)) <= goal))  # type: ignore[misc]
            server.kill()
            await asyncio.gather(sweep, return_exceptions=True)
    server = start(data_dir, "--config", str(config))
    async with grpc.aio.insecure_channel(server.target) as channel:
        door = GrpcDoor(channel, server.token)
        await door.call("CollectGarbage")
        assert (await door.call("CollectGarbage"))["garbage"] == []
        assert (await door.call("ListJobs"))["total"] == 0
        assert {job_id: (await door.receipt(job_id))[0] for job_id in job_ids} == receipts
    assert server.stop() == 0
    assert left(data_dir) == [0, 0, 0]
    assert broken_promises(data_dir / "jobledger.db") == []


async def receipt_of(door: GrpcDoor, job_id: str) -> bytes:
    assert (await door.ended(job_id))["state"] == "completed"
    return (await door.receipt(job_id))[0]
