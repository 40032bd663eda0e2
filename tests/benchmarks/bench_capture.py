"""How fast a job may write, and what the server notices of it."""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.framework import Goal, NotMeasuredError, Row, Run, benchmark
from benchmarks.measuring import Call, median, millis, percentile, steadily
from benchmarks.serving import Target, python, serving
from jobledger.v1.job_pb2 import JobLimits
from jobledger.v1.job_service_pb2 import GetLogsRequest
from support.eventually import pace

LINES, LINE = 5_000_000, b"%019d " + b"." * 59 + b"\n"
LOG_BYTES = 16 * 2**30
ROUNDS, PROBES_PER_SECOND, LOOK_SECONDS = 3, 100, 0.1
LINES_PER_SECOND, STALL_MS, GROWTH_MIB = 1_000_000, 50.0, 16.0
# A loop that sends each byte back, and does nothing else.
ECHO = """
import asyncio

async def echo(reader, writer):
    while byte := await reader.read(1):
        writer.write(byte)

async def main():
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()

asyncio.run(main())
"""


@dataclass
class Seen:
    """What was seen of the server and the shim while one job wrote; sizes in MiB, times in seconds."""

    server: list[float] = field(default_factory=list)
    shim: list[float] = field(default_factory=list)
    stalls: list[float] = field(default_factory=list)
    seconds: float = 0.0


@benchmark(
    "capture",
    goal=f"{LINES_PER_SECOND:,} lines a second from one job, start to durable, no stall of the server beyond"
    f" {STALL_MS:.0f} ms",
)
async def capture(run: Run) -> list[Row]:
    """A job `cat`s a file of five million lines of 80 bytes to its standard output.

    - lines a second: their number by the time from sending CreateJob to the answer of WaitJob that says `completed`,
      when the log is durable and its hash in the receipt. Median of three rounds.
    - bare: `cat FILE | cat > COPY` and an fsync of the copy, in turn with the job.
    - stall: latency of GET /healthz, which does nothing, meanwhile, at a steady 100 a second; all rounds together.
    - bare, stall: the same of a byte that a loop with nothing else to do sends back while `bare` runs. It is what the
      machine itself adds, with as many programs at work as it has cores.
    - growth: of resident memory, from the first look while a job ran to the largest, looked at ten times a second; of
      the server over all rounds, of the supervisors, of which each round has its own, the largest.
    - lines off: by which the log's `total` is wrong.
    """
    lines = run.scaled(LINES)
    source = run.directory / "lines"
    await asyncio.to_thread(_write_lines, source, lines)
    rounds, bare, off = list[Seen](), list[Seen](), 0
    async with serving(run.directory / "data") as target, _echoing() as echo:
        for _ in range(ROUNDS):
            bare.append(await _watched(source, run.directory / "copy", echo))
            seen, total = await _captured(target, source)
            rounds.append(seen)
            off += abs(total - lines)
    return _rows(lines, rounds, bare, off)


def _write_lines(path: Path, count: int) -> None:
    with path.open("wb") as file:
        file.writelines(LINE % number for number in range(count))


@asynccontextmanager
async def _echoing() -> AsyncIterator[Call]:
    """A call that takes as long as a loop does that has nothing to do."""
    process = await asyncio.create_subprocess_exec(*python(ECHO), stdout=asyncio.subprocess.PIPE)
    turn = asyncio.Lock()
    try:
        assert process.stdout is not None
        reader, writer = await asyncio.open_connection("127.0.0.1", int(await process.stdout.readline()))

        async def echo() -> None:
            async with turn:
                writer.write(b".")
                await reader.readexactly(1)

        yield echo
        writer.close()
    finally:
        process.kill()
        await process.wait()


async def _watched(source: Path, copy: Path, echo: Call) -> Seen:
    """What it takes without us, and what a loop notices of it."""
    over = asyncio.Event()

    async def write() -> float:
        try:
            return await _bare(source, copy)
        finally:
            over.set()

    probing = steadily(echo, rate=PROBES_PER_SECOND, until=lambda _: over.is_set())
    seconds, stalls = await asyncio.gather(write(), probing)
    return Seen(seconds=seconds, stalls=stalls)


async def _bare(source: Path, copy: Path) -> float:
    """Seconds that it takes without us."""
    began = time.monotonic()
    process = await asyncio.create_subprocess_exec("sh", "-c", 'cat "$0" | cat > "$1"', source, copy)
    if await process.wait() != 0:
        raise NotMeasuredError("`cat` fails on this machine")
    await asyncio.to_thread(_sync, copy)
    return time.monotonic() - began


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


async def _captured(target: Target, source: Path) -> tuple[Seen, int]:
    """One round, and how many entries the log has."""
    seen, over = Seen(), asyncio.Event()

    async def job() -> str:
        try:
            began = time.monotonic()
            job_id = await target.create("cat", str(source), limits=JobLimits(log_bytes=LOG_BYTES))
            await target.ended(job_id)
            seen.seconds = time.monotonic() - began
            return job_id
        finally:
            over.set()

    async def probe() -> None:
        await target.get("/healthz")
        seen.stalls = await steadily(
            lambda: target.get("/healthz"), rate=PROBES_PER_SECOND, until=lambda _: over.is_set()
        )

    job_id, *_ = await asyncio.gather(job(), probe(), _look(target, seen, over))
    answer = await target.jobs.GetLogs(GetLogsRequest(job_id=job_id, limit=1), metadata=target.metadata)
    return seen, answer.total


async def _look(target: Target, seen: Seen, over: asyncio.Event) -> None:
    """Looks at the memory of both until the job is over."""
    data_dir = target.server.data_dir
    while not over.is_set():
        seen.server.append(target.server.resident_megabytes())
        seen.shim += [resident for resident in map(_resident, _shims(data_dir)) if resident]
        await pace(LOOK_SECONDS)


def _shims(data_dir: Path) -> list[int]:
    """Supervisors of the attempts that were started: those of the ones before have ended."""
    found = []
    for started in data_dir.glob("control/*/started.json"):
        try:
            found.append(int(json.loads(started.read_text())["shim"]))
        except (OSError, ValueError, KeyError):  # not said yet
            continue
    return found


def _resident(pid: int) -> float:
    """MiB; 0 where there is no such process any more."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS")), 0.0)


def _rows(lines: int, rounds: list[Seen], bare: list[Seen], off: int) -> list[Row]:
    stalls, floor = ([latency for seen in of for latency in seen.stalls] for of in (rounds, bare))
    if not all(seen.shim for seen in rounds):
        raise NotMeasuredError("the supervisor's memory could not be looked at")
    rate = lines / median([seen.seconds for seen in rounds])
    flat, server = Goal(GROWTH_MIB), [size for seen in rounds for size in seen.server]
    return [
        Row(name="lines a second", value=rate, unit="lines/s", goal=Goal(LINES_PER_SECOND, at_least=True)),
        Row(name="bare, lines a second", value=lines / median([seen.seconds for seen in bare]), unit="lines/s"),
        Row(name="lines off", value=off, unit="lines", goal=Goal(0)),
        millis("stall p50", median(stalls)),
        millis("stall p99", percentile(stalls, 0.99), STALL_MS),
        millis("stall, longest", max(stalls), STALL_MS),
        millis("bare, stall p99", percentile(floor, 0.99)),
        millis("bare, stall, longest", max(floor)),
        Row(name="growth of the server", value=_growth(server), unit="MiB", goal=flat),
        Row(name="growth of the supervisor", value=max(_growth(it.shim) for it in rounds), unit="MiB", goal=flat),
        Row(name="supervisor, largest", value=max(max(it.shim) for it in rounds), unit="MiB"),
        Row(name="server, largest", value=max(server), unit="MiB"),
    ]


def _growth(sizes: list[float]) -> float:
    return max(sizes) - sizes[0]
