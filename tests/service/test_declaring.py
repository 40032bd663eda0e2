"""Artifacts that are declared: pending at once, and at the end of the job complete or failed, with the ids they had."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from jobledger.v1.job_pb2 import ArtifactStatus, ArtifactType, Job
from jobledger.v1.job_service_pb2 import CancelJobRequest
from jobledger_server.core.ports import JobChange, JobRecord, StoreUnavailableError
from support.clock import ManualClock
from support.eventually import eventually
from support.executors import FAILURE, SUCCESS, ScriptedExecutor
from support.records import CANCELLING, COMPLETED, FAILED, QUEUED, RUNNING
from support.services import ANYBODY, Services

PENDING, COMPLETE, BROKEN = "PENDING", "COMPLETE", "FAILED"


@pytest.fixture
def top(tmp_path: Path) -> Path:
    return tmp_path / "jobs"


def _only_logs(record: JobRecord) -> JobChange:
    job = Job()
    job.CopyFrom(record.job)
    job.spec.artifacts.append("*.log")
    return JobChange(record=replace(record, job=job))


async def running(served: Services, **fields: Any) -> str:
    job_id = await served.create(**fields)
    await served.reaches(job_id, RUNNING)
    return job_id


async def artifacts(served: Services, job_id: str) -> dict[str, str]:
    """Status by path."""
    found = await served.store.artifacts(job_id)
    return {artifact.path: ArtifactStatus.Name(artifact.status).removeprefix("ARTIFACT_STATUS_") for artifact in found}


async def declared(served: Services, executor: ScriptedExecutor, job_id: str, *paths: str, attempt: int = 1) -> None:
    executor.declare(job_id, attempt, *paths)
    await eventually(lambda: artifacts(served, job_id), until=lambda found: set(paths) <= set(found))


async def stored_receipt(served: Services, job_id: str) -> dict[str, Any]:
    stored = await served.store.receipt(job_id)
    assert stored is not None
    return dict(json.loads(stored.receipt))


async def told(served: Services) -> list[tuple[int, str, str]]:
    """Each artifact event: id, path and status."""
    stored = await served.store.events_after(0, limit=1000)
    found = [event.artifact.artifact for event in stored if event.event_type == "job.artifact"]
    return [
        (artifact.id, artifact.path, ArtifactStatus.Name(artifact.status).removeprefix("ARTIFACT_STATUS_"))
        for artifact in found
    ]


async def test_a_declared_file_is_pending_with_its_event_at_once(
    served: Services, executor: ScriptedExecutor, clock: ManualClock
) -> None:
    job_id = await running(served)
    await declared(served, executor, job_id, "deep/model.bin")
    (artifact,) = await served.store.artifacts(job_id)
    assert (artifact.name, artifact.artifact_type) == ("model.bin", ArtifactType.ARTIFACT_TYPE_PARTIAL)
    assert not artifact.HasField("size_bytes")
    assert not artifact.HasField("sha256")
    assert artifact.created_at.ToMicroseconds() == clock.now()
    assert await told(served) == [(artifact.id, "deep/model.bin", PENDING)]


async def test_what_is_told_again_is_neither_stored_nor_told_again(
    served: Services, executor: ScriptedExecutor
) -> None:
    job_id = await running(served)
    for _ in range(3):
        executor.declare(job_id, 1, "a", "b")
    await declared(served, executor, job_id, "a", "b", "c")
    assert [(path, status) for _, path, status in await told(served)] == [(path, PENDING) for path in ("a", "b", "c")]


async def test_at_the_end_it_is_complete_or_failed_under_the_same_id(
    served: Services, executor: ScriptedExecutor, top: Path
) -> None:
    """The job's globs do not matter to what was declared; the receipt claims what was written alone."""
    job_id = await running(served)
    await served.store.update_job(job_id, _only_logs)
    await declared(served, executor, job_id, "model.bin", "never.bin", "link.bin")
    pending = {artifact.path: artifact.id for artifact in await served.store.artifacts(job_id)}
    for name in ("model.bin", "other.bin", "run.log"):
        (top / job_id / "output" / name).write_text("content")
    (top / job_id / "output" / "link.bin").symlink_to("/etc/passwd")
    executor.end(job_id, 1)
    await served.reaches(job_id, COMPLETED)
    assert await artifacts(served, job_id) == {
        "link.bin": BROKEN, "model.bin": COMPLETE, "never.bin": BROKEN, "run.log": COMPLETE
    }  # fmt: skip
    settled = {artifact.path: artifact.id for artifact in await served.store.artifacts(job_id)}
    assert {path: settled[path] for path in pending} == pending
    assert set(await told(served)) >= {
        (settled["model.bin"], "model.bin", COMPLETE),
        (settled["never.bin"], "never.bin", BROKEN),
    }
    receipt = await stored_receipt(served, job_id)
    assert [output["path"] for output in receipt["outputs"]] == ["model.bin", "run.log"]
    assert {refusal["path"]: refusal["reason"] for refusal in receipt["refused"]} == {
        "link.bin": "a symbolic link",
        "never.bin": "declared, and there is no such file",
    }


async def test_a_job_that_fails_claims_nothing_that_it_did_not_write(
    served: Services, executor: ScriptedExecutor
) -> None:
    job_id = await running(served)
    await declared(served, executor, job_id, "model.bin")
    executor.end(job_id, 1, FAILURE)
    await served.reaches(job_id, FAILED)
    assert await artifacts(served, job_id) == {"model.bin": BROKEN}
    receipt = await stored_receipt(served, job_id)
    assert (receipt["receipt_status"], receipt["outputs"]) == ("partial", [])


async def test_what_no_artifact_can_be_called_is_refused_by_name_and_is_none(
    served: Services, executor: ScriptedExecutor
) -> None:
    """As text that can be shown, and no more of it than tells what it was."""
    job_id = await running(served)
    bad = ("../x", "/etc/passwd", "%2e%2e%2fx", "nul\0", "new\nline", "right\u202eleft", "caf\udce9", "x" * 1025, "")
    executor.end(job_id, 1, replace(SUCCESS, misdeclared=bad))
    await served.reaches(job_id, COMPLETED)
    assert await artifacts(served, job_id) == {}
    leads_out = "declared, and its path leads out of output/, or names no file"
    deceives = "declared, and its name has characters that no file system should see"
    assert {it["path"]: it["reason"] for it in (await stored_receipt(served, job_id))["refused"]} == {
        "": leads_out,
        "../x": leads_out,
        "/etc/passwd": leads_out,
        "%2e%2e%2fx": "declared, and its name, percent-decoded, would lead elsewhere",
        "nul\\x00": deceives,
        "new\\nline": deceives,
        "right\\u202eleft": deceives,
        "caf\\udce9": deceives,
        f"{'x' * 256}...": "declared, and its path is longer than 1024 characters",
    }


async def test_what_came_too_late_to_be_heard_is_known_at_the_end(served: Services, executor: ScriptedExecutor) -> None:
    job_id = await running(served)
    executor.end(job_id, 1, replace(SUCCESS, declared=("a", "b")))
    await served.reaches(job_id, COMPLETED)
    assert [(path, status) for _, path, status in await told(served)] == [
        (path, status) for status in (PENDING, BROKEN) for path in ("a", "b")
    ]


async def test_the_next_attempt_starts_with_nothing_declared(served: Services, executor: ScriptedExecutor) -> None:
    job_id = await running(served, max_attempts=2)
    await declared(served, executor, job_id, "first.bin", "both.bin")
    executor.end(job_id, 1, FAILURE)
    await eventually(lambda: served.get(job_id), until=lambda record: record.job.attempt == 2)
    assert await artifacts(served, job_id) == {}
    await declared(served, executor, job_id, "both.bin", attempt=2)
    executor.end(job_id, 2)
    await served.reaches(job_id, COMPLETED)
    assert await artifacts(served, job_id) == {"both.bin": BROKEN}
    assert [path for _, path, status in await told(served) if status == PENDING] == [
        "first.bin", "both.bin", "both.bin"
    ]  # fmt: skip


async def test_an_attempt_that_is_over_declares_nothing(served: Services, executor: ScriptedExecutor) -> None:
    job_id = await running(served)
    executor.end(job_id, 1)
    await served.reaches(job_id, COMPLETED)
    await served.declaring.declare(job_id, 1, ["late.bin"])
    assert await artifacts(served, job_id) == {}


async def test_declarations_at_the_same_time_are_stored_once_each(served: Services) -> None:
    job_id = await running(served)
    paths = [f"{number}" for number in range(20)]
    await asyncio.gather(*(served.declaring.declare(job_id, 1, paths[: count + 1]) for count in range(20)))
    assert sorted(path for _, path, _ in await told(served)) == sorted(paths)


async def test_while_the_store_can_not_write_nothing_is_lost(
    served: Services, executor: ScriptedExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = await running(served)
    tried = asyncio.Event()

    async def full(count: int) -> int:
        tried.set()
        raise StoreUnavailableError("disk full")

    with monkeypatch.context() as outage:
        outage.setattr(served.store, "reserve_artifact_ids", full)
        executor.declare(job_id, 1, "a")
        await tried.wait()
    executor.end(job_id, 1, replace(SUCCESS, declared=("a",)))
    await served.reaches(job_id, COMPLETED)
    assert await artifacts(served, job_id) == {"a": BROKEN}


async def test_messages_that_were_not_understood_are_told_of_in_the_servers_log(
    served: Services, executor: ScriptedExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    job_id = await running(served)
    executor.end(job_id, 1, replace(SUCCESS, ignored_messages=3))
    await served.reaches(job_id, COMPLETED)
    assert f"{job_id}, attempt 1: 3 messages were not understood" in caplog.text


async def test_output_is_collected_where_a_cancel_keeps_a_failed_attempt_from_the_next(
    served: Services, executor: ScriptedExecutor, top: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cancel comes between the look at the job and the transaction that ends the attempt."""
    job_id = await running(served, max_attempts=2)
    (top / job_id / "output" / "left.txt").write_text("left")
    update, cancelled = served.store.update_job, False

    async def cancel_first(changed: str, decide: Any) -> Any:
        nonlocal cancelled
        if not cancelled:
            cancelled = True
            await served.cancelling.cancel(CancelJobRequest(job_id=job_id), ANYBODY)
            await served.reaches(job_id, CANCELLING)
        return await update(changed, decide)

    monkeypatch.setattr(served.store, "update_job", cancel_first)
    executor.end(job_id, 1, FAILURE)
    assert (await served.reaches(job_id, FAILED, QUEUED)).job.state == FAILED
    assert await artifacts(served, job_id) == {"left.txt": COMPLETE}
