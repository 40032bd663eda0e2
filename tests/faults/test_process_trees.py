"""Jobs that do to their processes what they like: nothing of them outlives their end, and the server goes on."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import pytest
from faults.serving import not_possible, served
from jobledger_server.executors.local.process_tree import LINUX, process_exists, processes
from support.doors import GrpcDoor, Json
from support.eventually import eventually
from support.running import RunningServer

GRACE_SECONDS = 1.0
# Of the promise, and what a busy machine takes for looking.
MARGIN_SECONDS = 1.0 + 1.0

BOMB = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for level in range(6):
    if os.fork() == 0 and level % 2:
        os.setsid()
time.sleep(600)
"""
ORPHANS = """
import os, time
for number in range(500):
    if os.fork() == 0:
        if number % 2:
            os.setsid()
        if os.fork() == 0:
            time.sleep(0.2)
        os._exit(0)
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    if not LINUX:
        not_possible("/proc and subreapers", "this is not Linux")
    with served(tmp_path_factory.mktemp("trees") / "data", "--max-running", "4") as server:
        yield server


@pytest.fixture
async def door(server: RunningServer) -> AsyncIterator[GrpcDoor]:
    async with grpc.aio.insecure_channel(server.target) as channel:
        yield GrpcDoor(channel, server.token)


async def running(door: GrpcDoor, *command: str) -> str:
    """A job that runs, and ends by force a second after it was asked to."""
    job_id = str((await door.create(*command, grace_period=f"{GRACE_SECONDS}s"))["job_id"])
    started = await eventually(lambda: door.get(job_id), until=lambda job: job["state"] != "queued")
    assert started["state"] == "running"
    return job_id


def pids_of(job: Json) -> set[int]:
    """Processes that carry the job's name in their environment, zombies not among them."""
    name = f"JOBLEDGER_JOB_ID={job['job_id']}".encode()
    found = set()
    for stat in processes():
        try:
            if name in Path(f"/proc/{stat.pid}/environ").read_bytes().split(b"\0"):
                found.add(stat.pid)
        except OSError:
            continue
    return found


def supervisors_of(job: Json) -> set[int]:
    """Whoever started the job's processes, or took them in."""
    pids = pids_of(job)
    return {stat.parent for stat in processes() if stat.pid in pids} - pids


async def test_cancelling_ends_a_fork_bomb_and_the_api_answers_meanwhile(door: GrpcDoor) -> None:
    """64 processes that ignore SIGTERM, most of them in sessions of their own."""
    job_id = await running(door, "python3", "-c", BOMB)
    job = await door.get(job_id)
    await eventually(lambda: asyncio.to_thread(pids_of, job), until=lambda found: len(found) == 64)
    began = time.monotonic()
    assert (await door.cancel(job_id))["state"] == "cancelling"
    ending = asyncio.create_task(door.ended(job_id))
    answered = []
    while not ending.done():
        asked = time.monotonic()
        await door.call("ListJobs")
        answered.append(time.monotonic() - asked)
    assert (await ending)["state"] == "cancelled"
    assert time.monotonic() - began < GRACE_SECONDS + MARGIN_SECONDS
    assert pids_of(job) == set()
    assert max(answered) < 1.0


async def test_a_stopped_job_is_cancelled_within_its_grace_period(door: GrpcDoor) -> None:
    job_id = await running(door, "sleep", "600")
    job = await door.get(job_id)
    (pid,) = await eventually(lambda: asyncio.to_thread(pids_of, job))
    os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    await door.cancel(job_id)
    assert (await door.ended(job_id))["state"] == "cancelled"
    assert time.monotonic() - began < GRACE_SECONDS + MARGIN_SECONDS
    assert not process_exists(pid)


async def test_a_job_that_stops_its_supervisor_can_be_cancelled(door: GrpcDoor) -> None:
    job_id = await running(door, "sh", "-c", "kill -STOP $PPID; exec sleep 600")
    job = await door.get(job_id)
    assert await eventually(lambda: asyncio.to_thread(pids_of, job))
    assert (await door.cancel(job_id))["state"] == "cancelling"
    assert (await door.ended(job_id))["state"] == "cancelled"
    assert pids_of(job) == set()


async def test_a_job_that_stops_its_supervisor_ends_at_its_timeout(door: GrpcDoor) -> None:
    command = ("sh", "-c", "kill -STOP $PPID; exec sleep 600")
    job = await door.create(*command, timeout="1s", grace_period=f"{GRACE_SECONDS}s")
    ended = await door.ended(job["job_id"])
    assert (ended["state"], ended["error_code"]) == ("failed", "E_JOB_TIMED_OUT")
    assert pids_of(job) == set()


async def test_a_job_that_stops_whoever_starts_jobs_holds_up_none(door: GrpcDoor) -> None:
    nursery = "kill -STOP $(ps -o ppid= -p $PPID); exec sleep 600"
    job_id = await running(door, "sh", "-c", nursery)
    began = time.monotonic()
    assert (await door.ended((await door.create("true"))["job_id"]))["state"] == "completed"
    assert time.monotonic() - began < 5.0 + MARGIN_SECONDS
    await door.cancel(job_id)
    assert (await door.ended(job_id))["state"] == "cancelled"


async def test_a_job_that_removes_its_control_directory_is_lost_and_nothing_of_it_lives(
    server: RunningServer, door: GrpcDoor
) -> None:
    remove = f'rm -rf "{server.data_dir}"/control/"$JOBLEDGER_JOB_ID".*; setsid sleep 600 & exec sleep 600'
    job = await door.create("sh", "-c", remove)
    ended = await door.ended(job["job_id"])
    assert (ended["state"], ended["error_code"]) == ("failed", "E_JOB_LOST")
    assert pids_of(job) == set()


async def test_orphans_and_zombies_are_reaped_before_a_job_has_ended(door: GrpcDoor) -> None:
    """500 children that nobody waits for, each with a grandchild; the job itself ends at once."""
    job = await door.create("python3", "-c", ORPHANS)
    supervisors = await eventually(lambda: asyncio.to_thread(supervisors_of, job))
    assert (await door.ended(job["job_id"]))["state"] == "completed"
    assert pids_of(job) == set()
    assert [stat for stat in processes() if stat.parent in supervisors] == []


async def test_a_grandchild_that_holds_stdout_does_not_delay_the_end(door: GrpcDoor) -> None:
    began = time.monotonic()
    job = await door.create("sh", "-c", "echo said; setsid sleep 600 & exit 3")
    ended = await door.ended(job["job_id"])
    assert time.monotonic() - began < 2.0 + MARGIN_SECONDS
    assert (ended["state"], ended["exit_code"]) == ("failed", 3)
    assert [entry["message"] for entry in (await door.call("GetLogs", job_id=job["job_id"]))["logs"]] == ["said"]
    assert pids_of(job) == set()
