"""What JSON over HTTP costs: beside Envoy in front of the same server, and beside gRPC itself."""

import asyncio
import statistics
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from importlib import resources
from itertools import count, islice
from pathlib import Path

import grpc
from benchmarks.framework import Goal, NotMeasuredError, Row, Run, benchmark
from benchmarks.http_load import Connection, address_of, get, rate
from benchmarks.ledgers import write_ledger
from benchmarks.measuring import Call, median, millis, timed, together
from benchmarks.serving import CHANNEL_OPTIONS, SERVICE, Target, python, serving
from jobledger.v1.job_pb2 import JobLimits
from jobledger.v1.job_service_pb2 import GetJobRequest, ListJobsRequest
from support.envoy import NoEnvoyError, envoy

JOBS, PAGE = 1_000, 50
ENTRIES, LIMIT = 1_000_000, 1_000
LOG_BYTES = 2 * 2**30
CONNECTIONS, PAIRS = 8, 21
# Requests of each round of a pair.
BURSTS = {"list": 400, "log pages": 60, "page again": 100}
GOALS = {"list": 2.0, "log pages": 2.0, "page again": 5.0}
CALLS, BARE_SHARE = 400, 0.5
EVENTS, STREAMS, EVENTS_MS = 1_000, 40, 6.0
UNARY, UNARY_MS = 2_000, 0.4
WRITER = """
import sys
line = b"entry %d, as long as lines of a log are: GET /v1/jobs 200 in 3 ms\\n"
for start in range(0, {entries}, 1000):
    sys.stdout.buffer.write(b"".join(line % number for number in range(start, start + 1000)))
"""
# The requests of a round.
Requests = Callable[[int], list[bytes]]


@benchmark(
    "transcoding",
    goal=f"requests a second, times Envoy's: {PAGE} of {JOBS:,} jobs {GOALS['list']:.0f},"
    f" {LIMIT:,} log entries {GOALS['log pages']:.0f}, the same again {GOALS['page again']:.0f};"
    f" ListJobs by gRPC {BARE_SHARE} times a bare handler; {EVENTS:,} server-sent events {EVENTS_MS:.0f} ms;"
    f" a unary call in process {UNARY_MS} ms",
)
async def transcoding(run: Run) -> list[Row]:
    """The REST door of `jobledger up`, with all that it does, beside Envoy (one worker) before its own gRPC port.

    - list: GET /v1/jobs?limit=50 of a thousand jobs. log pages: GET .../logs?limit=1000 of a log of a million entries,
      each page at an offset that nobody has asked for. page again: one such page, of a log that is sealed, asked again.
      Eight connections, a request at a time on each; pairs of bursts, one through either, in turn. Rates are medians;
      times Envoy's is the median of the pairs' ratios.
    - grpc list: ListJobs(50) by gRPC, eight calls at a time, beside a grpc.aio server that has nothing but a handler
      that returns the same message as a constant.
    - server-sent events: CPU time of the server, all its threads, for a tail of a thousand entries of a log.
    - unary: GET /v1/jobs/{job_id} on one connection, from the request to the last byte of the answer. In process: of
      the transcoder alone, before a handler in its process that returns that job as a constant. With everything on: of
      `jobledger up`, with token, policy, validation and store.
    """
    data = run.directory / "data"
    await asyncio.to_thread(write_ledger, data, JOBS)
    async with serving(data) as target:
        job_id = await _written(target, run.scaled(ENTRIES))
        rows = await _beside_envoy(run, target, job_id)
        rows += await _beside_bare(run, target)
        rows.append(await _events(run, target, job_id))
        rows += await _unary(run, target, job_id)
    return rows


async def _written(target: Target, entries: int) -> str:
    """A job that has left so many lines."""
    script = WRITER.format(entries=entries)
    job_id = await target.create(*python(script), limits=JobLimits(log_bytes=LOG_BYTES))
    await target.ended(job_id)
    return job_id


async def _beside_envoy(run: Run, target: Target, job_id: str) -> list[Row]:
    token, entries = target.server.token, run.scaled(ENTRIES)
    with _transcoding(run, target) as address:
        doors = {"jobledger": address_of(target.server.url), "envoy": address}
        rows: list[Row] = []
        for name, requests in _kinds(token, job_id, entries).items():
            size = run.scaled(BURSTS[name])
            pairs = await asyncio.to_thread(_pairs, doors, requests, run.scaled(PAIRS), size)
            rows += _compared(name, pairs)
    return rows


@contextmanager
def _transcoding(run: Run, target: Target) -> Iterator[str]:
    descriptors = resources.files("jobledger.v1").joinpath("descriptors.binpb").read_bytes()
    try:
        with envoy(
            run.directory,
            descriptor_set=descriptors,
            services=["jobledger.v1.JobService"],
            target=target.server.target,
        ) as address:
            yield address
    except NoEnvoyError as error:
        raise NotMeasuredError(str(error)) from None


def _kinds(token: str, job_id: str, entries: int) -> Mapping[str, Requests]:
    page = f"/v1/jobs/{job_id}/logs?limit={LIMIT}&offset="
    # Strides without a common divisor: no place comes twice before all have.
    offsets = (number * 7919 % (entries - 2 * LIMIT) for number in count(1))
    return {
        "list": lambda size: [get(f"/v1/jobs?limit={PAGE}", token)] * size,
        "log pages": lambda size: [get(f"{page}{offset}", token) for offset in islice(offsets, size)],
        "page again": lambda size: [get(f"{page}{entries - LIMIT}", token)] * size,
    }


def _pairs(doors: Mapping[str, str], requests: Requests, pairs: int, size: int) -> list[dict[str, float]]:
    """Rates of each door, pair by pair; every other one in reverse order, after one that does not count."""
    order, found = list(doors), []
    for _ in range(pairs + 1):
        found.append({door: rate(doors[door], requests(size), connections=CONNECTIONS) for door in order})
        order.reverse()
    return found[1:]


def _compared(name: str, pairs: list[dict[str, float]]) -> list[Row]:
    rates = {door: statistics.median(pair[door] for pair in pairs) for door in ("jobledger", "envoy")}
    times = statistics.median(pair["jobledger"] / pair["envoy"] for pair in pairs)
    return [
        *(Row(name=f"{name}, {door}", value=value, unit="/s") for door, value in rates.items()),
        Row(name=f"{name}, times Envoy's", value=times, unit="times", goal=Goal(GOALS[name], at_least=True)),
    ]


async def _beside_bare(run: Run, target: Target) -> list[Row]:
    request = ListJobsRequest(limit=PAGE)
    constant = await target.rpc("ListJobs", request)
    calls = run.scaled(CALLS)
    async with (
        _bare("bare_grpc", run, constant) as address,
        grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS) as channel,
    ):
        handler: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"{SERVICE}ListJobs")

        async def bare() -> None:
            await handler(request.SerializeToString(), metadata=target.metadata)

        contenders: Mapping[str, Call] = {"jobledger": partial(target.rpc, "ListJobs", request), "bare": bare}
        pairs: list[dict[str, float]] = []
        for _ in range(run.scaled(PAIRS) + 1):
            order = list(contenders) if len(pairs) % 2 else list(contenders)[::-1]
            seconds = {
                it: await timed(partial(together, [contenders[it]] * calls, callers=CONNECTIONS)) for it in order
            }
            pairs.append({it: calls / took for it, took in seconds.items()})
    share = statistics.median(pair["jobledger"] / pair["bare"] for pair in pairs[1:])
    rates = {it: statistics.median(pair[it] for pair in pairs[1:]) for it in contenders}
    return [
        *(Row(name=f"grpc list, {it}", value=value, unit="/s") for it, value in rates.items()),
        Row(name="grpc list, times a bare handler", value=share, unit="times", goal=Goal(BARE_SHARE, at_least=True)),
    ]


@asynccontextmanager
async def _bare(module: str, run: Run, constant: bytes) -> AsyncIterator[str]:
    """The address of a server in a process of its own that has nothing but one handler, which returns a constant."""
    file = run.directory / f"{module}.binpb"
    file.write_bytes(constant)
    command = [sys.executable, "-m", f"benchmarks.{module}", str(file)]
    process = await asyncio.create_subprocess_exec(*command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin
    assert process.stdout
    try:
        address = (await process.stdout.readline()).decode().strip()
        if not address:
            raise NotMeasuredError(f"{module} did not start")
        yield address
    finally:
        process.stdin.close()
        await process.wait()


async def _events(run: Run, target: Target, job_id: str) -> Row:
    after = run.scaled(ENTRIES) - EVENTS
    request = get(f"/v1/jobs/{job_id}/logs/tail?after_sequence={after}", target.server.token)
    streams = run.scaled(STREAMS)

    def read() -> float:
        connection = Connection(address_of(target.server.url))
        for number in range(streams + 1):
            if number == 1:  # the first does not count
                began = _cpu_seconds(target.server.process.pid)
            if connection.ask(request).count(b"event: log\n") != EVENTS:
                raise NotMeasuredError("a tail has not as many events as it should")
        connection.close()
        return (_cpu_seconds(target.server.process.pid) - began) / streams

    return millis(f"{EVENTS:,} server-sent events, CPU time", await asyncio.to_thread(read), EVENTS_MS)


def _cpu_seconds(pid: int) -> float:
    """What the threads of a process have spent, to the nanosecond."""
    try:
        threads = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/schedstat")]
    except OSError as error:
        raise NotMeasuredError(f"this system does not tell the CPU time of threads: {error}") from None
    if not threads:
        raise NotMeasuredError("this system does not tell the CPU time of threads")
    return sum(int(thread.split()[0]) for thread in threads) / 1e9


async def _unary(run: Run, target: Target, job_id: str) -> list[Row]:
    request = get(f"/v1/jobs/{job_id}", target.server.token)
    job = await target.rpc("GetJob", GetJobRequest(job_id=job_id))
    async with _bare("bare_gateway", run, job) as address:
        doors = {"in process": Connection(address), "with everything on": Connection(address_of(target.server.url))}
        took: dict[str, list[float]] = {door: [] for door in doors}
        for _ in range(run.scaled(UNARY)):
            for door, connection in doors.items():
                took[door].append(await timed(partial(_asked, connection, request)))
        for connection in doors.values():
            connection.close()
    return [
        millis("unary in process, p50", median(took["in process"]), UNARY_MS),
        millis("unary with everything on, p50", median(took["with everything on"])),
    ]


async def _asked(connection: Connection, request: bytes) -> bytes:
    return connection.ask(request)
