"""Processes that left their session, forgot their environment and closed their files: none outlives its job.

Where it matters a test runs with control groups and without, so that each of the two ways to find them is proven.
"""

import asyncio
import json
import os
import secrets
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import grpc
import pytest
from faults.serving import not_possible, running_job, served, serving
from jobledger_server.executors.local import cgroup
from jobledger_server.executors.local.control_dir import ControlDir
from jobledger_server.executors.local.process_tree import LINUX, process_stat, processes
from support.doors import GrpcDoor, Json
from support.eventually import eventually
from support.running import RunningServer, pause, start

GRACE_SECONDS = 1.0
# Of the promise, and what a busy machine takes for looking.
MARGIN_SECONDS = 1.0 + 1.0
CLEAR_SECONDS = 10.0

# Forks twice, the second time as the child of a session's leader, and becomes a program that knows nothing of the job.
HIDES = """
import os, sys, time
DAEMON = '''
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open(sys.argv[1] + ".new", "w").write(str(os.getpid()))
os.rename(sys.argv[1] + ".new", sys.argv[1])
time.sleep(600)
'''
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.closerange(0, 1024)
        os.execve(sys.executable, [sys.executable, "-S", "-c", DAEMON, os.path.abspath("hidden")], {})
    os._exit(0)
os.wait()
time.sleep(600)
"""
# Is never the same process for longer than a fork takes; `hidden` is the session of all of them.
FLEES = """
import os, time
if os.fork() == 0:
    os.setsid()
    open("hidden.new", "w").write(str(os.getpid()))
    os.rename("hidden.new", "hidden")
    while True:
        if os.fork():
            os._exit(0)
time.sleep(600)
"""


class Ground:
    """Where servers are put whose jobs are to have control groups; or are not: then there is no room for any."""

    def __init__(self, room: Path | None) -> None:
        self._room = room

    def take(self, server: RunningServer) -> None:
        """Puts a server there, before it has started anything."""
        if self._room:
            (self._room / "cgroup.procs").write_text(str(server.process.pid))

    def clear(self) -> None:
        deadline = time.monotonic() + CLEAR_SECONDS
        while self._room and self._room.exists():
            assert time.monotonic() < deadline, f"{self._room}: something still runs there"
            with suppress(OSError):
                self._room.rmdir()
            pause()


def has_control_groups() -> bool:
    """Whether this user may make some here. That is up to the machine: no package brings them."""
    group = cgroup.make("tests")
    if group:
        cgroup.remove(group)
    return group is not None


@pytest.fixture(scope="module")
def possible() -> bool:
    """Whether there can be control groups."""
    if not LINUX:
        not_possible("subreapers", "this is not Linux")
    return has_control_groups()


@pytest.fixture(scope="module")
def grouped(possible: bool) -> None:
    """Skips the test where there are no control groups."""
    if not possible:
        pytest.skip("This user can't make control groups (cgroup v2) here")


@pytest.fixture(scope="module", params=["grouped", "ungrouped"])
def ground(request: pytest.FixtureRequest, possible: bool) -> Iterator[Ground]:
    room, place = None, cgroup.place()
    if request.param == "grouped":
        request.getfixturevalue("grouped")
    elif possible and place:
        room = place / f"tests-{secrets.token_hex(4)}"
        room.mkdir()
        (room / "cgroup.max.descendants").write_text("0")
    ground = Ground(room)
    yield ground
    ground.clear()


@pytest.fixture(scope="module")
def server(ground: Ground, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with served(tmp_path_factory.mktemp("hidden") / "data") as server:
        ground.take(server)
        yield server


@pytest.fixture
async def door(server: RunningServer) -> AsyncIterator[GrpcDoor]:
    async with grpc.aio.insecure_channel(server.target) as channel:
        yield GrpcDoor(channel, server.token)


def control_of(server: RunningServer, job: Json) -> Path:
    return server.data_dir / "control" / f"{job['job_id']}.1"


def shim_of(server: RunningServer, job: Json) -> int:
    return int(json.loads((control_of(server, job) / "started.json").read_text())["shim"])


def nursery_of(server: RunningServer, job: Json) -> int:
    shim = process_stat(shim_of(server, job))
    assert shim
    return shim.parent


def is_grouped(server: RunningServer, job: Json) -> bool:
    group = cgroup.recorded(ControlDir(control_of(server, job)))
    return group is not None and cgroup.populated(group)


def lives(pid: int) -> bool:
    stat = process_stat(pid)
    return stat is not None and stat.state not in "ZX"


async def died(pid: int) -> None:
    await eventually(lambda: asyncio.to_thread(lives, pid), until=lambda alive: not alive)


async def hiding(door: GrpcDoor, program: str = HIDES) -> tuple[Json, int]:
    """A job with a process of it that hides, and that one's pid."""
    job = await door.create("python3", "-c", program, grace_period=f"{GRACE_SECONDS}s")
    job = await eventually(lambda: door.get(job["job_id"]), until=lambda seen: seen["state"] != "queued")
    assert job["state"] == "running"
    hidden = Path(job["job_dir"]) / "hidden"
    await eventually(lambda: asyncio.to_thread(hidden.exists))
    return job, int(hidden.read_text())


@asynccontextmanager
async def killed_server(data_dir: Path, ground: Ground | None = None) -> AsyncIterator[tuple[RunningServer, GrpcDoor]]:
    """One that crashes at the end, and a door to it."""
    server = start(data_dir)
    try:
        if ground:
            ground.take(server)
        async with grpc.aio.insecure_channel(server.target) as channel:
            yield server, GrpcDoor(channel, server.token)
    finally:
        server.kill()


async def is_lost(door: GrpcDoor, job: Json) -> None:
    ended = await door.ended(job["job_id"])
    assert (ended["state"], ended["error_code"]) == ("failed", "E_JOB_LOST")
    receipt, _ = await door.receipt(job["job_id"])
    assert json.loads(receipt)["receipt_status"] == "partial"


async def test_a_hidden_process_ends_with_the_grace_period_of_a_cancel(door: GrpcDoor) -> None:
    job, hidden = await hiding(door)
    began = time.monotonic()
    await door.cancel(job["job_id"])
    assert (await door.ended(job["job_id"]))["state"] == "cancelled"
    assert not lives(hidden)
    assert time.monotonic() - began < GRACE_SECONDS + MARGIN_SECONDS


async def test_a_hidden_process_is_gone_before_a_job_whose_supervisor_was_killed_has_ended(
    server: RunningServer, door: GrpcDoor, request: pytest.FixtureRequest
) -> None:
    job, hidden = await hiding(door)
    assert is_grouped(server, job) == ("ungrouped" not in request.node.name)
    os.kill(shim_of(server, job), signal.SIGKILL)
    await is_lost(door, job)
    assert not lives(hidden)


async def test_a_hidden_process_is_gone_also_where_supervisor_and_nursery_were_stopped(
    server: RunningServer, door: GrpcDoor
) -> None:
    job, hidden = await hiding(door)
    supervisor = shim_of(server, job)
    os.kill(nursery_of(server, job), signal.SIGSTOP)
    os.kill(supervisor, signal.SIGSTOP)
    os.kill(supervisor, signal.SIGKILL)
    await is_lost(door, job)
    assert not lives(hidden)


async def test_a_process_that_never_stays_the_same_is_gone_as_well(server: RunningServer, door: GrpcDoor) -> None:
    job, session = await hiding(door, FLEES)
    os.kill(shim_of(server, job), signal.SIGKILL)
    await is_lost(door, job)
    for _ in range(20):
        assert [stat for stat in processes() if stat.session == session] == []


async def test_a_job_goes_on_and_others_start_when_the_nursery_is_killed(
    server: RunningServer, door: GrpcDoor, tmp_path: Path
) -> None:
    job = await door.get(await running_job(door, tmp_path / "gate"))
    nursery = nursery_of(server, job)
    os.kill(nursery, signal.SIGKILL)
    await died(nursery)
    assert (await door.ended((await door.create("true"))["job_id"]))["state"] == "completed"
    assert (await door.get(job["job_id"]))["state"] == "running"
    (tmp_path / "gate").touch()
    assert (await door.ended(job["job_id"]))["state"] == "completed"


async def test_a_hidden_process_is_gone_when_its_supervisor_is_killed_while_no_server_runs(
    ground: Ground, tmp_path: Path
) -> None:
    async with killed_server(tmp_path / "data", ground) as (server, door):
        job, hidden = await hiding(door)
    assert lives(hidden)
    os.kill(shim_of(server, job), signal.SIGKILL)
    await died(hidden)
    async with serving(tmp_path / "data") as (_, door):
        await is_lost(door, job)


async def test_the_nursery_ends_with_the_last_job_after_its_server(tmp_path: Path) -> None:
    async with killed_server(tmp_path / "data") as (server, door):
        job = await door.get(await running_job(door, tmp_path / "gate"))
    nursery = nursery_of(server, job)
    assert lives(nursery)
    (tmp_path / "gate").touch()
    await died(nursery)
    async with serving(tmp_path / "data") as (_, door):
        assert (await door.ended(job["job_id"]))["state"] == "completed"


@pytest.mark.usefixtures("grouped")
async def test_a_control_group_finds_what_neither_supervisor_nor_nursery_can(tmp_path: Path) -> None:
    async with serving(tmp_path / "data") as (server, door):
        job, hidden = await hiding(door)
        assert is_grouped(server, job)
        group, nursery = cgroup.recorded(ControlDir(control_of(server, job))), nursery_of(server, job)
        os.kill(nursery, signal.SIGKILL)
        await died(nursery)
        os.kill(shim_of(server, job), signal.SIGKILL)
        await is_lost(door, job)
        assert not lives(hidden)
        assert group
        assert not group.exists()
