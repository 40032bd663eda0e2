"""A job may stop whoever looks after it, and remove what they go by: it ends all the same, all of it."""

import asyncio
import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from executors.harness import Lab, eventually, runs
from jobledger_server.core.ports import EndReason, Launch, Outcome, Running
from jobledger_server.executors.local import attempt as attempts
from jobledger_server.executors.local import executor as executors
from jobledger_server.executors.local import spawner
from jobledger_server.executors.local.control_dir import ControlDir
from jobledger_server.executors.local.executor import LocalExecutor
from jobledger_server.executors.local.process_tree import LINUX, process_stat
from jobledger_server.executors.local.remains import Traces, end_remains

pytestmark = pytest.mark.skipif(not LINUX, reason="Who holds a lock open is seen in /proc alone")

# Leaves a process that has left session and group and forgotten its environment, and one that has done neither.
FAMILY = """
sleep 1000 & echo $! > child
setsid env -i sleep 1000 & echo $! > stray
echo ready
wait
"""
HOLDS = """
import fcntl, os, sys, time
lock = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.flock(lock, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(1000)
"""


class Family:
    """A job with a child and a stray, and whoever looks after it."""

    def __init__(self, lab: Lab, launch: Launch, started: Running) -> None:
        self.launch = launch
        self.control = lab.root / "data" / "control" / f"{launch.job_id}.1"
        self.shim = parent_of(started.pid)
        self.nursery = parent_of(self.shim)
        self.members = [started.pid, *(int((launch.job_dir / name).read_text()) for name in ("child", "stray"))]

    def alive(self) -> list[int]:
        return [pid for pid in (self.shim, *self.members) if runs(pid)]


async def family(lab: Lab, executor: LocalExecutor, **changes: object) -> Family:
    launch = lab.shell(FAMILY, **changes)
    started = await executor.start(launch)
    assert isinstance(started, Running)
    await lab.says(launch, "ready")
    return Family(lab, launch, started)


def parent_of(pid: int) -> int:
    stat = process_stat(pid)
    assert stat
    return stat.parent


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        if runs(pid):
            os.kill(pid, signal.SIGCONT)


@pytest.fixture
def unhelped(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a job stops its supervisor again and again: it is not woken, and soon counts as late."""
    monkeypatch.setattr(attempts, "wake_stopped", lambda traces: None)
    monkeypatch.setattr(attempts, "KILL_SECONDS", 0.5)
    monkeypatch.setattr(attempts, "LATE_LOOKS", 1)


# --- the control directory ------------------------------------------------------------------------------------------


async def test_nothing_lives_of_a_job_that_is_lost_because_its_control_directory_was_removed(
    lab: Lab, executor: LocalExecutor
) -> None:
    job = await family(lab, executor)
    # Its supervisor puts nothing more there from then on, which would keep the directory from being removed.
    await eventually((job.control / "wake").exists)
    shutil.rmtree(job.control)
    assert (await lab.outcome(job.launch)).reason is EndReason.LOST
    assert job.alive() == []


async def test_nothing_lives_of_a_job_whose_lock_was_removed(lab: Lab, executor: LocalExecutor) -> None:
    job = await family(lab, executor)
    (job.control / "lock").unlink()
    await lab.outcome(job.launch)
    assert job.alive() == []


async def test_a_job_whose_control_directory_is_gone_is_ended_by_the_next_server(lab: Lab) -> None:
    async with lab.executor() as first:
        job = await family(lab, first)
    # It might find out by itself, before the server does.
    with stopped(job.shim):
        shutil.rmtree(job.control)
        async with lab.executor() as second:
            assert await second.find(job.launch.job_id, 1) is None
            assert (await second.end_unknown(job.launch.job_id, 1)).reason is EndReason.LOST
        assert job.alive() == []


async def test_a_job_of_a_copy_of_the_data_is_left_alone(lab: Lab, executor: LocalExecutor, tmp_path: Path) -> None:
    """Whoever tries out a backup must not end what still runs where it was made."""
    job = await family(lab, executor)
    async with Lab(tmp_path / "copy").executor() as other:
        assert (await other.end_unknown(job.launch.job_id, 1)).reason is EndReason.LOST
    assert len(job.alive()) == 4


async def test_what_cannot_be_ended_is_told_as_unkillable(
    lab: Lab, executor: LocalExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executors, "CLEAR_SECONDS", 0.1)
    monkeypatch.setattr(executors, "end_remains", lambda traces: True)
    outcome = await executor.end_unknown("job_x", 1)
    assert outcome.reason is EndReason.UNKILLABLE
    assert outcome.message == "Something of it still runs though it was killed. Its supervisor left no trace"


# --- the supervisor -------------------------------------------------------------------------------------------------


async def test_a_stopped_supervisor_goes_on(lab: Lab, executor: LocalExecutor) -> None:
    job = await family(lab, executor)
    with stopped(job.shim):
        await executor.cancel(job.launch.job_id, 1, grace_seconds=0.1)
        assert (await lab.outcome(job.launch)).reason is EndReason.CANCELLED
    assert job.alive() == []


@pytest.mark.usefixtures("unhelped")
@pytest.mark.parametrize("cause", ["cancel", "timeout"])
async def test_a_supervisor_that_does_not_bring_about_the_end_in_time_is_killed(
    lab: Lab, executor: LocalExecutor, cause: str
) -> None:
    timeout = 1.0 if cause == "timeout" else None
    job = await family(lab, executor, timeout_seconds=timeout, grace_seconds=0.1)
    with stopped(job.shim):
        if cause == "cancel":
            await executor.cancel(job.launch.job_id, 1, grace_seconds=0.1)
        outcome = await lab.outcome(job.launch)
    assert (outcome.reason, outcome.log.entries) == (EndReason.LOST, 1)
    assert outcome.message.startswith("Its supervisor did not end it in time, and was killed")
    assert job.alive() == []


@pytest.mark.usefixtures("unhelped")
async def test_a_late_supervisor_is_waited_for_while_there_is_no_room_to_say_how_it_ended(
    lab: Lab, executor: LocalExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusals = []

    def refuse(path: Path, value: object) -> None:
        refusals.append(value)
        raise OSError(errno.ENOSPC, f"{path}: no space left on device")

    job = await family(lab, executor)
    with stopped(job.shim):
        await executor.cancel(job.launch.job_id, 1, grace_seconds=0.1)
        monkeypatch.setattr(attempts, "write_json", refuse)
        await eventually(lambda: len(refusals) >= 2)
        assert len(job.alive()) == 4
    assert (await lab.outcome(job.launch)).reason is EndReason.CANCELLED


@pytest.mark.parametrize("claimed", [False, True])
async def test_a_supervisor_that_hangs_before_it_has_started_its_job_is_killed(
    lab: Lab, executor: LocalExecutor, monkeypatch: pytest.MonkeyPatch, *, claimed: bool
) -> None:
    """Nobody waits for it for ever; least of all a server that starts."""
    monkeypatch.setattr(executors, "HUNG_SECONDS", 0.5)
    launch = lab.shell("sleep 0.1; exit 6")
    control = lab.root / "data" / "control" / f"{launch.job_id}.1"
    control.mkdir()
    if claimed:
        (control / "started.json").write_text(" " * 512)
    command = [sys.executable, "-c", HOLDS, str(control / "lock")]
    with (control / "shim.err").open("w") as errors, subprocess.Popen(command, stdout=-1, stderr=errors) as hung:
        assert hung.stdout
        assert hung.stdout.readline() == b"held\n"
        found = await executor.find(launch.job_id, 1)
        assert hung.wait() == -signal.SIGKILL
    if claimed:
        assert isinstance(found, Outcome)
        assert found.reason is EndReason.LOST
    else:
        assert found is None
        assert (await lab.run(executor, launch)).exit_code == 6


# --- the nursery ----------------------------------------------------------------------------------------------------


async def test_a_stopped_nursery_goes_on_when_a_job_is_to_be_started(lab: Lab, executor: LocalExecutor) -> None:
    job = await family(lab, executor)
    with stopped(job.nursery):
        assert (await lab.run(executor, lab.shell("exit 6"))).exit_code == 6
        other = await family(lab, executor)
    assert other.nursery == job.nursery
    for each in (job, other):
        await executor.cancel(each.launch.job_id, 1, grace_seconds=0.1)
        await lab.outcome(each.launch)


async def test_a_nursery_that_hangs_is_replaced_and_its_jobs_go_on(
    lab: Lab, executor: LocalExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await family(lab, executor)
    monkeypatch.setattr(spawner, "ALARMS", ((0.2, signal.SIGKILL),))
    os.kill(job.nursery, signal.SIGSTOP)
    assert (await lab.run(executor, lab.shell("exit 6"))).exit_code == 6
    assert not runs(job.nursery)
    assert len(job.alive()) == 4
    await executor.cancel(job.launch.job_id, 1, grace_seconds=0.1)
    assert (await lab.outcome(job.launch)).reason is EndReason.CANCELLED
    assert job.alive() == []


async def test_a_stopped_nursery_goes_on_when_there_is_something_left_to_end(lab: Lab, executor: LocalExecutor) -> None:
    job = await family(lab, executor)
    with stopped(job.nursery):
        os.kill(job.shim, signal.SIGKILL)
        assert (await lab.outcome(job.launch)).reason is EndReason.LOST
    assert job.alive() == []


async def test_a_job_is_not_over_before_what_its_supervisor_left_is_gone(
    lab: Lab, executor: LocalExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as the nursery holds the lock nobody records the end."""
    looks: list[object] = []
    monkeypatch.setattr(attempts, "wake_stopped", looks.append)
    job = await family(lab, executor)
    with stopped(job.nursery):
        os.kill(job.shim, signal.SIGKILL)
        await asyncio.to_thread(looks.clear)
        await eventually(lambda: len(looks) >= 2)
        assert lab.recorder.ended == {}
    assert (await lab.outcome(job.launch)).reason is EndReason.LOST
    assert job.alive() == []


async def test_a_job_that_removes_its_control_directory_before_the_first_look_is_not_started_again(
    lab: Lab, executor: LocalExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch = lab.shell('rm -rf "../../control/$JOBLEDGER_JOB_ID.1"; echo >> starts; exec sleep 1000')
    spawn, starts = spawner.Spawner.spawn, launch.job_dir / "starts"

    async def spawn_and_wait(self: spawner.Spawner, control_dir: Path, secret_env: Mapping[str, str]) -> int:
        shim = await spawn(self, control_dir, secret_env)
        await eventually(starts.exists)
        return shim

    monkeypatch.setattr(spawner.Spawner, "spawn", spawn_and_wait)
    answer = await executor.start(launch)
    assert isinstance(answer, Outcome)
    assert (answer.reason, answer.message) == (EndReason.LOST, executors.REMOVED)
    assert starts.read_text() == "\n"
    assert not end_remains(Traces.read(ControlDir(lab.root / "data" / "control" / f"{launch.job_id}.1")))
