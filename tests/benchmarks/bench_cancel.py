"""How long it takes to end a job that lets itself be ended."""

from functools import partial

from benchmarks.framework import Row, Run, benchmark
from benchmarks.measuring import millis, percentile, timed
from benchmarks.serving import CANCELLED, RUNNING, Target, serving

JOBS, BATCH = 120, 12
P50_MS = 50.0


@benchmark("cancel", goal=f"cancel to `cancelled` of a job that honours SIGTERM: p50 at most {P50_MS:.0f} ms")
async def cancel(run: Run) -> list[Row]:
    """From sending CancelJob to the answer of a WaitJob, sent after it, that says `cancelled`.

    The job is a `sleep` that has been running for a while, one of twelve; they are cancelled one after another. By then
    nothing of the job is left, and its receipt is durable.
    """
    samples: list[float] = []
    async with serving(run.directory / "data", "--max-running", str(BATCH)) as target:
        while len(samples) < run.scaled(JOBS):
            samples += await _batch(target)
    return [
        millis("cancel to cancelled p50", percentile(samples, 0.50), P50_MS),
        millis("cancel to cancelled p99", percentile(samples, 0.99)),
    ]


async def _batch(target: Target) -> list[float]:
    job_ids = [await target.create("sleep", "600") for _ in range(BATCH)]
    await target.until_count(BATCH, RUNNING)

    async def cancelled(job_id: str) -> None:
        await target.cancel(job_id)
        await target.ended(job_id, CANCELLED)

    return [await timed(partial(cancelled, job_id)) for job_id in job_ids]
