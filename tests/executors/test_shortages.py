"""Supervisors that lack files for a while: they try later, their jobs go on, and none is started twice."""

import fcntl
import json
import os
import resource
import sys
import termios

import pytest
from executors.harness import Lab, eventually, runs
from jobledger_server.core.ports import EndReason, Running
from jobledger_server.executors.local.control_dir import ControlDir
from jobledger_server.executors.local.executor import LocalExecutor
from jobledger_server.executors.local.process_tree import LINUX, process_stat


def control_of(lab: Lab, job_id: str) -> ControlDir:
    return ControlDir(lab.root / "data" / "control" / f"{job_id}.1")


def shim_of(lab: Lab, job_id: str) -> int:
    pid: int = json.loads(control_of(lab, job_id).started.read_text())["shim"]
    return pid


async def looked(control: ControlDir) -> None:
    """Has the supervisor look at its control directory, and waits until it has survived that."""
    await eventually(control.wake.exists)
    wake = os.open(control.wake, os.O_RDWR | os.O_NONBLOCK)
    try:
        # When it reads the second wake it is done with the first one.
        for _ in range(2):
            os.write(wake, b"\n")
            await eventually(lambda: not unread(wake))
    finally:
        os.close(wake)


def unread(pipe: int) -> int:
    count = bytearray(4)
    fcntl.ioctl(pipe, termios.FIONREAD, count)
    return int.from_bytes(count, sys.byteorder)


@pytest.mark.skipif(not LINUX, reason="prlimit is Linux's")
async def test_a_supervisor_that_has_no_files_left_tries_later(lab: Lab, executor: LocalExecutor) -> None:
    launch = lab.launch("cat", stdin_open=True)
    started = await executor.start(launch)
    assert isinstance(started, Running)
    shim = shim_of(lab, launch.job_id)
    await looked(control_of(lab, launch.job_id))
    enough = resource.prlimit(shim, resource.RLIMIT_NOFILE)
    resource.prlimit(shim, resource.RLIMIT_NOFILE, (3, enough[1]))
    await executor.cancel(launch.job_id, 1, grace_seconds=5.0)
    await looked(control_of(lab, launch.job_id))
    assert runs(shim)
    assert runs(started.pid)
    resource.prlimit(shim, resource.RLIMIT_NOFILE, enough)
    assert (await lab.outcome(launch)).reason is EndReason.CANCELLED


@pytest.mark.skipif(not LINUX, reason="prlimit is Linux's")
async def test_however_few_files_there_are_a_job_is_started_once_at_most(lab: Lab, executor: LocalExecutor) -> None:
    first = lab.launch("cat", stdin_open=True)
    await executor.start(first)
    nursery = process_stat(shim_of(lab, first.job_id))
    assert nursery
    enough = resource.prlimit(nursery.parent, resource.RLIMIT_NOFILE)
    tried = 0
    for files in range(9, 33):
        launch = lab.shell('echo >> "$JOBLEDGER_JOB_DIR/started"')
        resource.prlimit(nursery.parent, resource.RLIMIT_NOFILE, (files, enough[1]))
        try:
            await lab.run(executor, launch)
        except OSError:
            tried += 1
            resource.prlimit(nursery.parent, resource.RLIMIT_NOFILE, enough)
            assert not (launch.job_dir / "started").exists()
            await lab.run(executor, launch)
        assert (launch.job_dir / "started").read_text() == "\n"
    assert tried
    await executor.send_input(first.job_id, 1, b"", close=True)
    assert (await lab.outcome(first)).exit_code == 0
