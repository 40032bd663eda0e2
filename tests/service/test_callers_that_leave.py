"""Who asks for a change may leave at any moment: what is stored is carried out all the same."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest
from jobledger.v1.job_pb2 import JobSpec
from jobledger.v1.job_service_pb2 import CancelJobRequest, CancelJobsRequest, CreateJobRequest
from jobledger_server.core.audit import PendingEntry, set_pending
from jobledger_server.core.changes import settled
from jobledger_server.core.concurrency import NO_LIMITS
from jobledger_server.core.job_types import NO_JOB_TYPES
from jobledger_server.core.policy import Principal
from jobledger_server.core.ports import AuditFilter, AuditRecord, JobFilter
from jobledger_server.core.times import duration
from jobledger_server.service.creating import Creating
from jobledger_server.service.storage import Storage
from jobledger_server.service.workspace import Workspaces
from jobledger_server.stores.sqlite import SqliteStore
from jobledger_server.stores.sqlite.writer import Writer
from support.executors import ScriptedExecutor
from support.records import CANCELLING, FAILED, RUNNING
from support.services import ANYBODY, Services

# When the caller leaves: so many turns of the loop on, or when the first of its writes was handed to the store.
HANDED_IN = "handed in"
MOMENTS = [0, 1, 2, 3, 5, 8, HANDED_IN]

is_asking: ContextVar[bool] = ContextVar("is_asking", default=False)
Leaving = Callable[[Coroutine[Any, Any, Any]], Awaitable[None]]


@pytest.fixture(params=MOMENTS)
def moment(request: pytest.FixtureRequest) -> int | str:
    given: int | str = request.param
    return given


@pytest.fixture
def leaving(moment: int | str, monkeypatch: pytest.MonkeyPatch) -> Leaving:
    """Asks for something, and is gone at that moment."""
    handed_in, hand_in = asyncio.Event(), Writer._hand_in

    async def noted(writer: Writer, run: Any) -> Any:
        if is_asking.get():
            handed_in.set()
        return await hand_in(writer, run)

    monkeypatch.setattr(Writer, "_hand_in", noted)

    async def leave(work: Coroutine[Any, Any, Any]) -> None:
        is_asking.set(True)
        asking = asyncio.create_task(work)
        is_asking.set(False)
        if moment == HANDED_IN:
            await handed_in.wait()
        else:
            for _ in range(int(moment)):
                await asyncio.sleep(0)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await settled()

    return leave


async def test_what_is_marked_as_to_be_cancelled_is_told(
    served: Services, executor: ScriptedExecutor, leaving: Leaving, moment: int | str
) -> None:
    job_id = await served.create()
    await served.reaches(job_id, RUNNING)
    await leaving(served.cancelling.cancel(CancelJobRequest(job_id=job_id), ANYBODY))
    told = [attempt for attempt, _ in executor.cancels] == [(job_id, 1)]
    assert (await served.get(job_id)).job.state == (CANCELLING if told else RUNNING)
    assert told or moment != HANDED_IN


async def test_of_many_each_that_was_begun_has_its_entry_in_the_audit_log(
    served: Services, executor: ScriptedExecutor, store: SqliteStore, leaving: Leaving, moment: int | str
) -> None:
    ids = [await served.create() for _ in range(2)]
    for job_id in ids:
        await served.reaches(job_id, RUNNING)
    set_pending(PendingEntry(AuditRecord(at=1, method="CancelJobs")))
    await leaving(served.cancelling.cancel_many(CancelJobsRequest(job_id=ids), ANYBODY))
    set_pending(None)
    told = {job_id for (job_id, _), _ in executor.cancels}
    assert {job_id for job_id in ids if (await served.get(job_id)).job.state == CANCELLING} == told
    entries = await store.audit_before(None, AuditFilter(), limit=10)
    assert {entry.object for entry in entries} == told
    assert told or moment != HANDED_IN


async def test_what_is_queued_waits_no_longer_than_it_may(
    served: Services, tmp_path: Path, leaving: Leaving, moment: int | str
) -> None:
    while served.slots.available:
        await served.reaches(await served.create(), RUNNING)
    caller = Principal(token_id="t", scopes=frozenset({"jobs:create", "jobs:exec"}))
    spec = JobSpec(command=["true"], queue_timeout=duration(0.02))
    await leaving(creating(served, tmp_path).create(CreateJobRequest(spec=spec), caller))
    created = [record.job.job_id for record in (await served.store.list_jobs(JobFilter(), limit=9)).records]
    created = [job_id for job_id in created if (job_id, 1) not in served.executor.running]
    assert created or moment != HANDED_IN
    for job_id in created:
        await served.reaches(job_id, FAILED)


def creating(served: Services, data_dir: Path) -> Creating:
    return Creating(
        store=served.store,
        clock=served.clock,
        finisher=served.finisher,
        workspaces=Workspaces(data_dir=data_dir),
        limits=NO_LIMITS,
        storage=Storage(clock=served.clock, free=lambda: 1 << 40, warn_free_bytes=0, min_free_bytes=0),
        roots=(),
        job_types=NO_JOB_TYPES,
        objection=lambda job_dir, working_dir: None,
    )
