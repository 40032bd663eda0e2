"""Whether the server answers while a job does its worst."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from benchmarks.framework import Goal, Row, Run, benchmark
from benchmarks.loads import PROCESSES, bomb, bomb_processes, flood, pids_cgroup
from benchmarks.measuring import Call, millis, percentile, steadily, together
from benchmarks.serving import CANCELLED, LIVE, RUNNING, Target, seen, serving
from google.protobuf.duration_pb2 import Duration
from jobledger.v1.job_pb2 import JobLimits
from jobledger.v1.job_service_pb2 import GetLogsRequest, ListJobsRequest

PAGE, RATE, SECONDS = 50, 50, 10
P99_MS, CANCEL_SECONDS = 100.0, 1.0
LINES_PER_SECOND, LOG_BYTES = 200_000, 8 * 2**30
GOAL = f"p99 of ListJobs({PAGE}) at most {P99_MS:.0f} ms by either door"


class Latencies(NamedTuple):
    """Of ListJobs, by door, seconds."""

    grpc: list[float]
    rest: list[float]


@benchmark("fork-bomb", goal=f"{GOAL} while a job is a fork bomb")
async def fork_bomb(run: Run) -> list[Row]:
    """ListJobs(50) before and while a job forks without end.

    Both doors at once, each at a steady 50 calls a second for 10 seconds. A call's latency runs from the instant at
    which it was due to the last byte of its answer, whatever became of the calls before it. A pids cgroup holds the
    bomb at 64 processes that all go on trying; where none can be had it is 64 processes of which each forks children
    that end at once.

    - idle: before the bomb, on the same server.
    - held at: processes of the bomb, counted before and after the measurement; the smaller number.
    - cancel to cancelled: from sending CancelJob, without grace period, to the answer of a WaitJob sent after it.
    """
    with pids_cgroup(f"jobledger-bench-{os.getpid()}") as cgroup:
        async with _filled(run) as target:
            idle = await _latencies(target, run)
            job_id = await target.create(*bomb(cgroup), grace_period=Duration())
            await target.until_count(1, RUNNING)
            before = await seen(
                _bomb_processes, until=lambda count: count >= PROCESSES, wanted=f"a bomb of {PROCESSES} processes"
            )
            latencies = await _latencies(target, run)
            after = await _bomb_processes()
            began = time.monotonic()
            await target.cancel(job_id)
            await target.ended(job_id, CANCELLED)
            cancelled = time.monotonic() - began
    return [
        *_rows("idle", idle),
        *_rows("fork bomb", latencies, P99_MS),
        Row(name="held at", value=min(before, after), unit="processes", goal=Goal(PROCESSES, at_least=True)),
        Row(name="cancel to cancelled", value=cancelled, unit="s", goal=Goal(CANCEL_SECONDS)),
    ]


@benchmark("log-flood", goal=f"{GOAL} while a job writes {LINES_PER_SECOND:,} log lines a second")
async def log_flood(run: Run) -> list[Row]:
    """ListJobs(50) before and while a job writes 200,000 lines of 80 bytes a second; measured as under a fork bomb.

    - idle: before the job, on the same server.
    - lines a second: how many entries the job's log got meanwhile, by GetLogs' total. The job catches up where it was
      held up, so that less than its rate means that the log does not keep pace; a hundredth is the edges of the time.
    """
    async with _filled(run) as target:
        idle = await _latencies(target, run)
        limits = JobLimits(log_bytes=LOG_BYTES)
        job_id = await target.create(*flood(LINES_PER_SECOND), limits=limits, grace_period=Duration())
        await target.until_count(1, RUNNING)
        before, began = await _entries(target, job_id), time.monotonic()
        latencies = await _latencies(target, run)
        lines = (await _entries(target, job_id) - before) / (time.monotonic() - began)
        await target.cancel(job_id)
        await target.ended(job_id, CANCELLED)
    least = Goal(0.99 * LINES_PER_SECOND, at_least=True)
    return [
        *_rows("idle", idle),
        *_rows("log flood", latencies, P99_MS),
        Row(name="lines a second", value=lines, unit="lines/s", goal=least),
    ]


@asynccontextmanager
async def _filled(run: Run) -> AsyncIterator[Target]:
    """A server with a full page of jobs."""
    async with serving(run.directory / "data") as target:
        await together([lambda: target.create("true")] * PAGE, callers=4)
        await target.until_count(0, *LIVE)
        yield target


async def _latencies(target: Target, run: Run) -> Latencies:
    """Of both doors at once, so that they meet the same load."""
    seconds, request = run.scaled(SECONDS), ListJobsRequest(limit=PAGE)
    doors: list[Call] = [
        lambda: target.rpc("ListJobs", request),
        lambda: target.get("/v1/jobs", {"limit": PAGE}),
    ]
    for call in doors:
        await call()
    grpc, rest = [steadily(call, rate=RATE, until=lambda passed: passed >= seconds) for call in doors]
    return Latencies(*await asyncio.gather(grpc, rest))


def _rows(load: str, latencies: Latencies, p99_at_most: float | None = None) -> list[Row]:
    return [
        row
        for door, samples in latencies._asdict().items()
        for row in (
            millis(f"{load}, ListJobs by {door}, p50", percentile(samples, 0.50)),
            millis(f"{load}, ListJobs by {door}, p99", percentile(samples, 0.99), p99_at_most),
        )
    ]


async def _bomb_processes() -> int:
    return bomb_processes()


async def _entries(target: Target, job_id: str) -> int:
    answer = await target.jobs.GetLogs(GetLogsRequest(job_id=job_id, limit=1), metadata=target.metadata)
    return answer.total
