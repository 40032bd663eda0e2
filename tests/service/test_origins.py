"""What a receipt says that a job was made from: taken before anything of the job runs, kept where no job writes."""

import errno
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from jobledger.v1.job_pb2 import JobSpec
from jobledger_server.core.ports import Launch, Outcome, Running
from jobledger_server.service import scheduler
from support.eventually import eventually
from support.executors import FAILURE, ScriptedExecutor
from support.records import COMPLETED, FAILED, RUNNING
from support.services import Services


@pytest.fixture
def tool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bin") / "tool"
    path.write_text("first")
    path.chmod(0o755)
    return path


@pytest.fixture
def spec(tool: Path) -> JobSpec:
    return JobSpec(env={"PATH": str(tool.parent)}, tools=["tool"])


def pins(tool: Path, content: str) -> dict[str, str]:
    return {"tool:tool": f"sha256:{hashlib.sha256(content.encode()).hexdigest()} {tool.resolve()}"}


async def stored_receipt(served: Services, job_id: str) -> dict[str, Any]:
    stored = await served.store.receipt(job_id)
    assert stored is not None
    return dict(json.loads(stored.receipt))


async def test_it_is_stored_before_anything_runs_and_a_job_can_not_change_it(
    served: Services, executor: ScriptedExecutor, tool: Path, spec: JobSpec, tmp_path: Path
) -> None:
    executor.gate.clear()
    job_id = await served.create(also=spec)
    await eventually(lambda: asked(executor), until=bool)
    record = await served.get(job_id)
    assert record.origin is not None
    assert (record.origin.attempt, record.origin.source_pins) == (1, pins(tool, "first"))
    executor.gate.set()
    await served.reaches(job_id, RUNNING)
    tool.write_text("second")
    for path in (tmp_path / "logs" / job_id, tmp_path / "jobs" / job_id):
        (path / "source_pins.json").write_text(json.dumps({"git_commit": "f" * 40, "tool:tool": "forged"}))
    executor.end(job_id, 1)
    await served.reaches(job_id, COMPLETED)
    assert (await stored_receipt(served, job_id))["source_pins"] == pins(tool, "first")


async def asked(executor: ScriptedExecutor) -> list[tuple[str, int]]:
    return executor.asked


async def test_each_attempt_has_its_own(
    served: Services, executor: ScriptedExecutor, tool: Path, spec: JobSpec
) -> None:
    job_id = await served.create(also=spec, max_attempts=2)
    await served.reaches(job_id, RUNNING)
    tool.write_text("second")
    executor.end(job_id, 1, FAILURE)
    await eventually(lambda: served.get(job_id), until=lambda record: record.job.attempt == 2)
    executor.end(job_id, 2)
    await served.reaches(job_id, COMPLETED)
    assert (await stored_receipt(served, job_id))["source_pins"] == pins(tool, "second")


async def test_of_an_attempt_that_never_started_nothing_is_told(
    served: Services, executor: ScriptedExecutor, tool: Path, spec: JobSpec
) -> None:
    """The receipt is of the attempt before it, which was made from something else."""
    job_id = await served.create(also=spec, max_attempts=2)
    await served.reaches(job_id, RUNNING)
    tool.write_text("second")
    executor.faults.append(OSError(errno.ENOENT, "no such program"))
    executor.end(job_id, 1, FAILURE)
    await served.reaches(job_id, FAILED)
    receipt = await stored_receipt(served, job_id)
    assert (receipt["attempt"], receipt["source_pins"]) == (1, {})


async def test_of_an_attempt_that_had_started_when_the_start_was_tried_again_the_first_look_counts(
    served: Services, executor: ScriptedExecutor, tool: Path, spec: JobSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = executor.start

    async def start_and_fail_to_say_so(launch: Launch) -> Running | Outcome:
        await start(launch)
        tool.write_text("second")
        raise OSError(errno.EAGAIN, "no more processes")

    monkeypatch.setattr(scheduler, "PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(executor, "start", start_and_fail_to_say_so)
    job_id = await served.create(also=spec)
    await served.reaches(job_id, RUNNING)
    executor.end(job_id, 1)
    await served.reaches(job_id, COMPLETED)
    assert executor.started == [(job_id, 1)]
    assert (await stored_receipt(served, job_id))["source_pins"] == pins(tool, "first")
