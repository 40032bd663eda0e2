"""How long a job takes that does nothing, and how many of them there can be."""

import asyncio
import time

from benchmarks.framework import Goal, NotMeasuredError, Row, Run, benchmark
from benchmarks.measuring import interleaved, median, millis, percentile, together
from benchmarks.serving import COMPLETED, LIVE, Target, serving

WARM_UP = 10
PAIRS = 300
OVERHEAD_MS = 30.0
ROUNDS, JOBS, CALLERS, SLOTS = 3, 1500, 8, 16
JOBS_PER_SECOND = 150.0


@benchmark("start", goal=f"submit to `completed` of `true`: p50 within {OVERHEAD_MS:.0f} ms of a bare subprocess")
async def start_latency(run: Run) -> list[Row]:
    """One job at a time, in pairs with a bare subprocess.

    - job: from sending CreateJob of `true` to the answer of WaitJob that says `completed`, over one gRPC channel. By
      then the job, its states, its log and its signed receipt are durable.
    - bare: `asyncio.create_subprocess_exec("true")` and `wait()` in the benchmark's own process.
    """
    async with serving(run.directory / "data") as target:

        async def job() -> None:
            await target.ended(await target.create("true"))

        contenders = {"bare": bare, "job": job}
        await interleaved(WARM_UP, contenders)
        samples = await interleaved(run.scaled(PAIRS), contenders)
    rows = [
        millis(f"{name} {label}", percentile(samples[name], share))
        for name in ("bare", "job")
        for label, share in (("p50", 0.50), ("p99", 0.99))
    ]
    return [*rows, millis("job p50 over bare p50", median(samples["job"]) - median(samples["bare"]), OVERHEAD_MS)]


async def bare() -> None:
    """What there is without us."""
    process = await asyncio.create_subprocess_exec("true")
    if await process.wait() != 0:
        raise NotMeasuredError("`true` fails on this machine")


@benchmark("throughput", goal=f"{JOBS_PER_SECOND:.0f} durable no-op jobs a second with --max-running {SLOTS}")
async def throughput(run: Run) -> list[Row]:
    """Jobs per second: a number of `true` divided by the time from sending the first CreateJob to the end of the last.

    Eight callers submit one after another each. The end is seen by a WaitJob for the latest ones, then by a look at the
    number of live jobs, every 20 ms.
    The figure is the median of three rounds on one server, whose ledger grows meanwhile.
    """
    async with serving(run.directory / "data", "--max-running", str(SLOTS)) as target:
        await _jobs_per_second(target, WARM_UP)
        rates = [await _jobs_per_second(target, run.scaled(JOBS)) for _ in range(ROUNDS)]
    goal = Goal(JOBS_PER_SECOND, at_least=True)
    return [
        Row(name="no-op jobs per second, median of rounds", value=median(rates), unit="jobs/s", goal=goal),
        Row(name="slowest round", value=min(rates), unit="jobs/s"),
    ]


async def _jobs_per_second(target: Target, count: int) -> float:
    before = await target.count(COMPLETED)
    began = time.monotonic()
    jobs: list[str] = []

    async def create() -> None:
        jobs.append(await target.create("true"))

    await together([create] * count, callers=CALLERS)
    for job_id in jobs[-SLOTS:]:
        await target.ended(job_id)
    await target.until_count(0, *LIVE)
    seconds = time.monotonic() - began
    completed = await target.count(COMPLETED) - before
    if completed != count:
        raise NotMeasuredError(f"{count} jobs were submitted, and {completed} completed")
    return count / seconds
