"""What a job says reaches the files that server and next attempt read: coalesced, bounded, not lost at the end."""

import errno
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from executors.harness import Lab, eventually
from jobledger_server.core.ports import EndReason, Outcome
from jobledger_server.executors.local import reports as module
from jobledger_server.executors.local.control_dir import ControlDir
from jobledger_server.executors.local.executor import LocalExecutor
from jobledger_server.executors.local.reports import (
    INTERVAL,
    MOST_ARTIFACTS,
    MOST_MISDECLARED,
    NEVER,
    RETRY_SECONDS,
    Reports,
)
from jobledger_server.executors.local.statements import read_outcome


class Bench:
    """Reports over a pipe that a test writes to."""

    def __init__(self, directory: Path) -> None:
        self.control = ControlDir(directory)
        self.checkpoint = directory / "checkpoint.json"
        self.logged: list[bytes] = []
        self.pipe, self.job = os.pipe()
        os.set_blocking(self.pipe, False)
        self.reports = Reports(self.pipe, control=self.control, job_dir=directory, take_log_line=self.logged.append)

    def say(self, **message: Any) -> None:
        os.write(self.job, json.dumps(message).encode() + b"\n")
        self.reports.read()

    def said_to_the_server(self) -> tuple[Sequence[str], Sequence[str]]:
        """What the job declared, and what it can't have meant, as the outcome of its attempt has them."""
        word = {"reason": "exited", "exit_code": 0, "message": "", "started_at": 1, "ended_at": 2}
        self.control.exit.write_text(json.dumps(word))
        outcome = read_outcome(self.control)
        assert outcome is not None
        return outcome.declared, outcome.misdeclared

    def declared(self) -> list[str]:
        return list(json.loads(self.control.artifacts.read_text())["paths"])


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    os.close(made.pipe)
    os.close(made.job)


def test_the_latest_checkpoint_counts_and_the_first_is_not_kept_waiting(bench: Bench) -> None:
    bench.say(type="checkpoint", data={"row": 1})
    assert bench.reports.due <= INTERVAL
    bench.reports.write(100.0)
    bench.say(type="checkpoint", data={"row": 2})
    bench.say(type="checkpoint", data={"row": 3})
    assert bench.reports.due == 100.0 + INTERVAL
    bench.reports.write(100.0)
    assert json.loads(bench.checkpoint.read_text()) == {"row": 1}
    bench.reports.write(100.0 + INTERVAL)
    assert json.loads(bench.checkpoint.read_text()) == {"row": 3}
    assert bench.reports.due == NEVER


def test_what_is_not_written_yet_is_written_at_the_end(bench: Bench) -> None:
    bench.say(type="progress", percent=1)
    bench.say(type="checkpoint", data={"row": 1})
    bench.reports.write(100.0)
    bench.say(type="progress", percent=99)
    bench.say(type="checkpoint", data={"row": 2})
    bench.say(type="artifact", path="late.txt")
    bench.reports.finish()
    assert json.loads(bench.control.progress.read_text()) == {"percent": 99.0}
    assert json.loads(bench.checkpoint.read_text()) == {"row": 2}
    assert bench.declared() == ["late.txt"]


def test_artifacts_are_kept_once_and_in_the_order_in_which_they_were_declared(bench: Bench) -> None:
    for path in ("b", "a", "./b", "c"):
        bench.say(type="artifact", path=path)
    bench.reports.finish()
    assert bench.declared() == ["b", "a", "c"]
    bench.say(type="artifact", path="a")
    assert bench.reports.due == NEVER
    assert bench.reports.ignored == 0


def test_what_is_declared_beyond_the_bound_is_counted_and_left_out(bench: Bench) -> None:
    for number in range(MOST_ARTIFACTS + 5):
        bench.say(type="artifact", path=f"{number}")
    bench.reports.finish()
    assert bench.declared() == [str(number) for number in range(MOST_ARTIFACTS)]
    assert bench.reports.ignored == 5
    bench.say(type="artifact", path="0")
    assert bench.reports.ignored == 5


def test_what_no_artifact_can_be_called_is_kept_too_within_bounds(bench: Bench) -> None:
    """The server tells of it; it goes by the names alone, also those that mean elsewhere once they are decoded."""
    for path in ("good", "../x", "%2e%2e%2fx", "../x", "a\nb"):
        bench.say(type="artifact", path=path)
    bench.reports.finish()
    assert bench.said_to_the_server() == (("good",), ("%2e%2e%2fx", "../x", "a\nb"))
    for number in range(MOST_MISDECLARED):
        bench.say(type="artifact", path=f"../{number}")
    bench.reports.finish()
    good, bad = bench.said_to_the_server()
    assert (good, len(bad), bench.reports.ignored) == (("good",), MOST_MISDECLARED, 2)


def test_on_a_full_disk_a_checkpoint_waits_for_room(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(module, "write_text", full)
        bench.say(type="checkpoint", data={"row": 1})
        bench.reports.write(100.0)
    assert bench.reports.due == 100.0 + RETRY_SECONDS
    bench.reports.write(100.0 + RETRY_SECONDS)
    assert json.loads(bench.checkpoint.read_text()) == {"row": 1}


def test_a_file_that_can_not_be_replaced_leaves_nothing_behind(bench: Bench) -> None:
    bench.checkpoint.mkdir()
    bench.say(type="checkpoint", data={"row": 1})
    bench.reports.finish()
    assert list(bench.checkpoint.parent.iterdir()) == [bench.checkpoint]


def test_a_link_in_the_place_of_the_checkpoint_is_not_followed(bench: Bench, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    bench.checkpoint.symlink_to(victim)
    bench.say(type="checkpoint", data={"row": 1})
    bench.reports.finish()
    assert victim.read_text() == "precious"
    assert not bench.checkpoint.is_symlink()
    assert json.loads(bench.checkpoint.read_text()) == {"row": 1}


# --- a real attempt ---

SAYS = """
    say() { echo "$1" > "$JOBLEDGER_CONTROL"; }
    say '{"type": "artifact", "path": "model.bin"}'
    say '{"type": "checkpoint", "data": {"row": 1}}'
    say '{"type": "checkpoint", "data": {"row": 2}}'
    say nonsense
"""


async def ended(lab: Lab, executor: LocalExecutor, script: str) -> tuple[Outcome, Path]:
    launch = lab.shell(script)
    return await lab.run(executor, launch), launch.job_dir / "checkpoint.json"


async def test_an_attempt_leaves_its_last_checkpoint_and_tells_what_it_declared(
    lab: Lab, executor: LocalExecutor
) -> None:
    outcome, checkpoint = await ended(lab, executor, f"{SAYS} exit 3")
    assert (outcome.exit_code, outcome.declared, outcome.ignored_messages) == (3, ("model.bin",), 1)
    assert json.loads(checkpoint.read_text()) == {"row": 2}


async def test_both_survive_the_supervisor(lab: Lab, executor: LocalExecutor) -> None:
    """As far as they are on disk: here the job waits for that."""
    outcome, checkpoint = await ended(
        lab,
        executor,
        f"""{SAYS}
        while ! grep -q 2 "$JOBLEDGER_JOB_DIR/checkpoint.json"; do sleep 0.02; done
        while [ ! -e {lab.root}/data/control/*/artifacts.json ]; do sleep 0.02; done
        kill -9 $PPID; sleep 60""",
    )
    assert (outcome.reason, outcome.declared) == (EndReason.LOST, ("model.bin",))
    assert json.loads(checkpoint.read_text()) == {"row": 2}


async def test_the_listener_is_told_while_the_job_runs(lab: Lab, executor: LocalExecutor) -> None:
    launch = lab.shell(f"{SAYS} while [ ! -e go ]; do sleep 0.02; done")
    await executor.start(launch)
    await eventually(lambda: lab.recorder.declared)
    (launch.job_dir / "go").touch()
    await lab.outcome(launch)
    assert set(lab.recorder.declared) == {("model.bin",)}
