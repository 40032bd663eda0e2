"""Limits of queues and labels as clients see them, on a server with many more slots."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from jobledger_server.config import Limit, Settings
from jobledger_server.wiring import supervision
from jobledger_server.wiring.embedded import embedded
from support.doors import Door, RestDoor
from support.eventually import eventually
from support.running import RunningServer, start

FLAGS = (
    "--max-running",
    "16",
    "--queue-limit",
    "single=1",
    "--label-limit",
    "tenant=1",
    "--label-limit",
    "tenant=big=2",
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    running = start(tmp_path_factory.mktemp("jobledger") / "data", *FLAGS)
    yield running
    running.stop()


@asynccontextmanager
async def running(door: Door, **fields: Any) -> AsyncIterator[str]:
    """A job that runs until the block is left."""
    job_id = (await door.create("cat", stdin="open", **fields))["job_id"]
    await reaches(door, job_id, "running")
    try:
        yield job_id
    finally:
        await door.call("SendInput", job_id=job_id, text="", close=True)


async def reaches(door: Door, job_id: str, state: str) -> None:
    await eventually(lambda: door.get(job_id), until=lambda job: job["state"] == state)


async def test_a_full_queue_holds_up_its_own_jobs_alone(door: Door) -> None:
    async with running(door, queue="single"):
        waits = (await door.create("true", queue="single", priority="high"))["job_id"]
        other = await door.ended((await door.create("true"))["job_id"])
        assert other["state"] == "completed"
        waiting = await door.get(waits)
        assert (waiting["state"], waiting["queue_position"]) == ("queued", 1)
    assert (await door.ended(waits))["state"] == "completed"


async def test_each_value_of_a_label_has_its_limit_or_one_of_its_own(door: Door) -> None:
    async with (
        running(door, labels={"tenant": "small"}),
        running(door, labels={"tenant": "big"}),
        running(door, labels={"tenant": "big"}),
    ):
        waits = [(await door.create("true", labels={"tenant": tenant}))["job_id"] for tenant in ("small", "big")]
        other = await door.ended((await door.create("true", labels={"tenant": "new"}))["job_id"])
        assert other["state"] == "completed"
        assert [(await door.get(job_id))["state"] for job_id in waits] == ["queued", "queued"]
    assert [(await door.ended(job_id))["state"] for job_id in waits] == ["completed", "completed"]


async def test_jobs_of_a_limited_queue_run_one_after_the_other(door: Door) -> None:
    jobs = [(await door.create("true", queue="single"))["job_id"] for _ in range(6)]
    ended = [await door.ended(job_id) for job_id in jobs]
    for earlier, later in itertools.pairwise(ended):
        assert str(earlier["completed_at"]) <= str(later["started_at"])


async def test_after_a_crash_what_runs_counts_by_the_limits_of_the_new_server(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    first = await asyncio.to_thread(start, data_dir, "--max-running", "16")
    async with aiohttp.ClientSession() as session:
        door = RestDoor(session, first.url, first.token)
        jobs = [(await door.create("cat", stdin="open", queue="single"))["job_id"] for _ in range(2)]
        for job_id in jobs:
            await reaches(door, job_id, "running")
        first.kill()
        second = await asyncio.to_thread(start, data_dir, *FLAGS)
        try:
            door = RestDoor(session, second.url, second.token)
            late = (await door.create("true", queue="single"))["job_id"]
            await door.call("SendInput", job_id=jobs[0], text="", close=True)
            await door.ended(jobs[0])
            assert (await door.ended((await door.create("true"))["job_id"]))["state"] == "completed"
            assert (await door.get(late))["state"] == "queued"
            await door.call("SendInput", job_id=jobs[1], text="", close=True)
            assert (await door.ended(late))["state"] == "completed"
        finally:
            await asyncio.to_thread(second.stop)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"queue": "single"}, "queue single is full (1 of 1 running)"),
        ({"labels": {"tenant": "acme"}}, "label tenant=acme is full (1 of 1 running)"),
    ],
)
async def test_those_who_watch_are_told_what_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], reason: str
) -> None:
    monkeypatch.setattr(supervision, "QUEUE_BEAT_SECONDS", 0.05)
    data_dir = tmp_path / "data"
    data_dir.mkdir(mode=0o700)
    settings = Settings(
        data_dir=data_dir,
        grpc_port=0,
        http_port=0,
        unix_socket=False,
        max_running=4,
        queue_limits=(Limit("single", 1),),
        label_limits=(Limit("tenant", 1),),
    )
    async with embedded(settings) as served, aiohttp.ClientSession() as session:
        rest = RestDoor(session, served.http_url, served.token_file.read_text().strip())
        async with running(rest, **fields):
            job_id = (await rest.create("true", **fields))["job_id"]
            beats = rest.events(type=["job.queue_heartbeat"])
            told = await anext(event async for event in beats if event["event_type"] == "job.queue_heartbeat")
            assert (told["job_id"], told["queue_position"], told["reason"]) == (job_id, 1, reason)
        assert (await rest.ended(job_id))["state"] == "completed"
