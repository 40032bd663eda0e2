"""A program that does one thing again and again in forks of itself, each killed one writing system call later.

Usage: crash_points.py OPERATION DIRECTORY

Ends with the fork that came to the end of the operation unharmed. Prints a line of JSON for each fork: the `directory`
that it worked in, what it had `acknowledged` by then, the writing `calls`, and whether it was `killed`, which is before
the last of them. A fork costs milliseconds where a new interpreter would cost the better part of a second.
"""

import asyncio
import gc
import itertools
import json
import os
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import NoReturn

from executors.harness import Lab
from faults import ptrace
from jobledger_server.core.ports import JobRecord, Launch
from jobledger_server.executors.local import shim
from jobledger_server.executors.local.attempt import Attempt
from jobledger_server.executors.local.isolation import NO_ISOLATION
from jobledger_server.stores.sqlite import SqliteStore
from jobledger_server.stores.sqlite.connection import connect
from jobledger_server.stores.sqlite.migrate import migrate, shipped_migrations
from support.clock import ManualClock
from support.executors import SUCCESS, ScriptedExecutor
from support.installations import archiving
from support.records import RUNNING, a_key, a_record, state_changed
from support.services import serving

FAILED, FORBIDDEN = 70, 77
KEY = a_key("crashing")
OUTPUT = b"what the job has made\n"
LINES = ["one", "two"]
Say = Callable[[str], None]
Ready = Callable[[], None]


def a_second_record(attempt: int = 1) -> JobRecord:
    """Of the job that KEY makes, as each attempt to make it would have it."""
    return a_record(job_id=f"job_second_{attempt}")


def crash_job(lab: Lab, job_id: str) -> Launch:
    """A job that leaves a line in a file each time that it starts, and says LINES."""
    starts = lab.root / "starts"
    says = "; ".join(f"echo {line}" for line in LINES)
    return lab.shell(f"echo {job_id} >> {starts}; {says}", job_id=job_id)


async def create(directory: Path, ready: Ready, say: Say) -> None:
    """A second job, with an idempotency key; then the store is closed, which clears its log of writes away."""
    async with SqliteStore(directory / "jobledger.db") as store:
        first = a_record()
        await store.create_job(first, [state_changed(first)])
        ready()
        record = a_second_record()
        created = await store.create_job(record, [state_changed(record)], KEY)
        say(created.job.job_id)
    say("closed")


async def finish(directory: Path, ready: Ready, say: Say) -> None:
    """The end of a second job: its artifact, state, event, receipt and leaf; then its place in the archive."""
    executor = ScriptedExecutor(clock=(clock := ManualClock()))
    async with (
        SqliteStore(directory / "jobledger.db") as store,
        serving(directory, store=store, clock=clock, executor=executor) as served,
        archiving(directory, store=store, clock=clock) as archiver,
    ):
        for last in (False, True):
            job_id = await served.create()
            await served.reaches(job_id, RUNNING)
            (directory / "jobs" / job_id / "output" / "result").write_bytes(OUTPUT)
            if last:
                ready()
            await served.finisher.attempt_ended(job_id, 1, SUCCESS)
            if last:
                say(job_id)
            await archiver.caught_up()
        say("archived")
        os._exit(0)


def migrate_from(version: int, directory: Path, ready: Ready, say: Say) -> None:
    """The way of a database from nothing to this schema; or from an older one to the next.

    Each step is a transaction of its own: how the further ones go is how they go from nothing.
    """
    steps = shipped_migrations()
    if version:
        steps = steps[: version + 1]
        with closing(connect(directory / "jobledger.db", busy_timeout=0)) as connection:
            migrate(connection, steps[:version])
    ready()
    migrate(connect(directory / "jobledger.db", busy_timeout=0), steps)
    say("migrated")


def supervise(directory: Path, ready: Ready, say: Say) -> None:
    """A shim, from its first instruction to its last word."""
    launch = crash_job(Lab(directory.parent), directory.name)
    attempt = Attempt(job_id=launch.job_id, number=1, control_root=directory.parent / "data" / "control")
    attempt.prepare(launch, NO_ISOLATION)
    ready()
    os.setsid()
    shim.main(str(attempt.control.path))
    say("ended")


def probe(directory: Path, ready: Ready, say: Say) -> None:
    """Six calls by three threads: one that was there before the tracer, one that came later, and the first."""
    go, there = threading.Event(), threading.Event()

    def early() -> None:
        there.set()
        go.wait()
        os.mkdir(directory / "a")  # noqa: PTH102 - one plain system call each
        os.mkdir(directory / "b")  # noqa: PTH102

    waiting = threading.Thread(target=early, daemon=True)
    waiting.start()
    there.wait()
    ready()
    go.set()
    waiting.join()
    late = threading.Thread(target=lambda: os.rename(directory / "a", directory / "c"), daemon=True)  # noqa: PTH104
    late.start()
    late.join()
    os.mkdir(directory / "d")  # noqa: PTH102
    os.rmdir(directory / "d")  # noqa: PTH106
    say("ended")


OPERATIONS: Mapping[str, Callable[[Path, Ready, Say], object]] = {
    "create": lambda *run: asyncio.run(create(*run)),
    "finish": lambda *run: asyncio.run(finish(*run)),
    "supervise": supervise,
    "probe": probe,
} | {f"migrate-{version}": partial(migrate_from, version) for version in range(len(shipped_migrations()))}


class Channel:
    """Pipes between a fork and this process: when to begin, and what was acknowledged."""

    def __init__(self) -> None:
        self.ready, self._ready_end = os.pipe()
        self._go, self.go_end = os.pipe()
        self.said, self._say_end = os.pipe()

    def leave_to_child(self) -> None:
        for descriptor in (self._ready_end, self._go, self._say_end):
            os.close(descriptor)

    def wait_to_begin(self) -> None:
        """In the child: it is warm; from here on it is traced."""
        os.write(self._ready_end, b"r")
        os.read(self._go, 1)

    def say(self, text: str) -> None:
        os.write(self._say_end, f"{text}\n".encode())

    def close(self) -> None:
        for descriptor in (self.ready, self.go_end, self.said):
            os.close(descriptor)


def run(operation: str, directory: Path, kill_before: int) -> tuple[ptrace.Trace, list[str]]:
    """Does it in a fork. Returns how that went, and what it acknowledged."""
    directory.mkdir()
    channel = Channel()
    pid = os.fork()
    if pid == 0:
        _work(operation, directory, channel)
    channel.leave_to_child()
    if not os.read(channel.ready, 1):
        raise SystemExit(f"{operation} failed before it began")
    ptrace.attach(pid)
    os.write(channel.go_end, b"g")
    trace = ptrace.follow(pid, kill_before=kill_before)
    acknowledged = os.read(channel.said, 65536).decode().split()
    channel.close()
    return trace, acknowledged


def _work(operation: str, directory: Path, channel: Channel) -> NoReturn:
    status = FAILED
    try:
        OPERATIONS[operation](directory, channel.wait_to_begin, channel.say)
        status = 0
    except BaseException:  # noqa: BLE001 - a fork must not get into its parent's loop
        traceback.print_exc()
    finally:
        os._exit(status)


def main(operation: str, place: str) -> None:
    gc.freeze()
    for kill_before in itertools.count(1):
        directory = Path(place) / f"{operation}-{kill_before}"
        try:
            trace, acknowledged = run(operation, directory, kill_before)
        except PermissionError as error:
            print(error, file=sys.stderr)
            sys.exit(FORBIDDEN)
        line = {"directory": str(directory), "acknowledged": acknowledged}
        print(json.dumps(line | {"calls": trace.calls, "killed": trace.killed}), flush=True)
        if not trace.killed:
            sys.exit(trace.exit_code)


if __name__ == "__main__":
    main(*sys.argv[1:])
