"""A job's receipt tells the truth of the log that is there, though nobody left word of it; calls hold it to that."""

import contextlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from jobledger.v1.job_service_pb2 import (
    CancelJobRequest,
    GetLogContentRequest,
    GetLogsRequest,
    GetLogsResponse,
    TailLogsRequest,
)
from jobledger_server.core.errors import ServiceError, name_of
from jobledger_server.core.ports import EndReason, Kept, Outcome
from jobledger_server.joblog.promises import Promise
from jobledger_server.joblog.reader import LogQuery
from jobledger_server.joblog.segments import Stream
from jobledger_server.joblog.writer import LogWriter
from jobledger_server.service.job_log import JobLog, promise_of
from jobledger_server.service.kept_log import kept_log
from jobledger_server.service.logs import Logs
from jobledger_server.service.signals import JobSignals
from jobledger_server.service.trees import remove_tree
from jobledger_server.service.workspace import Workspaces
from jobledger_server.stores.sqlite import SqliteStore
from support.clock import ManualClock
from support.executors import FAILURE, ScriptedExecutor
from support.records import QUEUED, RUNNING
from support.services import ANYBODY, serving

OUTPUT = b"one\n" * 5 + b'{"level":"error","message":"bad"}\n'


def write(log_dir: Path, *, seal: bool) -> None:
    writer = LogWriter(log_dir)
    writer.write(Stream.STDOUT, OUTPUT)
    if seal:
        writer.seal()
    writer.close()


async def promised(store: SqliteStore, job_id: str) -> Promise | None:
    return promise_of(await store.receipt(job_id))


async def kept_as(store: SqliteStore, job_id: str) -> list[Kept]:
    logs = (Kept.LOGS_INFO, Kept.LOGS_WARN, Kept.LOGS_ERROR)
    return [
        kept for kept in logs for job in await store.ended_jobs(kept, before=1 << 60, limit=10) if job.job_id == job_id
    ]


@pytest.mark.parametrize("reason", [EndReason.LOST, EndReason.UNKILLABLE, None])
async def test_the_receipt_of_a_lost_job_tells_of_the_log_that_is_there(
    tmp_path: Path, store: SqliteStore, clock: ManualClock, executor: ScriptedExecutor, reason: EndReason | None
) -> None:
    """None: nothing at all is known of the attempt."""
    async with serving(tmp_path, store=store, clock=clock, executor=executor) as served:
        job_id = await served.create()
        await served.reaches(job_id, RUNNING)
    log_dir = tmp_path / "logs" / job_id
    write(log_dir, seal=False)
    if reason:
        executor.end(job_id, 1, Outcome(reason=reason))
    else:
        executor.running.clear()
    async with serving(tmp_path, store=store, clock=clock, executor=executor, schedule=False):
        receipt = await store.receipt(job_id)
    assert receipt
    said = json.loads(receipt.receipt)
    assert (said["log"]["entries"], said["summary"]["errors_count"]) == (6, 1)
    promise = promise_of(receipt)
    assert await kept_as(store, job_id) == [Kept.LOGS_ERROR]
    assert JobLog(log_dir, 1, promise).page(LogQuery()).total == 6
    assert (log_dir / "00000001.seal").exists() == (reason is not EndReason.UNKILLABLE)


async def test_the_receipt_of_a_job_that_is_cancelled_between_attempts_tells_of_its_log(
    tmp_path: Path, store: SqliteStore, clock: ManualClock, executor: ScriptedExecutor
) -> None:
    async with serving(tmp_path, store=store, clock=clock, executor=executor) as served:
        job_id = await served.create(max_attempts=2, backoff=1000)
        await served.reaches(job_id, RUNNING)
        write(tmp_path / "logs" / job_id, seal=True)
        executor.end(job_id, 1, FAILURE)
        await served.reaches(job_id, QUEUED)
        await served.cancelling.cancel(CancelJobRequest(job_id=job_id), ANYBODY)
        promise = await promised(store, job_id)
    assert promise
    assert promise.entries == 6
    assert await kept_as(store, job_id) == [Kept.LOGS_ERROR]


def test_of_a_log_without_files_nothing_is_known(tmp_path: Path) -> None:
    for final in (True, False):
        summary = kept_log(tmp_path / "none", final=final)
        assert (summary.entries, summary.sha256) == (0, "")


def refusal(log_dir: Path, promise: Promise, query: LogQuery | None = None) -> tuple[str, dict[str, str]]:
    with pytest.raises(ServiceError) as refused:
        JobLog(log_dir, 1, promise).page(query or LogQuery())
    assert str(log_dir) not in refused.value.message
    return name_of(refused.value.reason), dict(refused.value.metadata)


def lose_the_end(log_dir: Path) -> None:
    for suffix in ("data", "index", "seal"):
        (log_dir / f"00000002.{suffix}").unlink()


def write_another(log_dir: Path) -> None:
    for path in log_dir.iterdir():
        path.unlink()
    writer = LogWriter(log_dir)
    for _ in range(2):
        writer.write(Stream.STDOUT, OUTPUT.replace(b"one", b"two"))
        writer.seal()
    writer.close()


@pytest.mark.parametrize("damage", [lose_the_end, write_another])
def test_a_log_that_is_not_the_one_of_the_receipt_is_damaged_though_it_fits_together(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    log_dir = tmp_path / "log"
    for _ in range(2):
        write(log_dir, seal=True)
    summary = kept_log(log_dir, final=False)
    promise = Promise(summary.entries, summary.sha256)
    assert JobLog(log_dir, 1, promise).page(LogQuery()).total == 12
    damage(log_dir)
    assert refusal(log_dir, promise) == ("LOG_DAMAGED", {})


def test_a_part_that_is_damaged_is_named_and_the_rest_can_be_read(tmp_path: Path) -> None:
    log_dir = tmp_path / "log"
    for _ in range(3):
        write(log_dir, seal=True)
    summary = kept_log(log_dir, final=False)
    promise = Promise(summary.entries, summary.sha256)
    (log_dir / "00000002.data").write_bytes(b"x" * len(OUTPUT))
    named = {"first_sequence": "7", "last_sequence": "12"}
    assert len(JobLog(log_dir, 1, promise).page(LogQuery(limit=12)).entries) == 6
    assert refusal(log_dir, promise, LogQuery(after_sequence=6)) == ("LOG_DAMAGED", named)
    for query in (LogQuery(limit=6), LogQuery(after_sequence=12)):
        page = JobLog(log_dir, 1, promise).page(query)
        assert (len(page.entries), page.total) == (6, 18)


def test_a_segment_that_is_gone_with_all_its_files_is_damage_and_no_gap(tmp_path: Path) -> None:
    log_dir = tmp_path / "log"
    for _ in range(3):
        write(log_dir, seal=True)
    promise = Promise(18, "")
    lose_the_end(log_dir)
    page = JobLog(log_dir, 1, promise).page(LogQuery())
    assert ([entry.job_sequence for entry in page.entries], page.has_more) == ([1, 2, 3, 4, 5, 6], True)
    named = {"first_sequence": "7", "last_sequence": "12"}
    assert refusal(log_dir, promise, LogQuery(after_sequence=6)) == ("LOG_DAMAGED", named)
    assert len(JobLog(log_dir, 1, promise).page(LogQuery(after_sequence=12)).entries) == 6


def test_a_log_that_is_gone_is_damaged_from_its_first_entry_to_its_last(tmp_path: Path) -> None:
    named = {"first_sequence": "1", "last_sequence": "6"}
    for sha256 in ("0" * 64, ""):
        assert refusal(tmp_path / "none", Promise(6, sha256)) == ("LOG_DAMAGED", named)
    assert JobLog(tmp_path / "none", 1).page(LogQuery()).total == 0


async def test_a_log_without_files_is_damaged_unless_a_sweep_has_removed_it(
    tmp_path: Path, store: SqliteStore, clock: ManualClock, executor: ScriptedExecutor
) -> None:
    async with serving(tmp_path, store=store, clock=clock, executor=executor) as served:
        job_id = await served.create()
        await served.reaches(job_id, RUNNING)
        log_dir = tmp_path / "logs" / job_id
        write(log_dir, seal=True)
        executor.running.clear()
    async with serving(tmp_path, store=store, clock=clock, executor=executor, schedule=False) as served:
        assert await promised(store, job_id)
        lost = {"first_sequence": "1", "last_sequence": "6"}
        remove_tree(log_dir)
        workspaces = Workspaces(data_dir=tmp_path)
        logs = Logs(store=store, workspaces=workspaces, signals=JobSignals())
        page, content, tail = (
            GetLogsRequest(job_id=job_id),
            GetLogContentRequest(job_id=job_id),
            TailLogsRequest(job_id=job_id),
        )
        for call in (logs.page(page, ANYBODY), logs.content(content, ANYBODY), logs.tail(tail, ANYBODY)):
            with pytest.raises(ServiceError) as refused:
                await call
            assert (name_of(refused.value.reason), refused.value.metadata) == ("LOG_DAMAGED", lost)
        workspaces.removing.add(log_dir)
        assert GetLogsResponse.FromString((await logs.page(page, ANYBODY)).body).total == 0
        workspaces.removing.clear()
        await store.forget(Kept.LOGS_ERROR, [job_id], at=clock.now())
        assert GetLogsResponse.FromString((await logs.page(page, ANYBODY)).body).HasField("log_removed_at")
        assert (await logs.content(content, ANYBODY)).part.length == 0
        with pytest.raises(ServiceError) as refused:
            await logs.tail(TailLogsRequest(job_id=job_id, after_sequence=2), ANYBODY)
        assert name_of(refused.value.reason) == "STREAM_GAP_TOO_LARGE"


def test_a_log_whose_files_are_gone_when_it_is_sealed_has_no_hash(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path / "log")
    writer.write(Stream.STDOUT, OUTPUT)
    remove_tree(tmp_path / "log")
    with contextlib.suppress(OSError):
        writer.seal()
    assert writer.totals()[:2] == (6, "")
    writer.close()
