"""Jobs that write into their own control directory, as they can where nothing isolates them: they hurt nobody else."""

import asyncio
import os
import signal
import threading
from contextlib import closing
from pathlib import Path

import pytest
from executors.harness import Lab, eventually
from jobledger_server.core.ports import EndReason, InputClosedError, ProgressReport, Running
from jobledger_server.executors.local.attempt import Attempt
from jobledger_server.executors.local.control_dir import ControlDir
from jobledger_server.executors.local.executor import LocalExecutor
from jobledger_server.executors.local.guarded_files import (
    MOST_BYTES,
    UnreadableError,
    open_fifo,
    poke,
    read_json,
    write_json,
)
from jobledger_server.executors.local.lost import bury
from jobledger_server.executors.local.statements import read_outcome, read_progress
from jobledger_server.executors.local.wakes import LONGEST_WAKE, Wakes
from jobledger_server.joblog.reader import LogQuery, LogReader
from jobledger_server.joblog.segments import DATA, INDEX, DamagedLogError, Stream, segment_path
from jobledger_server.joblog.writer import LogWriter

FORGED = {"protocol": 1, "reason": "exited", "exit_code": 0, "message": "", "started_at": 1, "ended_at": 2, "log": {}}
GARBAGE = ("{", "[]", "null", "3", "[" * 100_000, '{"a": NaN', "\xff", "")


def control_of(lab: Lab, job_id: str) -> ControlDir:
    return ControlDir(lab.root / "data" / "control" / f"{job_id}.1")


@pytest.fixture
def control(tmp_path: Path) -> ControlDir:
    control = ControlDir(tmp_path / "control" / "job_x.1")
    control.path.mkdir(parents=True)
    return control


# --- what is there ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", GARBAGE)
def test_what_is_no_json_object_is_unreadable(control: ControlDir, text: str) -> None:
    control.progress.write_text(text)
    with pytest.raises(UnreadableError):
        read_json(control.progress)
    assert read_progress(control) is None


def test_what_is_no_file_is_unreadable_and_keeps_nobody_waiting(control: ControlDir) -> None:
    os.mkfifo(control.progress)
    control.artifacts.mkdir()
    control.cancel.symlink_to(control.path / "elsewhere")
    for path in (control.progress, control.artifacts, control.cancel):
        with pytest.raises(UnreadableError):
            read_json(path)


def test_a_file_that_is_too_large_is_unreadable_and_not_read(control: ControlDir) -> None:
    control.exit.touch()
    os.truncate(control.exit, 1 << 40)
    with pytest.raises(UnreadableError, match=f"larger than {MOST_BYTES} bytes"):
        read_json(control.exit)


def test_fifos_in_the_place_of_everything_keep_the_server_from_nothing(control: ControlDir) -> None:
    names = (
        "spec",
        "lock",
        "started",
        "cancel",
        "input_log",
        "input_ack",
        "progress",
        "artifacts",
        "exit",
        "shim_errors",
    )
    for name in names:
        os.mkfifo(getattr(control, name))
    attempt = Attempt(job_id="job_x", number=1, control_root=control.path.parent)
    attempt.refuse_newer()
    news = attempt.news()
    assert (news.view.outcome, news.view.running, news.progress, news.declared) == (None, None, None, ())
    assert attempt.complaint()
    with pytest.raises(InputClosedError):
        attempt.queue_input(b"x", close=False)
    attempt.request_cancel(1.0)
    assert control.cancel_request() == 1.0
    bury(control, 7)
    outcome = read_outcome(control)
    assert outcome is not None
    assert (outcome.reason, outcome.ended_at) == (EndReason.LOST, 7)


@pytest.mark.parametrize(
    "forged",
    [
        {"reason": "won"},
        {"reason": ["exited"]},
        {"exit_code": "0"},
        {"exit_code": True},
        {"signal": -(10**30)},
        {"ended_at": 10**18},
        {"started_at": None},
        {"message": 3},
        {"log": []},
        {"log": {"entries": "many"}},
        {"log": {"lines": 3}},
        {"ignored_messages": 1.5},
    ],
)
def test_a_word_of_the_end_that_makes_no_sense_is_none(control: ControlDir, forged: dict[str, object]) -> None:
    write_json(control.exit, FORGED)
    assert read_outcome(control) is not None
    write_json(control.exit, {**FORGED, **forged})
    assert read_outcome(control) is None
    bury(control, 7)
    outcome = read_outcome(control)
    assert outcome is not None
    assert outcome.reason is EndReason.LOST


def test_a_report_that_makes_no_sense_is_none(control: ControlDir) -> None:
    write_json(control.progress, {"percent": 12.5, "colour": "red"})
    assert read_progress(control) == ProgressReport(percent=12.5)
    for percent in ("12", 101, float("inf"), True, [1]):
        write_json(control.progress, {"percent": percent})
        assert read_progress(control) is None


def test_what_is_no_log_keeps_no_attempt_from_its_end(control: ControlDir, tmp_path: Path) -> None:
    log_dir = tmp_path / "log"
    log_dir.mkdir()
    write_json(control.spec, {"protocol": 1, "log_dir": str(log_dir), "log_bytes": 1 << 20})
    for make in (Path.mkdir, os.mkfifo):
        control.exit.unlink(missing_ok=True)
        make(segment_path(log_dir, 1, INDEX))
        bury(control, 7)
        outcome = read_outcome(control)
        assert outcome is not None
        # There is nothing in it, and no hash is claimed of it.
        assert (outcome.reason, outcome.log.entries, outcome.log.sha256) == (EndReason.LOST, 0, "")
        log_dir.rename(tmp_path / make.__name__)
        log_dir.mkdir()


def test_a_log_that_is_no_file_is_damaged_and_keeps_nobody_waiting(tmp_path: Path) -> None:
    with closing(LogWriter(tmp_path / "log", 1 << 20)) as writer:
        writer.write(Stream.STDOUT, b"text\n")
        writer.end()
    data = segment_path(tmp_path / "log", 1, DATA)
    data.unlink()
    os.mkfifo(data)
    with pytest.raises(DamagedLogError):
        LogReader(tmp_path / "log", 1).page(LogQuery())


def test_a_directory_in_the_place_of_a_file_is_moved_aside(control: ControlDir) -> None:
    control.exit.mkdir()
    (control.exit / "kept").touch()
    write_json(control.exit, FORGED)
    assert read_json(control.exit) == FORGED


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch, os.mkfifo, lambda path: path.symlink_to("/dev/full")])
def test_a_wake_that_can_not_be_given_is_nobodys_fault(tmp_path: Path, make: object) -> None:
    assert callable(make)
    make(tmp_path / "wake")
    poke(tmp_path / "wake", b"job_x 1\n")
    if (tmp_path / "wake").is_file():
        assert not (tmp_path / "wake").read_bytes()


# --- jobs that do it -------------------------------------------------------------------------------------------------


async def test_an_end_that_a_job_makes_up_while_it_runs_is_not_believed(lab: Lab, executor: LocalExecutor) -> None:
    launch = lab.launch("cat", stdin_open=True)
    assert isinstance(await executor.start(launch), Running)
    control = control_of(lab, launch.job_id)
    write_json(control.exit, FORGED)
    control.wake_server()
    assert isinstance(await executor.find(launch.job_id, 1), Running)
    await executor.cancel(launch.job_id, 1, grace_seconds=5.0)
    outcome = await lab.outcome(launch)
    assert (outcome.reason, outcome.signal) == (EndReason.CANCELLED, signal.SIGTERM)


async def test_a_made_up_end_is_not_believed_by_the_next_server_either(lab: Lab) -> None:
    launch = lab.launch("cat", stdin_open=True)
    async with lab.executor() as first:
        started = await first.start(launch)
    write_json(control_of(lab, launch.job_id).exit, FORGED)
    async with lab.executor() as second:
        assert await second.find(launch.job_id, 1) == started
        await second.cancel(launch.job_id, 1, grace_seconds=5.0)
        assert (await lab.outcome(launch)).reason is EndReason.CANCELLED


@pytest.mark.parametrize("name", ["spec", "progress", "artifacts", "exit"])
async def test_garbage_in_a_file_keeps_nobody_from_following_the_job_to_its_end(
    lab: Lab, executor: LocalExecutor, name: str
) -> None:
    launch = lab.shell("echo out; read line; exit 3", stdin_open=True)
    await executor.start(launch)
    await lab.says(launch, "out")
    control = control_of(lab, launch.job_id)
    getattr(control, name).write_text("{")
    control.wake_server()
    async with lab.executor() as second:
        assert isinstance(await second.find(launch.job_id, 1), Running)
        # Its first look cuts off what a crash left of a follow-up: what is written meanwhile, past it, could be such.
        await eventually(lambda: second._attempts[launch.job_id, 1]._follow_ups._queue is not None)
        control.append_input(b"\n", close=True)
        poke(control.wake, b"\n")
        outcome = await lab.outcome(launch)
    assert (outcome.reason, outcome.exit_code) == (EndReason.EXITED, 3)


async def test_a_job_that_garbles_its_request_to_cancel_is_ended(lab: Lab, executor: LocalExecutor) -> None:
    launch = lab.launch("sleep", "1000", grace_seconds=0.5)
    await executor.start(launch)
    control = control_of(lab, launch.job_id)
    control.cancel.mkdir()
    poke(control.wake, b"\n")
    assert (await lab.outcome(launch)).reason is EndReason.CANCELLED


async def test_a_directory_in_the_place_of_the_servers_wake_ends_no_job(lab: Lab, executor: LocalExecutor) -> None:
    launch = lab.shell("echo one; read line; echo two; exit 4", stdin_open=True)
    await executor.start(launch)
    wake = lab.root / "data" / "run" / "wake"
    wake.unlink()
    wake.mkdir()
    await lab.says(launch, "one")
    await executor.send_input(launch.job_id, 1, b"\n", close=True)
    assert (await lab.outcome(launch)).exit_code == 4


async def test_whatever_keeps_the_servers_other_threads_busy_delays_no_cancel(
    lab: Lab, executor: LocalExecutor
) -> None:
    launch = lab.launch("sleep", "1000")
    await executor.start(launch)
    gate = threading.Event()
    loop = asyncio.get_running_loop()
    busy = [loop.run_in_executor(None, gate.wait) for _ in range(64)]
    try:
        await executor.cancel(launch.job_id, 1, grace_seconds=5.0)
        assert (await lab.outcome(launch)).reason is EndReason.CANCELLED
    finally:
        gate.set()
        await asyncio.gather(*busy)


def test_wakes_without_an_end_are_not_hoarded(tmp_path: Path) -> None:
    descriptor = open_fifo(tmp_path / "wake")
    wakes = Wakes(descriptor)
    for _ in range(64):
        poke(tmp_path / "wake", b"1" * 65536)
        assert wakes.read() == set()
    assert len(wakes.rest) <= LONGEST_WAKE
    poke(tmp_path / "wake", b"\njob_a 1\njob_a 1\njob_b x\njob_b 2")
    assert wakes.read() == {("job_a", 1)}
    poke(tmp_path / "wake", b"\n")
    assert wakes.read() == {("job_b", 2)}
    os.close(descriptor)
