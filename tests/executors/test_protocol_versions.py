"""The control directory has a protocol: what an earlier server left is taken over, what a later one left is let be."""

import asyncio
import contextlib
import json
import shutil
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from executors.harness import Lab, eventually, runs
from jobledger_server.core.ports import EndReason, LogSummary, NewerAttemptError, Outcome, ProgressReport, Running
from jobledger_server.executors.local.control_dir import PROTOCOL, ControlDir
from jobledger_server.executors.local.executor import LocalExecutor
from support.doors import GrpcDoor
from support.running import output_file, start

DATA = Path(__file__).parents[1] / "data"
JOB = "job_01kdyak3480000000000000001"

# A supervisor in so far as protocol 1 says what one does: it takes nothing from the code that it stands in for.
STAND_IN = """
import fcntl, json, os, sys
os.chdir(sys.argv[1])
lock = os.open("lock", os.O_RDWR | os.O_CREAT, 0o600)
fcntl.flock(lock, fcntl.LOCK_EX)
os.mkfifo("wake", 0o600)
wake = os.open("wake", os.O_RDWR)
with open("started.json", "x") as file:
    json.dump({"shim": os.getpid(), "started_at": 5, "pid": os.getpid(), "pid_started": 0, "boot_id": ""}, file)
print("ready", flush=True)
while not os.path.exists("cancel.json"):
    os.read(wake, 64)
grace = json.load(open("cancel.json"))["grace_seconds"]
log = {"entries": 2, "sha256": "", "warnings": 1, "errors": 0}
word = {"reason": "cancelled", "exit_code": None, "signal": 15, "message": f"after {grace} s"}
with open("exit.tmp", "w") as file:
    json.dump({"protocol": 1, "started_at": 5, "ended_at": 7, "log": log, "ignored_messages": 0, **word}, file)
os.rename("exit.tmp", "exit.json")
"""


def left_behind(lab: Lab, name: str) -> ControlDir:
    """A control directory as it was written then, in a data directory of now."""
    control = ControlDir(lab.root / "data" / "control" / f"{JOB}.1")
    shutil.copytree(DATA / name, control.path)
    control.spec.write_text(control.spec.read_text().replace("@ROOT@", str(lab.root)))
    (lab.root / "jobs" / JOB).mkdir(parents=True)
    return control


@asynccontextmanager
async def stand_in(control: ControlDir) -> AsyncIterator[Process]:
    """A supervisor that runs."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", STAND_IN, control.path, stdout=PIPE)
    assert process.stdout
    assert await process.stdout.readline() == b"ready\n"
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@pytest.mark.parametrize(
    ("protocol", "started_at", "ended_at", "sha256"),
    [
        (
            1,
            1_795_306_126_427_155,
            1_795_306_127_494_350,
            "21e704eb99a508dbe017b9a48e691fe8e2a90e8844103c0f2bc598fb080fd937",
        ),
        (
            2,
            1_795_331_218_993_827,
            1_795_331_220_081_773,
            "dbea9325179efe46ea2add94f7b6b745ca983fabb208dc6d34aa064623d7ee23",
        ),
    ],
)
async def test_what_has_ended_under_each_protocol_has_its_outcome(
    lab: Lab, executor: LocalExecutor, protocol: int, started_at: int, ended_at: int, sha256: str
) -> None:
    left_behind(lab, f"control_protocol_{protocol}/ended")
    log = LogSummary(entries=2, sha256=sha256, warnings=1, errors=0)
    assert await executor.find(JOB, 1) == Outcome(
        reason=EndReason.EXITED, exit_code=3, started_at=started_at, ended_at=ended_at, log=log
    )


async def test_what_runs_under_protocol_1_is_adopted_fed_and_cancelled(lab: Lab, executor: LocalExecutor) -> None:
    control = left_behind(lab, "control_protocol_1/running")
    async with stand_in(control) as process:
        assert await executor.find(JOB, 1) == Running(pid=process.pid, started_at=5)
        await eventually(lambda: lab.recorder.reports == [ProgressReport(phase="reading", percent=50.0)])
        assert await executor.send_input(JOB, 1, b"second\n", close=True) == 1
        sent = [control.read_input(start, end - start) for start, end, _ in control.follow_ups()]
        assert sent == [b"first\n", b"second\n"]
        await executor.cancel(JOB, 1, grace_seconds=2.5)
        outcome = await lab.outcome(lab.launch("true", job_id=JOB))
    assert (outcome.reason, outcome.signal, outcome.message) == (EndReason.CANCELLED, 15, "after 2.5 s")
    assert (outcome.started_at, outcome.ended_at, outcome.log.entries) == (5, 7, 2)


async def test_what_ran_under_protocol_1_and_is_gone_is_lost(lab: Lab, executor: LocalExecutor) -> None:
    control = left_behind(lab, "control_protocol_1/running")
    async with stand_in(control) as process:
        process.kill()
        await process.wait()
        outcome = await executor.find(JOB, 1)
    assert isinstance(outcome, Outcome)
    assert (outcome.reason, outcome.started_at) == (EndReason.LOST, 5)


@pytest.mark.parametrize("lives", [True, False])
async def test_an_attempt_of_a_later_protocol_is_let_be(lab: Lab, executor: LocalExecutor, lives: bool) -> None:
    control = left_behind(lab, "control_protocol_1/running")
    written_by_later_server(control)
    async with stand_in(control) as process:
        if not lives:
            process.kill()
            await process.wait()
        before = contents(control)
        with pytest.raises(NewerAttemptError, match=f"{JOB}.*protocol {PROTOCOL + 1}.*up to {PROTOCOL}"):
            await executor.find(JOB, 1)
        assert contents(control) == before
        assert runs(process.pid) == lives


def written_by_later_server(control: ControlDir) -> None:
    spec = json.loads(control.spec.read_text())
    control.spec.write_text(json.dumps(spec | {"protocol": PROTOCOL + 1}))


def contents(control: ControlDir) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in control.path.iterdir() if path.is_file()}


async def test_a_server_that_finds_a_job_of_a_later_one_says_so_and_does_not_start(tmp_path: Path) -> None:
    """The job goes on; once the later server is back, it is as if nothing had been."""
    data_dir = tmp_path / "data"
    server = start(data_dir)
    async with grpc.aio.insecure_channel(server.target) as channel:
        job_id = (await GrpcDoor(channel, server.token).create("sleep", "600"))["job_id"]
        control = ControlDir(data_dir / "control" / f"{job_id}.1")
        await eventually(control.read_started)
    server.kill()
    spec, before = control.spec.read_bytes(), contents(control)
    written_by_later_server(control)
    with pytest.raises(AssertionError, match="the server did not start"):
        start(data_dir)
    told = output_file(data_dir).read_text()
    assert f"Error: {job_id}, attempt 1, was started by a newer Jobledger" in told
    assert "Traceback" not in told
    control.spec.write_bytes(spec)
    assert contents(control) == before
    server = start(data_dir)
    async with grpc.aio.insecure_channel(server.target) as channel:
        door = GrpcDoor(channel, server.token)
        assert (await door.get(job_id))["state"] == "running"
        await door.cancel(job_id)
        assert (await door.ended(job_id))["state"] == "cancelled"
    assert server.stop() == 0
