"""How soon a server that was killed has its jobs back."""

import time
from pathlib import Path
from typing import NamedTuple

from benchmarks.framework import Goal, Row, Run, benchmark
from benchmarks.measuring import median, together
from benchmarks.serving import CANCELLED, RUNNING, Target, attached, ended, started
from support.running import RunningServer

JOBS, ROUNDS, CALLERS = 100, 5, 8
FLAGS = ("--max-running", str(2 * JOBS))
SECONDS = 2.0


class Adoption(NamedTuple):
    """Seconds from the start of the new process until: it is ready; all jobs are listed; one of them is cancelled."""

    ready: float
    listed: float
    cancelled: float


@benchmark("adoption", goal=f"{JOBS} running jobs adopted within {SECONDS:.0f} s after a kill -9")
async def adoption(run: Run) -> list[Row]:
    """A hundred `sleep` run; the server is killed with SIGKILL, and started again on the same data.

    All times run from the start of the new process, and are medians of five rounds:

    - ready: its `endpoints.json` is there.
    - adopted: ListJobs over a new channel counts a hundred running jobs.
    - in hand: one of them, then asked to cancel, is `cancelled`.
    - the same server with nothing to adopt, ready: in turn with the others.
    """
    rounds = 1 if run.trial else ROUNDS
    server = await started(run.directory / "data", *FLAGS)
    adoptions, empty = list[Adoption](), list[float]()
    try:
        async with attached(server) as target:
            await _fill(target, JOBS)
        for _ in range(rounds):
            server.kill()
            server, adopted = await _adopted(server.data_dir)
            adoptions.append(adopted)
            empty.append(await _empty_start(run.directory / "empty"))
    finally:
        await ended(server)
    return [
        _seconds("kill -9: new process to 100 jobs adopted", [it.listed for it in adoptions], Goal(SECONDS)),
        _seconds("kill -9: new process to ready", [it.ready for it in adoptions]),
        _seconds("kill -9: ready to 100 jobs adopted", [it.listed - it.ready for it in adoptions]),
        _seconds("kill -9: new process to one of them cancelled", [it.cancelled for it in adoptions]),
        _seconds("nothing to adopt: new process to ready", empty),
    ]


async def _fill(target: Target, count: int) -> None:
    """Starts jobs until a hundred run."""
    await together([lambda: target.create("sleep", "600")] * count, callers=CALLERS)
    await target.until_count(JOBS, RUNNING)


async def _adopted(data_dir: Path) -> tuple[RunningServer, Adoption]:
    began = time.monotonic()
    server = await started(data_dir, *FLAGS)
    async with attached(server) as target:
        await target.until_count(JOBS, RUNNING)
        listed = time.monotonic() - began
        job_id = await _one_running(target)
        await target.cancel(job_id)
        await target.ended(job_id, CANCELLED)
        cancelled = time.monotonic() - began
        await _fill(target, 1)
    return server, Adoption(server.ready_after, listed, cancelled)


async def _one_running(target: Target) -> str:
    return str((await target.page(state=[RUNNING], limit=1)).jobs[0].job_id)


async def _empty_start(data_dir: Path) -> float:
    server = await started(data_dir, *FLAGS)
    await ended(server)
    return server.ready_after


def _seconds(name: str, samples: list[float], goal: Goal | None = None) -> Row:
    return Row(name=name, value=median(samples), unit="s", goal=goal)
