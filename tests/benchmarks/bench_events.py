"""How soon many watchers learn of a change, and whether one that is cut off again and again misses any."""

import asyncio
import json
import resource
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from benchmarks.framework import Goal, NotMeasuredError, Row, Run, benchmark
from benchmarks.measuring import millis, steadily
from benchmarks.serving import PATIENCE_SECONDS, RUNNING, Target, serving
from benchmarks.sse_readers import Readings, disordered
from support.doors import server_sent

READERS, EVENTS_PER_SECOND, SECONDS = 1000, 50, 20
P99_MS, MOST_CALLS, SPARE_FILES = 100.0, 16, 256
CUT_SECONDS, CUTTING_SECONDS = 0.1, 60
TESTS = Path(__file__).parents[1]


@benchmark(
    "events",
    goal=f"{READERS:,} readers, {EVENTS_PER_SECOND} events a second: commit to arrival p99 at most {P99_MS:.0f} ms",
)
async def events(run: Run) -> list[Row]:
    """A thousand connections read GET /v1/stream as server-sent events, in one process beside the server's.

    Events are made at 50 a second for 20 seconds: jobs are created that must wait, and cancelled; at fixed instants,
    but no more than sixteen calls at a time.

    - events made: how many a second it came to; less than 50 means that the server takes no more.
    - latency: from the instant that an event names, just before its commit, to its arrival in the reader's process. So
      it has the commit in it, and the time that the reader's process took to get to it.
    - missed, disordered: arrivals that did not come about within 30 s; and those that came again or too late.
    """
    seconds = run.scaled(SECONDS)
    _allow_files(READERS + SPARE_FILES)
    async with _waiting_queue(run.directory / "data") as target:
        process = await _readers(target, run.scaled(READERS))
        try:
            began = time.time()
            made = await _make_events(target, seconds)
            span = (began, time.time())
            seen = await _told(process, span)
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
    if seen.events < made:
        raise NotMeasuredError(f"{made} events were made, and {seen.events} read")
    # A twentieth is the edges of the time.
    least = Goal(0.95 * EVENTS_PER_SECOND, at_least=True)
    return [
        Row(name="readers", value=run.scaled(READERS), unit="connections"),
        Row(name="events made", value=made / (span[1] - span[0]), unit="events/s", goal=least),
        Row(name="arrivals", value=seen.arrivals / (span[1] - span[0]), unit="events/s"),
        millis("latency p50", seen.p50),
        millis("latency p99", seen.p99, P99_MS),
        millis("latency, longest", seen.longest),
        Row(name="missed", value=seen.missed, unit="arrivals", goal=Goal(0)),
        Row(name="disordered", value=seen.disordered, unit="arrivals", goal=Goal(0)),
    ]


@benchmark("event-resume", goal="a reader cut off every 100 ms sees each event once and in order")
async def event_resume(run: Run) -> list[Row]:
    """One reader of GET /v1/stream whose connection is cut 100 ms after it was asked for, again and again for 60 s.

    It comes back with the number of the last event that it read whole, as a browser does. Events are made as above. At
    last it reads on undisturbed until it has seen the change of state that was made last.

    - missed: numbers left out between 1 and the last. disordered: numbers that do not exceed the one before them.
    """
    seconds = run.scaled(CUTTING_SECONDS)
    async with _waiting_queue(run.directory / "data") as target:
        reader = ResumingReader(target)
        made, _ = await asyncio.gather(_make_events(target, seconds), reader.read_in_pieces(seconds))
        # What the job did that keeps the queue waiting, too: it was queued, and started.
        await reader.read_to(made + 2)
    numbers = reader.numbers
    return [
        Row(name="connections", value=reader.connections, unit=""),
        Row(name="events read", value=len(numbers), unit="events"),
        Row(name="missed", value=max(numbers) - len(set(numbers)), unit="events", goal=Goal(0)),
        Row(name="disordered", value=disordered(numbers), unit="events", goal=Goal(0)),
    ]


class ResumingReader:
    """A reader of events that remembers where it was."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._changes = 0
        self.numbers: list[int] = []
        self.connections = 0

    async def read_in_pieces(self, seconds: float) -> None:
        """Reads for so long, and cuts the connection every 100 ms."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            with suppress(TimeoutError):
                async with asyncio.timeout(CUT_SECONDS):
                    await self._read(sys.maxsize)

    async def read_to(self, changes: int) -> None:
        """Reads until it has seen so many changes of state in all.

        Raises:
            NotMeasuredError: there are not so many.
        """
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self._read(changes)
        except TimeoutError:
            raise NotMeasuredError(f"{self._changes} of {changes} changes of state were read") from None

    async def _read(self, changes: int) -> None:
        self.connections += 1
        headers = {"Accept": "text/event-stream", "Last-Event-ID": str(self.numbers[-1] if self.numbers else 0)}
        async with self._target.session.get("/v1/stream", headers=headers) as response:
            incoming = server_sent(response.content)
            while self._changes < changes:
                event = await anext(incoming)
                if "id" in event:
                    self.numbers.append(int(event["id"]))
                    self._changes += event["event"] == "job.state_changed"


@asynccontextmanager
async def _waiting_queue(data_dir: Path) -> AsyncIterator[Target]:
    """A server whose only slot is taken: what is created waits."""
    async with serving(data_dir, "--max-running", "1") as target:
        await target.create("sleep", "3600")
        await target.until_count(1, RUNNING)
        yield target


async def _make_events(target: Target, seconds: float) -> int:
    """Makes events at a steady rate, but no more than the server takes. Returns how many."""
    made, slots = 0, asyncio.Semaphore(MOST_CALLS)
    end = time.monotonic() + seconds

    async def two() -> None:
        nonlocal made
        async with slots:
            if time.monotonic() < end:
                await target.cancel(await target.create("true"))
                made += 2

    await steadily(two, rate=EVENTS_PER_SECOND / 2, until=lambda passed: passed >= seconds)
    return made


def _allow_files(count: int) -> None:
    """Lets the server, and the readers' process, have that many open: the usual limit is a little too low."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= count:
        return
    if hard != resource.RLIM_INFINITY and hard < count:
        raise NotMeasuredError(f"this takes {count} open files, and the limit is {hard}: raise it with `ulimit -Hn`")
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


async def _readers(target: Target, count: int) -> Process:
    """The process of the readers, all connected."""
    arguments = (target.server.url, target.server.endpoints["token_file"], str(count))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.sse_readers", *arguments, stdin=PIPE, stdout=PIPE, cwd=TESTS
    )
    if await _line(process) != b"ready\n":
        await process.wait()
        raise NotMeasuredError(f"{count} readers could not connect")
    return process


async def _told(process: Process, span: tuple[float, float]) -> Readings:
    if process.stdin is None:
        raise NotMeasuredError("the readers' process can't be told when to end")
    process.stdin.write(json.dumps(span).encode() + b"\n")
    return Readings(**json.loads(await _line(process)))


async def _line(process: Process) -> bytes:
    """The next line of its output; empty where it has ended."""
    if process.stdout is None:
        return b""
    async with asyncio.timeout(PATIENCE_SECONDS):
        return await process.stdout.readline()
