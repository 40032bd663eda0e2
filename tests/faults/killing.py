"""A load over real processes whose server, and now and then a supervisor, is killed without warning.

Every job leaves a line in a file when it starts, so that one that runs twice shows; prints numbered lines; and ends
with a known exit code.
"""

import asyncio
import contextlib
import json
import os
import random
import signal
import sqlite3
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from faults.ledger import broken_promises
from jobledger.receipts import load_keys, verify
from jobledger.v1.job_pb2 import Job
from support.doors import GrpcDoor, Refused
from support.eventually import eventually, pace
from support.running import RunningServer, start

LINES = 20
LIVE = ["queued", "running", "cancelling"]
# More are not submitted: what is left at the end of the load must end soon.
BACKLOG = 100
JOB = """
echo "$JOBLEDGER_JOB_ID $JOBLEDGER_ATTEMPT" >> {starts}
i=0; while [ $i -lt {lines} ]; do i=$((i+1)); echo "line $i"; done
sleep {pause}
exit {code}
"""


@dataclass
class Tally:
    """What was done, and what was acknowledged: exit codes by job_id."""

    expected: dict[str, int] = field(default_factory=dict)
    asked: int = 0
    server_kills: int = 0
    shim_kills: int = 0
    seconds: float = 0.0


class KillLoop:
    """Submits jobs with idempotency keys while the server dies again and again."""

    def __init__(self, *, data_dir: Path, seed: int, seconds: float, kills: int, jobs: int) -> None:
        """Loop that goes on for so many seconds, kills of the server and acknowledged jobs at the least."""
        self._data_dir = data_dir
        self._random = random.Random(seed)
        self._seconds = seconds
        self._kills = kills
        self._jobs = jobs
        self._starts = data_dir.parent / "starts"
        self._server: RunningServer | None = None
        self.tally = Tally()

    async def run(self) -> Tally:
        """Until there was enough of everything; then waits for the end of every job."""
        began = time.monotonic()
        stop = asyncio.Event()
        self._launch()
        submitters = [asyncio.create_task(self._submit(number, stop)) for number in range(4)]
        while time.monotonic() - began < self._seconds or self._wants_more():
            # Mostly in the midst of a start, and now and then after a while of work.
            await pace(self._random.uniform(0.05, 0.6) if self._random.random() < 0.8 else self._random.uniform(1, 5))
            await self._kill_something()
        stop.set()
        await asyncio.gather(*submitters)
        await self._settle()
        self.tally.seconds = time.monotonic() - began
        return self.tally

    def _wants_more(self) -> bool:
        return self.tally.server_kills < self._kills or len(self.tally.expected) < self._jobs

    def _launch(self) -> None:
        self._server = start(self._data_dir, "--max-running", "16")

    async def _kill_something(self) -> None:
        if self._random.random() < 0.05:
            self._kill_a_shim()
            return
        if self._server is not None:
            self._server.kill()
            self.tally.server_kills += 1
        await asyncio.to_thread(self._launch)

    def _kill_a_shim(self) -> None:
        for started in self._random.sample(found := list(self._data_dir.glob("control/*/started.json")), len(found)):
            if (started.parent / "exit.json").exists():
                continue
            with contextlib.suppress(OSError, ValueError, KeyError):
                os.kill(json.loads(started.read_text())["shim"], signal.SIGKILL)
                self.tally.shim_kills += 1
                return

    async def _submit(self, number: int, stop: asyncio.Event) -> None:
        count = 0
        while not stop.is_set():
            count += 1
            self.tally.asked += 1
            code = self._random.choice((0, 0, 0, 1, 7))
            pause = self._random.choice((0, 0, 0.05, 0.3))
            script = JOB.format(starts=self._starts, lines=LINES, pause=pause, code=code)
            job_id = await self._insist(f"{number}-{count}", script, stop)
            if job_id is not None:
                self.tally.expected[job_id] = code

    async def _insist(self, key: str, script: str, stop: asyncio.Event) -> str | None:
        """Asks until there is an answer; the key makes that safe. None where the loop ended before."""
        while not stop.is_set():
            server = self._server
            assert server is not None
            async with grpc.aio.insecure_channel(server.target) as channel:
                door = GrpcDoor(channel, server.token)
                try:
                    async with asyncio.timeout(2):
                        if (await door.call("ListJobs", state=LIVE, limit=1))["total"] < BACKLOG:
                            return str((await door.create("sh", "-c", script, key=key))["job_id"])
                except (Refused, TimeoutError):
                    pass
                await pace(0.02)
        return None

    async def _settle(self) -> None:
        """Waits, bounded, until nothing is queued or running any more, and nothing of it is kept."""
        assert self._server is not None
        async with grpc.aio.insecure_channel(self._server.target) as channel:
            door = GrpcDoor(channel, self._server.token)
            await eventually(
                lambda: door.call("ListJobs", state=LIVE), seconds=60, until=lambda page: page["total"] == 0
            )
        await eventually(self._kept_attempts, until=lambda kept: not kept)

    async def _kept_attempts(self) -> list[Path]:
        return list((self._data_dir / "control").iterdir())

    async def violations(self) -> list[str]:
        """Every promise that does not hold, in words."""
        assert self._server is not None
        found: list[str] = []
        async with grpc.aio.insecure_channel(self._server.target) as channel:
            door = GrpcDoor(channel, self._server.token)
            keys = load_keys(self._data_dir / "keys" / "keys.json")
            for job_id, code in self.tally.expected.items():
                found += [f"{job_id}: {problem}" for problem in await self._problems(door, keys, job_id, code)]
        self._server.stop()
        return found + self._wrong_counts() + broken_promises(self._data_dir / "jobledger.db")

    async def _problems(self, door: GrpcDoor, keys: Any, job_id: str, code: int) -> list[str]:
        try:
            job = await door.get(job_id)
            logs = await door.call("GetLogs", job_id=job_id)
            envelope, _ = await door.receipt(job_id, "dsse")
        except Refused as refused:
            return [f"was acknowledged and is {refused.error_code}"]
        found = []
        told = (job["state"], job.get("exit_code", 0 if job["state"] == "completed" else None))
        lost = job.get("error_code") == "E_JOB_LOST"
        if not lost and told != (("completed", 0) if code == 0 else ("failed", code)):
            found.append(f"ended as {told} {job.get('error_code')}, not with exit code {code}")
        messages = [entry["message"] for entry in logs["logs"]]
        whole = [f"line {number}" for number in range(1, LINES + 1)]
        if messages != (whole[: len(messages)] if lost else whole):
            found.append(f"has the log {messages}")
        if verify(envelope, keys=keys, job_id=job_id).exit_code != 0:
            found.append("has a receipt that does not verify")
        return found

    def _wrong_counts(self) -> list[str]:
        """What ran more than once or not at all, was made twice, or was lost though its supervisor was not killed."""
        with contextlib.closing(sqlite3.connect(self._data_dir / "jobledger.db")) as database:
            jobs = [Job.FromString(data) for (data,) in database.execute("SELECT job FROM jobs")]
        lost = {job.job_id for job in jobs if job.error_code == "E_JOB_LOST"}
        starts = Counter(self._starts.read_text().splitlines())
        ran = {line.split()[0] for line in starts}
        found = [f"{line} ran {count} times" for line, count in starts.items() if count > 1]
        found += [f"{job.job_id} ended and never ran" for job in jobs if job.job_id not in ran | lost]
        if len(jobs) > self.tally.asked:
            found.append(f"{self.tally.asked} idempotency keys made {len(jobs)} jobs")
        if len(lost) > self.tally.shim_kills:
            found.append(f"{len(lost)} jobs were lost, {self.tally.shim_kills} supervisors were killed")
        return found
