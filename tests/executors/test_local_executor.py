"""Faults of the local executor: shims that are killed, wakes that are lost, words that are missing."""

import asyncio
import errno
import json
import os
import resource
import shutil
import signal
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest
from executors.harness import Lab, eventually, runs
from jobledger_server.core.ports import EndReason, Outcome, Running
from jobledger_server.executors.local.attempt import Attempt, News
from jobledger_server.executors.local.executor import LocalExecutor


def control(lab: Lab, job_id: str) -> Path:
    return lab.root / "data" / "control" / f"{job_id}.1"


def shim_of(lab: Lab, job_id: str) -> int:
    pid: int = json.loads((control(lab, job_id) / "started.json").read_text())["shim"]
    return pid


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


FAMILY = "sleep 1000 & echo $! > child; setsid sleep 1000 & echo $! > stray; echo ready; wait"


async def test_a_job_whose_shim_is_killed_is_lost_and_nothing_of_it_runs(lab: Lab, executor: LocalExecutor) -> None:
    launch = lab.shell(FAMILY)
    started = await executor.start(launch)
    assert isinstance(started, Running)
    await lab.says(launch, "ready")
    os.kill(shim_of(lab, launch.job_id), signal.SIGKILL)
    outcome = await lab.outcome(launch)
    assert (outcome.reason, outcome.exit_code, outcome.signal) == (EndReason.LOST, None, None)
    assert (outcome.started_at, outcome.log.entries) == (started.started_at, 1)
    for name in ("child", "stray"):
        assert not runs(int((launch.job_dir / name).read_text()))
    assert not runs(started.pid)
    assert await executor.find(launch.job_id, 1) == await executor.start(launch) == outcome


async def test_a_shim_that_was_killed_while_the_server_was_away_is_found_lost(lab: Lab) -> None:
    launch = lab.shell(FAMILY)
    async with lab.executor() as first:
        started = await first.start(launch)
        await lab.says(launch, "ready")
    os.kill(shim_of(lab, launch.job_id), signal.SIGKILL)
    assert isinstance(started, Running)
    await eventually(lambda: not runs(started.pid))
    async with lab.executor() as second:
        found = await second.find(launch.job_id, 1)
        # As long as something of it is still being ended it counts as running.
        outcome = found if isinstance(found, Outcome) else await lab.outcome(launch)
        assert outcome.reason is EndReason.LOST
        assert not runs(int((launch.job_dir / "child").read_text()))


SERVER = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from executors.harness import Lab

async def main():
    lab = Lab(Path(sys.argv[2]))
    async with lab.executor() as executor:
        await executor.start(lab.launch("cat", job_id="job_orphan", stdin_open=True))
        print("started", flush=True)
        await asyncio.sleep(1000)

asyncio.run(main())
"""


async def test_a_job_outlives_a_server_that_is_killed(lab: Lab) -> None:
    tests = str(Path(__file__).parents[1])
    server = await asyncio.create_subprocess_exec(sys.executable, "-c", SERVER, tests, str(lab.root), stdout=PIPE)
    assert server.stdout
    assert await server.stdout.readline() == b"started\n"
    server.kill()
    await server.wait()
    launch = lab.launch("cat", job_id="job_orphan", stdin_open=True)
    async with lab.executor() as successor:
        assert isinstance(await successor.find("job_orphan", 1), Running)
        await successor.send_input("job_orphan", 1, b"adopted\n", close=True)
        assert (await lab.outcome(launch)).exit_code == 0
    assert lab.content(launch) == b"adopted\n"


async def test_signals_to_the_shim_change_nothing(lab: Lab, executor: LocalExecutor) -> None:
    launch = lab.launch("cat", stdin_open=True)
    await executor.start(launch)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(shim_of(lab, launch.job_id), number)
    await executor.send_input(launch.job_id, 1, b"fine\n", close=True)
    assert (await lab.outcome(launch)).exit_code == 0
    assert lab.content(launch) == b"fine\n"


async def test_an_attempt_that_was_only_written_down_can_be_started(lab: Lab, executor: LocalExecutor) -> None:
    """The server may be killed between writing the spec and starting the shim."""
    launch = lab.shell("exit 0")
    control(lab, launch.job_id).mkdir(parents=True)
    (control(lab, launch.job_id) / "spec.json").write_text("{}")
    assert await executor.find(launch.job_id, 1) is None
    assert (await lab.run(executor, launch)).exit_code == 0


async def test_an_attempt_that_was_claimed_and_never_ran_is_lost(lab: Lab, executor: LocalExecutor) -> None:
    """Started at most once: what can't be known to be unstarted is not started again."""
    launch = lab.shell("exit 0")
    await lab.run(executor, launch)
    (control(lab, launch.job_id) / "started.json").write_text("")
    outcome = await executor.start(launch)
    assert isinstance(outcome, Outcome)
    assert outcome.reason is EndReason.LOST


async def test_what_could_not_be_removed_at_the_end_is_removed_later(
    lab: Lab, executor: LocalExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch, remove = lab.shell("exit 0"), Attempt.remove
    await lab.run(executor, launch)

    def no_files_left(_: Attempt) -> None:
        monkeypatch.setattr(Attempt, "remove", remove)
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(Attempt, "remove", no_files_left)
    await executor.release(launch.job_id, 1)
    await eventually(lambda: not control(lab, launch.job_id).exists())


async def test_a_lost_wake_costs_a_second_and_nothing_else(lab: Lab, executor: LocalExecutor) -> None:
    launch = lab.shell("echo one; read line; echo two", stdin_open=True)
    await executor.start(launch)
    await lab.says(launch, "one")
    wake = lab.root / "data" / "run" / "wake"
    wake.unlink()
    await executor.send_input(launch.job_id, 1, b"\n", close=False)
    assert (await lab.outcome(launch)).exit_code == 0


async def test_a_follow_up_that_a_crash_cut_short_is_dropped_as_a_whole(lab: Lab) -> None:
    launch = lab.launch("cat", stdin_open=True)
    async with lab.executor() as first:
        await first.start(launch)
        await first.send_input(launch.job_id, 1, b"whole\n", close=False)
        await lab.says(launch, "whole")
    with (control(lab, launch.job_id) / "input.log").open("ab") as log:
        log.write(b"\x50\x00\x00\x00\x00cut sho")
    async with lab.executor() as second:
        await second.find(launch.job_id, 1)
        await second.send_input(launch.job_id, 1, b"next\n", close=True)
        await lab.outcome(launch)
    assert lab.content(launch) == b"whole\nnext\n"


async def test_a_job_that_nobody_can_reach_any_more_ends(lab: Lab) -> None:
    """Whoever removes the data directory would leave a process for ever that no server knows of."""
    launch = lab.launch("sleep", "1000")
    async with lab.executor() as executor:
        started = await executor.start(launch)
    assert isinstance(started, Running)
    shim, fifo = shim_of(lab, launch.job_id), control(lab, launch.job_id) / "wake"
    await eventually(fifo.exists)
    wake = os.open(fifo, os.O_WRONLY)
    shutil.rmtree(lab.root / "data")
    os.write(wake, b"\n")
    os.close(wake)
    await eventually(lambda: not runs(started.pid) and not runs(shim))


async def test_a_job_whose_control_directory_is_removed_is_lost(lab: Lab, executor: LocalExecutor) -> None:
    launch = lab.launch("sleep", "1000")
    started = await executor.start(launch)
    assert isinstance(started, Running)
    shutil.rmtree(control(lab, launch.job_id))
    assert (await lab.outcome(launch)).reason is EndReason.LOST
    assert not runs(started.pid)


@pytest.mark.parametrize("trouble", [OSError(errno.EMFILE, "Too many open files"), TypeError("unforeseen")])
async def test_trouble_while_looking_after_a_job_passes(
    lab: Lab, executor: LocalExecutor, monkeypatch: pytest.MonkeyPatch, trouble: Exception
) -> None:
    """Out of files or disk for a moment, or a bug: the end of a job must not be missed for it."""
    launch = lab.launch("cat", stdin_open=True)
    await executor.start(launch)
    troubles = [trouble] * 2
    news = Attempt.news

    def troubled(attempt: Attempt) -> News:
        if troubles:
            raise troubles.pop()
        return news(attempt)

    monkeypatch.setattr(Attempt, "news", troubled)
    await executor.send_input(launch.job_id, 1, b"", close=True)
    assert (await lab.outcome(launch)).exit_code == 0
    assert not troubles


async def test_a_nursery_that_is_killed_is_replaced(lab: Lab, executor: LocalExecutor) -> None:
    first = lab.launch("cat", stdin_open=True)
    await executor.start(first)
    nursery = parent_of(shim_of(lab, first.job_id))
    os.kill(nursery, signal.SIGKILL)
    await eventually(lambda: not runs(nursery))
    assert (await lab.run(executor, lab.shell("exit 6"))).exit_code == 6
    await executor.send_input(first.job_id, 1, b"", close=True)
    assert (await lab.outcome(first)).exit_code == 0


async def test_what_lacks_resources_just_now_can_be_started_later(lab: Lab, executor: LocalExecutor) -> None:
    first = lab.launch("cat", stdin_open=True)
    await executor.start(first)
    nursery = parent_of(shim_of(lab, first.job_id))
    launch = lab.shell("exit 6")
    enough = resource.prlimit(nursery, resource.RLIMIT_NOFILE)
    resource.prlimit(nursery, resource.RLIMIT_NOFILE, (9, enough[1]))
    with pytest.raises(OSError, match="can't be started just now: Too many open files"):
        await executor.start(launch)
    assert await executor.find(launch.job_id, 1) is None
    resource.prlimit(nursery, resource.RLIMIT_NOFILE, enough)
    assert (await lab.run(executor, launch)).exit_code == 6
    await executor.cancel(first.job_id, 1, grace_seconds=5)
    await lab.outcome(first)


async def test_the_job_finds_nothing_of_the_engine_in_its_directory(lab: Lab, executor: LocalExecutor) -> None:
    launch = lab.shell("ls")
    await lab.run(executor, launch)
    assert lab.content(launch) == b"control\n"
    assert oct(control(lab, launch.job_id).stat().st_mode & 0o777) == "0o700"


async def test_what_a_crash_kept_from_being_released_is_released_by_the_next_server(lab: Lab) -> None:
    """A control directory holds the job's environment: it must not stay for ever."""
    ended, running = lab.shell("exit 0"), lab.launch("cat", stdin_open=True)
    async with lab.executor() as first:
        await lab.run(first, ended)
        await first.start(running)
    async with lab.executor() as second:
        await second.release_others({(running.job_id, 1)})
        assert [path.name for path in (lab.root / "data" / "control").iterdir()] == [f"{running.job_id}.1"]
        assert isinstance(await second.find(running.job_id, 1), Running)
        await second.send_input(running.job_id, 1, b"", close=True)
        await lab.outcome(running)
