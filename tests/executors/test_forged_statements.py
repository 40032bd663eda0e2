"""What a job makes up in its control directory, sensible or not, hurts it alone: it ends, and its end can be stored.

The server goes on, and another one starts: neither waits for a statement that makes sense.
"""

import asyncio
import errno
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from executors.forging import GOOD, HUGE, STARTED, recorded
from executors.harness import Lab, eventually, runs
from jobledger_server.core.ports import EndReason, Launch, Outcome, Running
from jobledger_server.executors.local import executor as executors
from jobledger_server.executors.local import remains
from jobledger_server.executors.local.attempt import Attempt
from jobledger_server.executors.local.control_dir import ControlDir
from jobledger_server.executors.local.executor import LocalExecutor
from jobledger_server.executors.local.guarded_files import poke
from jobledger_server.executors.local.lost import bury
from jobledger_server.executors.local.process_tree import boot_id
from jobledger_server.executors.local.remains import Traces, end_remains
from jobledger_server.executors.local.statements import read_declared, read_outcome

SENSELESS: list[dict[str, object]] = [{"x": 1}, {**GOOD, "reason": "won"}, {**GOOD, "exit_code": 10**30}]


def put(path: Path, content: bytes) -> None:
    """Puts another file in its place."""
    other = path.with_suffix(".other")
    other.write_bytes(content)
    other.replace(path)


@pytest.fixture
def control(tmp_path: Path) -> ControlDir:
    control = ControlDir(tmp_path / "control" / "job_x.1")
    control.path.mkdir(parents=True)
    return control


def control_of(lab: Lab, job_id: str) -> ControlDir:
    return ControlDir(lab.root / "data" / "control" / f"{job_id}.1")


# --- the end ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("senseless", SENSELESS)
def test_of_two_ends_the_first_that_makes_sense_counts(control: ControlDir, senseless: object) -> None:
    control.started.write_bytes(recorded(STARTED, senseless))
    assert read_outcome(control) is None
    control.exit.write_text(json.dumps({**GOOD, "exit_code": 4}))
    outcome = read_outcome(control)
    assert outcome is not None
    assert outcome.exit_code == 4
    control.started.write_bytes(recorded(STARTED, GOOD))
    outcome = read_outcome(control)
    assert outcome is not None
    assert outcome.exit_code == 3


@pytest.mark.parametrize(
    "started",
    [STARTED, {**STARTED, "started_at": HUGE}, {**STARTED, "started_at": -1}, {"cgroup": "/jobledger-\ud800"}, {}],
    ids=["sensible", "too late", "negative", "no path", "empty"],
)
def test_what_is_buried_can_be_read_whatever_was_said_before(control: ControlDir, started: object) -> None:
    control.started.write_bytes(recorded(started, {"x": 1}))
    control.spec.write_text(json.dumps({"log_dir": "/\ud800", "log_bytes": HUGE, "timeout_seconds": HUGE}))
    bury(control, 7)
    outcome = read_outcome(control)
    assert outcome is not None
    assert (outcome.reason, outcome.ended_at) == (EndReason.LOST, 7)


async def test_a_job_that_forges_its_record_ends_as_it_did(lab: Lab, executor: LocalExecutor) -> None:
    launch = lab.shell("read line; exit 3", stdin_open=True)
    assert isinstance(await executor.start(launch), Running)
    control = control_of(lab, launch.job_id)
    put(control.started, recorded(STARTED, {"x": 1}))
    # Not by the executor: the record says that it has ended.
    control.append_input(b"\n", close=True)
    poke(control.wake, b"\n")
    assert (await lab.outcome(launch)).exit_code == 3
    async with lab.executor() as second:
        found = await asyncio.wait_for(second.find(launch.job_id, 1), 10.0)
    assert isinstance(found, Outcome)
    assert found.exit_code == 3


@pytest.mark.parametrize("senseless", SENSELESS)
async def test_a_job_that_forges_its_record_and_kills_its_supervisor_is_lost(
    lab: Lab, executor: LocalExecutor, senseless: object
) -> None:
    launch = lab.shell("sleep 1000")
    await executor.start(launch)
    control = control_of(lab, launch.job_id)
    started = control.read_started()
    assert started
    put(control.started, recorded(started, senseless))
    control.exit.write_text(json.dumps(senseless))
    os.kill(started["shim"], signal.SIGKILL)
    assert (await lab.outcome(launch)).reason is EndReason.LOST
    await lost_to_the_next(lab, launch)


async def lost_to_the_next(lab: Lab, launch: Launch) -> None:
    """So it is to a server that starts, and that comes to an end of its start."""
    async with lab.executor() as second:
        found = await asyncio.wait_for(second.find(launch.job_id, 1), 10.0)
    assert isinstance(found, Outcome)
    assert found.reason is EndReason.LOST


def nothing(*_: object, **__: object) -> None:
    pass


def refused(*_: object, **__: object) -> None:
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


@pytest.mark.parametrize("burial", [nothing, refused])
async def test_an_end_that_can_not_be_written_so_that_it_makes_sense_is_told_all_the_same(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, burial: Callable[..., None]
) -> None:
    """By the server that follows the job, and by one that starts, which nothing must keep from it."""
    monkeypatch.setattr(executors, "bury", burial)
    launch = lab.shell("sleep 1000")
    async with lab.executor() as first:
        await first.start(launch)
        control = control_of(lab, launch.job_id)
        started = control.read_started()
        assert started
        os.kill(started["shim"], signal.SIGKILL)
        assert (await lab.outcome(launch)).reason is EndReason.LOST
    await lost_to_the_next(lab, launch)


def become_file(path: Path) -> None:
    shutil.rmtree(path)
    path.touch()


def become_loop(path: Path) -> None:
    shutil.rmtree(path)
    path.symlink_to(path)


@pytest.mark.parametrize("become", [become_file, become_loop])
async def test_a_job_that_puts_something_in_the_place_of_its_control_directory_is_ended(
    lab: Lab, executor: LocalExecutor, become: Callable[[Path], None]
) -> None:
    launch = lab.shell("sleep 1000")
    started = await executor.start(launch)
    assert isinstance(started, Running)
    control = control_of(lab, launch.job_id)
    # From then on the supervisor puts nothing more there, which would keep the directory from being removed.
    await eventually(control.wake.exists)
    become(control.path)
    assert (await lab.outcome(launch)).reason is EndReason.LOST
    assert not runs(started.pid)
    async with lab.executor() as second:
        found = await asyncio.wait_for(second.find(launch.job_id, 1), 10.0)
        assert found is None or isinstance(found, Outcome)


async def test_a_job_that_shuts_the_server_out_of_its_directory_is_ended(
    lab: Lab, executor: LocalExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `chmod 0` does to a server that is not root's."""
    launch = lab.shell("sleep 1000")
    started = await executor.start(launch)
    assert isinstance(started, Running)
    monkeypatch.setattr(Attempt, "news", refused)
    monkeypatch.setattr(executors, "bury", refused)
    assert (await lab.outcome(launch)).reason is EndReason.LOST
    assert not runs(started.pid)


# --- all the rest ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["shim", "pid", "started_at", "pid_started"])
@pytest.mark.parametrize("number", [HUGE, 2**64, -1, 2**63], ids=["huge", "64 bits", "negative", "63 bits"])
def test_a_start_that_names_what_there_can_not_be_is_one_of_which_nothing_is_known(
    control: ControlDir, name: str, number: int
) -> None:
    """The attempt counts as started; whatever asks of its processes is answered."""
    control.started.write_bytes(recorded({**STARTED, name: number}, {}))
    assert control.read_started() == {}
    view = Attempt(job_id="job_x", number=1, control_root=control.path.parent).view()
    assert (view.begun, view.running, view.outcome) == (True, None, None)
    traces = Traces.read(control)
    assert not traces.forsaken()
    assert not end_remains(traces)


def test_a_start_that_names_the_servers_own_session_ends_no_server(
    control: ControlDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    signalled = []
    monkeypatch.setattr(remains, "send_signal", lambda pid, number: signalled.append((pid, number)))
    for own in (os.getsid(0), os.getpgrp(), 0):
        control.started.write_bytes(recorded({**STARTED, "pid": own, "boot_id": boot_id()}, {}))
        assert not end_remains(Traces.read(control))
    assert signalled == []


@pytest.mark.parametrize("content", [b"\xff\n", b"/jobledger-\0x\n", b"/jobledger-" + b"x" * 5000 + b"\n", b"[\n"])
def test_what_can_be_no_control_group_is_none(control: ControlDir, content: bytes) -> None:
    control.started.write_bytes(recorded({"cgroup": "/jobledger-\ud800"}, {}))
    control.cgroup.write_bytes(content)
    assert not end_remains(Traces.read(control))
    control.cgroup.unlink()
    os.mkfifo(control.cgroup)
    assert Traces.read(control).group is None


def test_what_is_declared_twice_is_declared_once(control: ControlDir) -> None:
    paths = ["a", "b", "a", "./a", "b//", "../x", "../x", "\ud800"]
    control.artifacts.write_text(json.dumps({"paths": paths, "misdeclared": ["../x", "b", "c"]}))
    control.exit.write_text(json.dumps(GOOD))
    assert read_declared(control) == ("a", "b", "c")
    outcome = read_outcome(control)
    assert outcome is not None
    assert outcome.declared == ("a", "b", "c")
    assert outcome.misdeclared == ("../x", "\ud800")


def test_an_end_says_no_more_than_a_receipt_has_room_for(control: ControlDir) -> None:
    long = "m" * 5_000_000
    control.spec.write_text(json.dumps({"isolation": {"level": long}}))
    control.exit.write_text(json.dumps({**GOOD, "message": long}))
    outcome = read_outcome(control)
    assert outcome is not None
    assert len(outcome.message) < 10_000
    assert outcome.message.endswith("...")
    assert outcome.isolation == "none"
    control.exit.write_text(json.dumps({**GOOD, "log": {"sha256": long}}))
    assert read_outcome(control) is None
