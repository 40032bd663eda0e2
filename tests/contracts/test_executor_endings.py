"""How attempts end: asked to, in time or not, and while nobody watches."""

import os
import signal
from pathlib import Path

import pytest
from executors.harness import Lab, eventually, runs
from jobledger_server.core.ports import EndReason, Running
from jobledger_server.executors.local.executor import LocalExecutor
from jobledger_server.executors.local.process_tree import processes

# --- the end, brought about -----------------------------------------------------------------------------------------


async def test_a_cancelled_job_may_end_in_its_own_way(lab: Lab, executor: LocalExecutor) -> None:
    launch = lab.shell("trap 'test -e cancelled && echo told; exit 7' TERM; echo ready; while :; do sleep 0.05; done")
    await executor.start(launch)
    await lab.says(launch, "ready")
    await executor.cancel(launch.job_id, 1, grace_seconds=60)
    outcome = await lab.outcome(launch)
    assert (outcome.reason, outcome.exit_code) == (EndReason.CANCELLED, 7)
    assert lab.content(launch).endswith(b"told\n")


async def test_a_job_that_ignores_the_request_is_killed_after_its_grace(lab: Lab, executor: LocalExecutor) -> None:
    launch = lab.shell("trap '' TERM; echo ready; while :; do sleep 1000; done")
    await executor.start(launch)
    await lab.says(launch, "ready")
    await executor.cancel(launch.job_id, 1, grace_seconds=0.2)
    outcome = await lab.outcome(launch)
    assert (outcome.reason, outcome.signal) == (EndReason.CANCELLED, signal.SIGKILL)


async def test_asking_again_shortens_the_grace(lab: Lab, executor: LocalExecutor) -> None:
    launch = lab.shell("trap '' TERM; echo ready; while :; do sleep 1000; done")
    await executor.start(launch)
    await lab.says(launch, "ready")
    await executor.cancel(launch.job_id, 1, grace_seconds=300)
    await executor.cancel(launch.job_id, 1, grace_seconds=0)
    assert (await lab.outcome(launch)).reason is EndReason.CANCELLED


async def test_a_stopped_job_hears_the_request(lab: Lab, executor: LocalExecutor) -> None:
    launch = lab.shell("trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done")
    started = await executor.start(launch)
    assert isinstance(started, Running)
    await lab.says(launch, "ready")
    os.killpg(started.pid, signal.SIGSTOP)
    await executor.cancel(launch.job_id, 1, grace_seconds=60)
    assert (await lab.outcome(launch)).exit_code == 7


async def test_the_group_has_the_grace_period_even_if_its_leader_has_gone(lab: Lab, executor: LocalExecutor) -> None:
    """`sh -c 'worker; ...'` dies at once; the worker is the one that has something to save."""
    launch = lab.shell(
        "(trap 'sleep 0.3; echo saved; exit' TERM; echo ready; while :; do sleep 0.05; done) & wait; sleep 1000"
    )
    await executor.start(launch)
    await lab.says(launch, "ready")
    await executor.cancel(launch.job_id, 1, grace_seconds=60)
    outcome = await lab.outcome(launch)
    assert (outcome.reason, outcome.signal) == (EndReason.CANCELLED, signal.SIGTERM)
    assert lab.content(launch).endswith(b"saved\n")


async def test_an_end_before_the_first_signal_stands(lab: Lab, executor: LocalExecutor) -> None:
    launch = lab.shell("exit 5")
    outcome = await lab.run(executor, launch)
    await executor.cancel(launch.job_id, 1, grace_seconds=0)
    assert (outcome.reason, outcome.exit_code) == (EndReason.EXITED, 5)
    assert await executor.find(launch.job_id, 1) == outcome


async def test_a_timeout_ends_the_job(lab: Lab, executor: LocalExecutor) -> None:
    launch = lab.launch("sleep", "1000", timeout_seconds=0.2)
    outcome = await lab.run(executor, launch)
    assert (outcome.reason, outcome.signal) == (EndReason.TIMED_OUT, signal.SIGTERM)


DAEMON = """
import os, sys, time
if os.fork():
    os.wait()
    print("left", flush=True)
    {parent}
os.setsid()
if os.fork():
    os._exit(0)
for descriptor in ({closed}):
    os.close(descriptor)
open("daemon", "w").close()
os.execve("/bin/sh", ["sh", "-c", "while :; do sleep 1000; done", os.getcwd()], {{}})
"""


def daemons(job_dir: Path) -> list[int]:
    """Those of a job, by a word of their command line: the numbers that they know themselves by need not be ours."""
    return [stat.pid for stat in processes() if stat.state not in "ZX" and str(job_dir) in command_line(stat.pid)]


def command_line(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")
    except OSError:
        return []


@pytest.mark.parametrize("closed", ["0, 1, 2", "0,"])
async def test_nothing_outlives_a_job_that_ends_by_itself(lab: Lab, executor: LocalExecutor, closed: str) -> None:
    """Not a daemon in a session of its own with no environment; nor does it delay the end by holding the output."""
    launch = lab.python(
        DAEMON.format(closed=closed, parent="while not os.path.exists('daemon'): time.sleep(.01)\n    sys.exit(4)")
    )
    outcome = await lab.run(executor, launch)
    assert (outcome.reason, outcome.exit_code) == (EndReason.EXITED, 4)
    assert daemons(launch.job_dir) == []


async def test_nothing_outlives_a_cancelled_job(lab: Lab, executor: LocalExecutor) -> None:
    launch = lab.python(DAEMON.format(closed="0, 1, 2", parent="time.sleep(1000)"))
    await executor.start(launch)
    await eventually(lambda: daemons(launch.job_dir))
    await executor.cancel(launch.job_id, 1, grace_seconds=60)
    assert (await lab.outcome(launch)).reason is EndReason.CANCELLED
    assert daemons(launch.job_dir) == []


# --- being away -----------------------------------------------------------------------------------------------------


async def test_a_job_outlives_its_executor_and_is_found_by_the_next(lab: Lab) -> None:
    launch = lab.launch("cat", stdin_open=True)
    async with lab.executor() as first:
        started = await first.start(launch)
    async with lab.executor() as second:
        assert await second.find(launch.job_id, 1) == started
        assert await second.start(launch) == started
        await second.send_input(launch.job_id, 1, b"still here\n", close=True)
        assert (await lab.outcome(launch)).exit_code == 0
    assert lab.content(launch) == b"still here\n"


async def test_a_job_that_ended_while_nobody_watched_is_found_ended(lab: Lab) -> None:
    launch = lab.launch("cat", stdin_open=True)
    async with lab.executor() as first:
        started = await first.start(launch)
        await first.send_input(launch.job_id, 1, b"", close=True)
    assert isinstance(started, Running)
    await eventually(lambda: not runs(started.pid))
    async with lab.executor() as second:
        found = await second.find(launch.job_id, 1)
        outcome = await lab.outcome(launch) if isinstance(found, Running) else found
    assert outcome is not None
    assert (outcome.reason, outcome.exit_code) == (EndReason.EXITED, 0)
