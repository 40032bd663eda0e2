"""What every executor promises, with real processes."""

import asyncio
import hashlib
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from executors.harness import Lab, eventually
from jobledger_server.core.ports import EndReason, InputClosedError, InputFullError, Outcome, Running
from jobledger_server.executors.local.executor import LocalExecutor
from jobledger_server.executors.local.isolation import NONE
from jobledger_server.joblog.reader import LogQuery, LogReader

# --- starting and ending --------------------------------------------------------------------------------------------


async def test_a_job_runs_and_its_end_is_told_once(lab: Lab, executor: LocalExecutor) -> None:
    launch = lab.shell("echo hello; read word; exit 3", stdin_open=True)
    started = await executor.start(launch)
    assert isinstance(started, Running)
    await executor.send_input(launch.job_id, 1, b"go on\n", close=True)
    outcome = await lab.outcome(launch)
    assert (outcome.reason, outcome.exit_code, outcome.signal) == (EndReason.EXITED, 3, None)
    assert started.started_at == outcome.started_at <= outcome.ended_at
    assert lab.content(launch) == b"hello\n"
    assert outcome.log.entries == 1
    assert outcome.log.sha256 == hashlib.sha256(b"hello\n").hexdigest()
    assert await executor.find(launch.job_id, 1) == outcome
    assert lab.recorder.ended[(launch.job_id, 1)] == [outcome]


async def test_a_signal_from_elsewhere_is_part_of_the_outcome(lab: Lab, executor: LocalExecutor) -> None:
    launch = lab.launch("sleep", "1000")
    started = await executor.start(launch)
    assert isinstance(started, Running)
    os.kill(started.pid, signal.SIGKILL)
    outcome = await lab.outcome(launch)
    assert (outcome.reason, outcome.exit_code, outcome.signal) == (EndReason.EXITED, None, signal.SIGKILL)


async def test_a_job_gets_its_environment_and_directory_and_nothing_else(lab: Lab, executor: LocalExecutor) -> None:
    launch = lab.python(
        "import os, signal; print(sorted(os.environ), os.getcwd(), sorted(os.listdir('/proc/self/fd'))[:-1],"
        " os.getsid(0) == os.getpid(), signal.getsignal(signal.SIGTERM), signal.pthread_sigmask(0, ()))"
    )
    await lab.run(executor, launch)
    names = sorted({*launch.env, "LC_CTYPE", *([] if lab.level == NONE else ["TMPDIR"])})
    expected = f"{names} {launch.job_dir} ['0', '1', '2'] True 0 set()\n"
    assert lab.content(launch).decode() == expected


async def test_an_attempt_starts_at_most_once(lab: Lab, executor: LocalExecutor) -> None:
    """However often and from however many servers it is asked for."""
    launch = lab.shell("echo started; exec sleep 1000")
    async with lab.executor() as other:
        answers = await asyncio.gather(*(which.start(launch) for which in [executor, other] * 4))
        assert len(set(answers)) == 1
        await executor.cancel(launch.job_id, 1, grace_seconds=5)
        outcome = await lab.outcome(launch)
        assert await executor.start(launch) == outcome
    assert lab.content(launch) == b"started\n"


async def test_an_attempt_that_was_never_started_is_unknown(lab: Lab, executor: LocalExecutor) -> None:
    assert await executor.find("job_x", 1) is None
    assert executor.queued_inputs("job_x", 1) == 0
    await executor.cancel("job_x", 1, grace_seconds=1)
    await executor.release("job_x", 1)
    assert await executor.find("job_x", 1) is None


async def test_a_released_attempt_is_forgotten(lab: Lab, executor: LocalExecutor) -> None:
    launch = lab.shell("exit 0")
    await lab.run(executor, launch)
    await executor.release(launch.job_id, 1)
    assert await executor.find(launch.job_id, 1) is None


async def test_another_attempt_goes_on_in_the_same_log(lab: Lab, executor: LocalExecutor) -> None:
    first = lab.shell("echo one; echo two >&2")
    await lab.run(executor, first)
    second = lab.shell("echo three >&2", job_id=first.job_id, attempt=2)
    outcome = await lab.run(executor, second)
    assert lab.messages(second) == ["one", "two", "three"]
    assert (outcome.log.entries, outcome.log.warnings) == (3, 2)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["no-such-program"], "No such file: 'no-such-program' (looked in PATH: "),
        (["/no/such/program"], "No such file: '/no/such/program'"),
        (["/etc/passwd"], "permission denied"),
        (["/tmp"], "it is a directory"),
        (["./script"], "the interpreter that its first line names does not exist"),
        (["./nothing"], "not a program"),
        (["true", "x" * 200_000], "arguments and environment are too long"),
        (["true", "a\0b"], "null"),
        ([], "The command is empty"),
    ],
)
async def test_what_cannot_be_started_says_why(
    lab: Lab, executor: LocalExecutor, argv: list[str], message: str
) -> None:
    launch = lab.launch(*argv)
    (launch.job_dir / "script").write_text("#!/no/interpreter\n")
    (launch.job_dir / "nothing").write_bytes(b"\1\2\3")
    for name in ("script", "nothing"):
        (launch.job_dir / name).chmod(0o755)
    outcome = await executor.start(launch)
    assert isinstance(outcome, Outcome)
    assert outcome.reason is EndReason.SPAWN_FAILED
    assert message in outcome.message
    assert await executor.find(launch.job_id, 1) == outcome


async def test_a_working_directory_that_is_missing_is_named(lab: Lab, executor: LocalExecutor) -> None:
    outcome = await executor.start(lab.launch("true", working_dir=Path("/no/such/place")))
    assert isinstance(outcome, Outcome)
    assert "Can't enter the working directory '/no/such/place'" in outcome.message


# --- output ---------------------------------------------------------------------------------------------------------


async def test_output_is_kept_byte_for_byte(lab: Lab, executor: LocalExecutor) -> None:
    payload = bytes(range(256)) * 3 + b"\n" + b"x" * 200_000 + b"\nno newline at the end"
    launch = lab.python(
        "import os\n"
        "data = bytes(range(256)) * 3 + b'\\n' + b'x' * 200_000 + b'\\nno newline at the end'\n"
        "while data: data = data[os.write(1, data):]"
    )
    outcome = await lab.run(executor, launch)
    assert lab.content(launch) == payload
    assert outcome.log.sha256 == hashlib.sha256(payload).hexdigest()
    assert lab.messages(launch)[-1] == "no newline at the end"


async def test_a_question_is_shown_before_its_line_has_ended(lab: Lab, executor: LocalExecutor) -> None:
    """Else nobody would know what to answer. Pieces of a line are the line, when they are joined."""
    launch = lab.shell("printf 'Continue? '; read answer; printf '%s, ' $answer; read more; echo done", stdin_open=True)
    await executor.start(launch)
    for text, answer in (("Continue? ", b"yes\n"), ("yes, ", b"\n")):
        await lab.says(launch, text)
        await executor.send_input(launch.job_id, 1, answer, close=False)
    assert (await lab.outcome(launch)).exit_code == 0
    assert lab.messages(launch) == ["Continue? ", "yes, ", "done"]
    assert lab.content(launch) == b"Continue? yes, done\n"


async def test_a_flood_of_output_is_complete(lab: Lab, executor: LocalExecutor) -> None:
    launch = lab.shell("seq 1 300000; seq 1 1000 >&2")
    outcome = await lab.run(executor, launch)
    reader = LogReader(launch.log_dir, 1)
    assert outcome.log.entries == 301_000 == reader.page(LogQuery(limit=1)).total
    assert outcome.log.warnings == 1000
    (entry,) = reader.page(LogQuery(levels=frozenset({3}), offset=299_999)).entries
    assert entry.message == "300000"


async def test_structured_lines_have_their_own_level(lab: Lab, executor: LocalExecutor) -> None:
    launch = lab.shell("""echo '{"level":"error","message":"broken","subsystem":"db"}'; echo plain""")
    outcome = await lab.run(executor, launch)
    first, second = LogReader(launch.log_dir, 1).page(LogQuery()).entries
    assert (first.level, first.subsystem, first.message) == (5, "db", "broken")
    assert (second.level, second.subsystem, second.message) == (3, "stdout", "plain")
    assert (outcome.log.errors, outcome.log.warnings) == (1, 0)


async def test_the_listener_hears_of_output_while_the_job_runs(lab: Lab, executor: LocalExecutor) -> None:
    launch = lab.shell("echo ready; exec sleep 1000")
    await executor.start(launch)
    await eventually(lambda: launch.job_id in lab.recorder.grown)
    await lab.says(launch, "ready")
    await executor.cancel(launch.job_id, 1, grace_seconds=5)
    await lab.outcome(launch)


async def test_reports_through_the_control_pipe_arrive(lab: Lab, executor: LocalExecutor) -> None:
    launch = lab.shell(
        """
        echo '{"type":"progress","phase":"load","percent":12,"items_completed":1,"items_total":8}' > $JOBLEDGER_CONTROL
        echo '{"type":"log","level":"debug","message":"aside","x":1}' > $JOBLEDGER_CONTROL
        echo 'nonsense' > $JOBLEDGER_CONTROL
        echo '{"type":"progress","percent":900}' > $JOBLEDGER_CONTROL
        echo '{"type":"progress","percent":50}' > $JOBLEDGER_CONTROL
        """
    )
    await lab.run(executor, launch)
    last = lab.recorder.reports[-1]
    assert (last.phase, last.percent, last.items_completed, last.items_total, last.eta_seconds) == (
        "load",
        50.0,
        1,
        8,
        None,
    )
    (entry,) = LogReader(launch.log_dir, 1).page(LogQuery()).entries
    assert (entry.level, entry.subsystem, entry.message, entry.payload["x"]) == (2, "control", "aside", 1)
    assert lab.content(launch) == b""


# --- input ----------------------------------------------------------------------------------------------------------


async def test_standard_input_is_empty_unless_given(lab: Lab, executor: LocalExecutor) -> None:
    launch = lab.launch("cat")
    assert (await lab.run(executor, launch)).exit_code == 0
    assert lab.content(launch) == b""


async def test_standard_input_is_given_as_a_whole_and_ends(lab: Lab, executor: LocalExecutor) -> None:
    text = b"line\n" * 100_000
    launch = lab.launch("cat", stdin=text)
    await lab.run(executor, launch)
    assert lab.content(launch) == text


async def test_a_job_may_leave_its_input_unread(lab: Lab, executor: LocalExecutor) -> None:
    assert (await lab.run(executor, lab.launch("true", stdin=b"x" * 1_000_000))).exit_code == 0


async def test_follow_ups_reach_an_open_input_in_order(lab: Lab, executor: LocalExecutor) -> None:
    launch = lab.launch("cat", stdin=b"zero\n", stdin_open=True)
    await executor.start(launch)
    await lab.says(launch, "zero")
    for word in (b"one\n", b"two\n"):
        await executor.send_input(launch.job_id, 1, word, close=False)
    await lab.says(launch, "two")
    await eventually(lambda: executor.queued_inputs(launch.job_id, 1) == 0)
    await executor.send_input(launch.job_id, 1, b"three\n", close=True)
    assert (await lab.outcome(launch)).exit_code == 0
    assert lab.content(launch) == b"zero\none\ntwo\nthree\n"


async def test_follow_ups_that_nobody_reads_are_counted(lab: Lab, executor: LocalExecutor) -> None:
    launch = lab.launch("sleep", "1000", stdin_open=True)
    await executor.start(launch)
    for _ in range(3):
        await executor.send_input(launch.job_id, 1, b"x" * 100_000, close=False)
    await asyncio.sleep(0)
    assert executor.queued_inputs(launch.job_id, 1) == 3
    async with lab.executor() as successor:
        await successor.find(launch.job_id, 1)
        await eventually(lambda: successor.queued_inputs(launch.job_id, 1) == 3)
        await successor.cancel(launch.job_id, 1, grace_seconds=5)
        await lab.outcome(launch)


async def test_a_follow_up_is_taken_once_it_has_been_read(lab: Lab, executor: LocalExecutor) -> None:
    """That it fits into the pipe is not enough."""
    launch = lab.shell("while [ ! -e gate ]; do sleep 0.05; done; read word; echo $word; read rest", stdin_open=True)
    await executor.start(launch)
    for word in (b"one\n", b"more\n"):
        await executor.send_input(launch.job_id, 1, word, close=False)
    await asyncio.sleep(0)
    assert executor.queued_inputs(launch.job_id, 1) == 2
    async with lab.executor() as successor:
        await successor.find(launch.job_id, 1)
        await eventually(lambda: successor.queued_inputs(launch.job_id, 1) == 2)
        (launch.job_dir / "gate").touch()
        await eventually(lambda: successor.queued_inputs(launch.job_id, 1) == 0)
        assert (await lab.outcome(launch)).exit_code == 0
    assert lab.content(launch) == b"one\n"


async def test_what_nobody_reads_is_refused_past_a_mebibyte_until_it_is_read(lab: Lab, executor: LocalExecutor) -> None:
    """By the next server, too."""
    launch = lab.shell("while [ ! -e gate ]; do sleep 0.05; done; exec cat", stdin_open=True)
    await executor.start(launch)
    await executor.send_input(launch.job_id, 1, b"x" * 600_000, close=False)
    with pytest.raises(InputFullError):
        await executor.send_input(launch.job_id, 1, b"y" * 600_000, close=False)
    async with lab.executor() as successor:
        await successor.find(launch.job_id, 1)
        with pytest.raises(InputFullError):
            await successor.send_input(launch.job_id, 1, b"y" * 600_000, close=False)
        (launch.job_dir / "gate").touch()
        await eventually(lambda: successor.queued_inputs(launch.job_id, 1) == 0)
        await successor.send_input(launch.job_id, 1, b"y" * 600_000, close=True)
        assert (await lab.outcome(launch)).exit_code == 0
    assert lab.content(launch) == b"x" * 600_000 + b"y" * 600_000


async def test_a_closed_input_takes_no_follow_ups(lab: Lab, executor: LocalExecutor) -> None:
    launch = lab.launch("sleep", "1000")
    await executor.start(launch)
    with pytest.raises(InputClosedError):
        await executor.send_input(launch.job_id, 1, b"x", close=False)
    await executor.cancel(launch.job_id, 1, grace_seconds=5)
    await lab.outcome(launch)


async def test_nothing_is_taken_after_the_follow_up_that_closes(lab: Lab, executor: LocalExecutor) -> None:
    launch = replace(lab.launch("sleep", "1000"), stdin_open=True)
    await executor.start(launch)
    await executor.send_input(launch.job_id, 1, b"last\n", close=True)
    with pytest.raises(InputClosedError):
        await executor.send_input(launch.job_id, 1, b"lost\n", close=False)
    await executor.cancel(launch.job_id, 1, grace_seconds=5)
    await lab.outcome(launch)


async def test_nothing_is_taken_once_the_process_is_known_to_have_closed_it(lab: Lab, executor: LocalExecutor) -> None:
    launch = replace(lab.shell("exec 0<&-; echo closed; sleep 1000"), stdin_open=True)
    await executor.start(launch)
    await eventually(lambda: lab.content(launch) == b"closed\n")
    await executor.send_input(launch.job_id, 1, b"first\n", close=False)

    def closed() -> bool:
        return any(lab.root.rglob("input.closed"))

    await eventually(closed)
    with pytest.raises(InputClosedError):
        await executor.send_input(launch.job_id, 1, b"second\n", close=False)
    await executor.cancel(launch.job_id, 1, grace_seconds=5)
    await lab.outcome(launch)


@pytest.mark.parametrize("name", ["control", "cancelled"])
async def test_a_job_that_puts_directories_in_our_way_still_ends_as_it_did(
    lab: Lab, executor: LocalExecutor, name: str
) -> None:
    launch = lab.shell(f'cd "$JOBLEDGER_JOB_DIR" && rm -f {name} && mkdir {name} && echo made && sleep 1000')
    await executor.start(launch)
    await eventually(lambda: lab.content(launch) == b"made\n")
    await executor.cancel(launch.job_id, 1, grace_seconds=5)
    assert (await lab.outcome(launch)).reason is EndReason.CANCELLED


async def test_a_job_that_replaces_its_directory_still_ends_as_it_did(lab: Lab, executor: LocalExecutor) -> None:
    launch = lab.shell('cd / && rm -rf "$JOBLEDGER_JOB_DIR" && echo x > "$JOBLEDGER_JOB_DIR"; exit 7')
    outcome = await lab.run(executor, launch)
    assert (outcome.reason, outcome.exit_code) == (EndReason.EXITED, 7)
