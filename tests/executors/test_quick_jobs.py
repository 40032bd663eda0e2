"""Jobs that have ended before the server looks at them for the first time."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from executors.harness import Lab, eventually
from jobledger_server.core.ports import Outcome, Running
from jobledger_server.executors.local.control_dir import ControlDir
from jobledger_server.executors.local.executor import LocalExecutor
from jobledger_server.executors.local.spawner import Spawner


@pytest.fixture(autouse=True)
def slow_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """It hears of a supervisor once that has come to its end."""
    spawn = Spawner.spawn

    async def spawn_and_wait(self: Spawner, control_dir: Path, secret_env: Mapping[str, str]) -> int:
        shim = await spawn(self, control_dir, secret_env)
        control = ControlDir(control_dir)
        await eventually(lambda: control.read_end() and not control.lock_is_held())
        return shim

    monkeypatch.setattr(Spawner, "spawn", spawn_and_wait)


async def test_the_end_is_the_answer_to_the_start(lab: Lab, executor: LocalExecutor) -> None:
    answer = await executor.start(lab.shell("exit 3"))
    assert isinstance(answer, Outcome)
    assert answer.exit_code == 3


async def test_how_far_one_was_is_told_before_its_end(lab: Lab, executor: LocalExecutor) -> None:
    launch = lab.shell("""echo '{"type":"progress","percent":50}' > $JOBLEDGER_CONTROL; exit 3""")
    assert isinstance(await executor.start(launch), Running)
    assert (await lab.outcome(launch)).exit_code == 3
    assert [report.percent for report in lab.recorder.reports] == [50.0]
