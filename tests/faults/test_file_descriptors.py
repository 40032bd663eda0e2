"""File descriptors: the server takes all it may, and with none left jobs wait, callers hear of it, nothing is lost."""

import asyncio
import operator
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from faults.serving import not_possible, running_job, serving
from jobledger_server.executors.local.process_tree import LINUX
from support.eventually import eventually
from support.running import RunningServer

if LINUX:
    from resource import RLIMIT_NOFILE, getrlimit, prlimit, setrlimit

SPARE, JOBS, CONNECTIONS = 6, 12, 80
USUAL = 512


@contextmanager
def few_descriptors(server: RunningServer) -> Iterator[None]:
    """Leaves the server only a few more descriptors than it has open."""
    pid = server.process.pid
    before = prlimit(pid, RLIMIT_NOFILE)
    prlimit(pid, RLIMIT_NOFILE, (open_files(server) + SPARE, before[1]))
    try:
        yield
    finally:
        prlimit(pid, RLIMIT_NOFILE, before)


def open_files(server: RunningServer) -> int:
    """How many descriptors the server has open."""
    place = Path(f"/proc/{server.process.pid}/fd")
    # From Linux 6.2 on its size is their number; before, only root may count those of a server.
    return place.stat().st_size or len(list(place.iterdir()))


def connect_often(server: RunningServer, stack: ExitStack) -> None:
    """Takes every descriptor that is left, through the door of REST; whoever comes later waits in the backlog."""
    host, port = server.url.removeprefix("http://").split(":")
    for _ in range(CONNECTIONS):
        stack.enter_context(socket.create_connection((host, int(port))))


async def test_without_descriptors_jobs_wait_and_run_later_and_those_that_end_are_not_lost(tmp_path: Path) -> None:
    if not LINUX:
        not_possible("prlimit", "this is not Linux")
    gate = tmp_path / "gate"
    async with serving(tmp_path / "data", "--max-running", "4") as (server, door):
        ends = await running_job(door, gate)
        calm = await asyncio.to_thread(open_files, server)
        with few_descriptors(server), ExitStack() as stack:
            await asyncio.to_thread(connect_often, server, stack)
            await eventually(lambda: asyncio.to_thread(open_files, server), until=lambda count: count >= calm + SPARE)
            accepted = [(await door.create("true"))["job_id"] for _ in range(JOBS)]
            gate.touch()
            await eventually(lambda: asyncio.to_thread(gate.exists), until=operator.not_)
            assert (await door.call("ListJobs", state=["failed"]))["total"] == 0
        states = [(await door.ended(job_id))["state"] for job_id in (ends, *accepted)]
        assert states == ["completed"] * (1 + JOBS)
        await eventually(lambda: asyncio.to_thread(open_files, server), until=lambda count: count <= calm + SPARE)


@contextmanager
def usual_limit() -> Iterator[int]:
    """What is started here is given a soft limit below the hard one, as systems do it. Gives the hard one."""
    soft, hard = getrlimit(RLIMIT_NOFILE)
    setrlimit(RLIMIT_NOFILE, (USUAL, hard))
    try:
        yield hard
    finally:
        setrlimit(RLIMIT_NOFILE, (soft, hard))


async def test_the_server_takes_the_descriptors_that_it_may_and_its_jobs_keep_the_usual_limit(tmp_path: Path) -> None:
    if not LINUX:
        not_possible("prlimit", "this is not Linux")
    with usual_limit() as hard:
        async with serving(tmp_path / "data", afresh=True) as (server, door):
            assert prlimit(server.process.pid, RLIMIT_NOFILE) == (hard, hard)
            job_id = (await door.create("sh", "-c", "ulimit -Sn; ulimit -Hn"))["job_id"]
            assert (await door.ended(job_id))["state"] == "completed"
            logs = (await door.call("GetLogs", job_id=job_id))["logs"]
            assert [entry["message"] for entry in logs] == [str(USUAL), str(hard)]
