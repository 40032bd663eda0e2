"""Whether others are served while somebody floods the doors, or holds connections open."""

import asyncio

from benchmarks.framework import NotMeasuredError, Row, Run, benchmark
from benchmarks.measuring import Call, millis, percentile, steadily, together
from benchmarks.serving import LIVE, Target, serving
from jobledger.v1.job_service_pb2 import ListJobsRequest
from support.attackers import OVER_GRPC, elsewhere

PAGE, RATE = 50, 50
P99_MS = 200.0
# Of each attack: how much of what at a time, and how often. Those that hold connections take 15 s by themselves.
FLOODS = {"rapid-resets": (20_000, 5), "streams": (10_000, 2), "pings": (10_000, 20)}
DAWDLERS = ("silent", "header-drip", "body-drip")
CONNECTIONS = 500


@benchmark("abuse", goal=f"p99 of ListJobs({PAGE}) at most {P99_MS:.0f} ms by either door under each attack")
async def abuse(run: Run) -> list[Row]:
    """ListJobs(50) by both doors while one attack goes on, each at a steady 50 calls a second.

    The attacker is a process of its own on the same cores, without a token. Latencies are counted as under a fork bomb.

    - rapid-resets: calls that are taken back at once, 20,000 on a connection, five times over.
    - streams: 10,000 calls on one connection that never end; what is refused of them is. Twice.
    - pings: as many as the server takes until it closes the connection, 20 times.
    - silent, header-drip, body-drip: 500 connections of REST that send nothing, or a byte every half second.
    """
    rows: list[Row] = []
    async with serving(run.directory / "data") as target:
        await together([lambda: target.create("true")] * PAGE, callers=4)
        await target.until_count(0, *LIVE)
        for name in (*FLOODS, *DAWDLERS):
            rows += await _under(name, target, run)
    return rows


async def _under(name: str, target: Target, run: Run) -> list[Row]:
    request = ListJobsRequest(limit=PAGE)
    doors: dict[str, Call] = {
        "grpc": lambda: target.rpc("ListJobs", request),
        "rest": lambda: target.get("/v1/jobs", {"limit": PAGE}),
    }
    for call in doors.values():
        await call()
    attack = asyncio.create_task(_attack(name, target, run))
    loads = [steadily(call, rate=RATE, until=lambda _: attack.done()) for call in doors.values()]
    samples = await asyncio.gather(*loads)
    await attack
    if not all(samples):
        raise NotMeasuredError(f"the attack {name} was over before a call was made")
    return [
        millis(f"{name}, ListJobs by {door}, p99", percentile(waited, 0.99), P99_MS)
        for door, waited in zip(doors, samples, strict=True)
    ]


async def _attack(name: str, target: Target, run: Run) -> None:
    server = target.server
    count, times = FLOODS.get(name, (CONNECTIONS, 1))
    for _ in range(run.scaled(times)):
        address = server.target if name in OVER_GRPC else server.url
        outcome = await elsewhere(name, address, count)
        if not outcome.sent:
            raise NotMeasuredError(f"the attack {name} sent nothing")
