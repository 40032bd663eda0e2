"""Lists of jobs: what a thousand times as many jobs cost."""

import asyncio
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

from benchmarks.framework import NotMeasuredError, Row, Run, benchmark
from benchmarks.ledgers import write_ledger
from benchmarks.measuring import Call, interleaved, median, millis, ratio
from benchmarks.serving import COMPLETED, Target, serving
from google.protobuf.timestamp_pb2 import Timestamp
from jobledger.v1.job_pb2 import JobState
from jobledger.v1.job_service_pb2 import ListJobsRequest
from jobledger_server.core.times import SECOND, timestamp
from support.records import NOW

FEW, MANY, PAGE, WALK = 1_000, 1_000_000, 50, 1000
ROUNDS = 100
GROWTH = 1.5
# By name of the filter: what is held to the goal.
FILTERS: Mapping[str, Mapping[str, Any]] = {
    "all": {},
    "by state": {"state": [JobState.JOB_STATE_FAILED]},
    "by workspace": {"workspace_id": "workspace-3"},
    "by type": {"job_type": "rare"},
}


@benchmark(
    "list-jobs",
    goal=f"a page of {PAGE} of {MANY:,} jobs, first or deep in, at most {GROWTH} times that of {FEW:,}",
)
async def list_jobs(run: Run) -> list[Row]:
    """ListJobs(50) by gRPC over two servers at once, one with a thousand jobs and one with a million.

    Times run from the request to the last byte of the answer, which is not parsed; medians of a hundred rounds, in each
    of which both servers are asked for every kind of page. Each answer has the exact total of what its filter admits.

    - first: without page token. deep: with the token that leads to the middle of what the filter admits.
    - all, by state (one of five), by workspace (one of seven), by type (one of eleven): the filters held to the goal.
    - others, on the million alone, for what they cost: a label of one job in a hundred and one; created in the newest
      half; an id that begins so; two filters together; an offset of half a million.
    """
    counts = {"few": FEW, "many": run.scaled(MANY)}
    began = time.monotonic()
    for name, count in counts.items():
        await asyncio.to_thread(write_ledger, run.directory / name, count)
    written = time.monotonic() - began
    async with AsyncExitStack() as stack:
        few, many = [await stack.enter_async_context(serving(run.directory / name)) for name in counts]
        calls: dict[str, Call] = {}
        for size, target in (("few", few), ("many", many)):
            calls |= {f"{kind}, {size}": call for kind, call in (await _pages(target)).items()}
        calls |= _others(many, counts["many"])
        await interleaved(2, calls)
        samples = await interleaved(run.scaled(ROUNDS), calls)
    rows = _rows({name: median(times) for name, times in samples.items()})
    return [*rows, Row(name="writing both ledgers", value=written, unit="s")]


async def _pages(target: Target) -> dict[str, Call]:
    """For each filter the first page, and one deep in."""
    calls: dict[str, Call] = {}
    for name, where in FILTERS.items():
        token = await _middle(target, where)
        calls[f"{name}, first"] = _call(target, **where)
        calls[f"{name}, deep"] = _call(target, **where, page_token=token)
    return calls


def _call(target: Target, **request: Any) -> Call:
    return partial(target.rpc, "ListJobs", ListJobsRequest(limit=PAGE, **request))


async def _middle(target: Target, where: Mapping[str, Any]) -> str:
    """The token of the page in the middle of a list, found as a client finds it: page by page."""
    total = (await target.page(limit=1, **where)).total
    step = min(WALK, max(PAGE, total // 4))
    page = await target.page(limit=step, **where)
    passed = step
    while passed < total // 2:
        page = await target.page(limit=step, page_token=page.next_page_token, **where)
        passed += step
    if not page.next_page_token:
        raise NotMeasuredError(f"the list of {total} jobs ends after {passed}")
    return page.next_page_token


def _others(target: Target, count: int) -> dict[str, Call]:
    half: Timestamp = timestamp(NOW - count // 2 * SECOND)
    return {
        "by label, many": _call(target, label=["batch=rare"]),
        "created in the newest half, many": _call(target, created_after=half),
        "by beginning of the id, many": _call(target, search="job_01k"),
        "by workspace and state, many": _call(target, workspace_id="workspace-3", state=[COMPLETED]),
        "all at offset of half, many": _call(target, offset=count // 2),
    }


def _rows(middle: Mapping[str, float]) -> list[Row]:
    rows = [millis(f"{name}, p50", seconds) for name, seconds in middle.items()]
    for name in FILTERS:
        # Of a thousand jobs the first page: a page deep in must cost no more than it.
        few = middle[f"{name}, first, few"]
        rows += [
            ratio(f"{name}, {place} of many by first of few", middle[f"{name}, {place}, many"], few, GROWTH)
            for place in ("first", "deep")
        ]
    return rows
