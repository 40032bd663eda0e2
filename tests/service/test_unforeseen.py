"""What nobody foresaw, where jobs start and end: it ends in a job that says so, or is tried again; never in silence."""

import asyncio
import errno
from collections.abc import Callable
from functools import partial
from operator import eq
from pathlib import Path

import pytest
from jobledger.v1.job_service_pb2 import CancelJobRequest
from jobledger_server.core.ports import InvariantError, JobChange, JobRecord, Launch, Outcome, Running
from jobledger_server.core.states import is_terminal
from jobledger_server.service import finishing
from jobledger_server.service import scheduler as scheduler_module
from jobledger_server.service.tries import longer
from jobledger_server.service.workspace import Workspaces
from jobledger_server.stores.sqlite import SqliteStore
from support.clock import ManualClock
from support.eventually import eventually
from support.executors import ScriptedExecutor
from support.records import CANCELLED, COMPLETED, FAILED, QUEUED, RUNNING
from support.services import ANYBODY, Services

UNFORESEEN = KeyError("unforeseen")
OURS = "The server met a fault of its own when it started the job; its log has it. Submit the job again"


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler_module, "PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(scheduler_module, "LONGEST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(finishing, "RETRY_SECONDS", (0.01,))


@pytest.fixture
def most() -> int:
    return 1


def tracebacks(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.exc_info]


# --- starts ---------------------------------------------------------------------------------------------------------


async def test_a_start_that_meets_what_nobody_foresaw_ends_the_job_and_holds_up_no_other_one(
    served: Services, executor: ScriptedExecutor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tries: list[str] = []
    take = Workspaces.take_origin

    def fail_once(self: Workspaces, job: object, attempt: int, launch: Launch) -> object:
        tries.append(launch.job_id)
        if launch.job_id == tries[0]:
            raise UNFORESEEN
        return take(self, job, attempt, launch)  # type: ignore[arg-type]

    monkeypatch.setattr(Workspaces, "take_origin", fail_once)
    first, second = await served.create(), await served.create()
    job = (await served.reaches(first, FAILED)).job
    assert (job.error_code, job.error_message, job.attempt) == ("E_JOB_SPAWN_FAILED", OURS, 0)
    assert await served.store.receipt(first)
    await served.reaches(second, RUNNING)
    assert tries == [first, second]
    assert len(tracebacks(caplog)) == 1


@pytest.mark.parametrize("began", [False, True])
async def test_of_a_job_that_has_begun_all_the_same_nobody_says_that_it_never_did(
    served: Services, executor: ScriptedExecutor, monkeypatch: pytest.MonkeyPatch, began: bool
) -> None:
    start = executor.start

    async def fail_after(launch: Launch) -> Running | Outcome:
        if began:
            await start(launch)
        raise UNFORESEEN

    monkeypatch.setattr(executor, "start", fail_after)
    job = (await served.reaches(await served.create(), RUNNING, FAILED)).job
    assert (job.state, job.attempt) == ((RUNNING, 1) if began else (FAILED, 0))


async def test_where_even_that_can_not_be_stored_the_next_try_waits(
    served: Services, store: SqliteStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    looks = 0
    get = store.get_job

    async def fail(job_id: str) -> JobRecord | None:
        nonlocal looks
        looks += 1
        raise UNFORESEEN

    monkeypatch.setattr(scheduler_module, "PAUSE_SECONDS", 3600.0)
    monkeypatch.setattr(scheduler_module, "LONGEST_PAUSE_SECONDS", 3600.0)
    with monkeypatch.context() as patch:
        patch.setattr(store, "get_job", fail)
        job_id = await served.create()
        await eventually(lambda: asyncio.sleep(0, set(served.slots.starved)), until=partial(eq, {job_id}))
        for _ in range(50):
            await asyncio.sleep(0)
    assert looks == 1
    assert len(tracebacks(caplog)) == 1
    assert store.get_job == get
    assert (await served.cancelling.cancel(CancelJobRequest(job_id=job_id), ANYBODY)).state == CANCELLED


async def test_a_queue_that_can_not_be_read_for_what_nobody_foresaw_is_looked_at_again(
    served: Services, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        read = asyncio.Event()

        async def fail(**fields: object) -> list[JobRecord]:
            read.set()
            raise UNFORESEEN

        patch.setattr(store, "queued_jobs", fail)
        job_id = await served.create()
        await read.wait()
        assert (await served.get(job_id)).job.state == QUEUED
    await served.reaches(job_id, RUNNING)


async def test_why_a_job_could_not_start_is_told_whatever_bytes_that_names(
    served: Services, executor: ScriptedExecutor
) -> None:
    """Such as those of a directory to which a link leads."""
    executor.faults = [PermissionError(errno.EACCES, "/roots/\udcff was replaced by a link")]
    job = (await served.reaches(await served.create(), FAILED)).job
    assert "/roots/\\udcff was replaced by a link" in job.error_message


async def test_the_executor_forgets_what_never_started(
    served: Services, executor: ScriptedExecutor, clock: ManualClock
) -> None:
    executor.faults = [OSError(errno.EACCES, "no")]
    refused = await served.create()
    await served.reaches(refused, FAILED)
    running = await served.create()
    await served.reaches(running, RUNNING)
    expired, cancelled = await served.create(queue_timeout=0.01), await served.create()
    await served.reaches(expired, FAILED)
    await served.cancelling.cancel(CancelJobRequest(job_id=cancelled), ANYBODY)
    never = [(refused, 1), (expired, 1), (cancelled, 1)]
    await eventually(lambda: asyncio.sleep(0, list(executor.released)), until=partial(eq, never))
    await served.cancelling.cancel(CancelJobRequest(job_id=running), ANYBODY)
    assert executor.released == never


# --- ends -----------------------------------------------------------------------------------------------------------


class Refusing:
    """A store that fails to store ends, so often or for so long as it has artifacts."""

    def __init__(self, store: SqliteStore, error: Exception, *, times: int = 0, artifacts: bool = False) -> None:
        self._update = store.update_job
        self._error = error
        self._artifacts = artifacts
        self.left = times
        self.refused = 0

    async def __call__(self, job_id: str, decide: Callable[[JobRecord], JobChange | None]) -> JobRecord | None:
        def refuse(current: JobRecord) -> JobChange | None:
            change = decide(current)
            if change is None or not is_terminal(change.record.job.state):
                return change
            if self.left > 0 or (self._artifacts and change.artifacts):
                self.left -= 1
                self.refused += 1
                raise self._error
            return change

        return await self._update(job_id, refuse)


@pytest.mark.parametrize("error", [UNFORESEEN, InvariantError("no"), RuntimeError("can't start new thread")], ids=repr)
async def test_an_end_that_meets_what_nobody_foresaw_is_tried_again(
    served: Services,
    executor: ScriptedExecutor,
    store: SqliteStore,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
) -> None:
    job_id, refusing = await served.create(), Refusing(store, error, times=5)
    await served.reaches(job_id, RUNNING)
    monkeypatch.setattr(store, "update_job", refusing)
    executor.end(job_id, 1)
    await served.reaches(job_id, COMPLETED)
    assert refusing.refused == 5
    assert len(tracebacks(caplog)) == 1, "the log has it once, and that it is tried again each time"
    await served.reaches(await served.create(), RUNNING)
    assert not len(served.finisher.overdue)


async def test_while_such_an_end_waits_the_engine_says_so_and_no_more(
    served: Services, executor: ScriptedExecutor, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id, refusing = await served.create(), Refusing(store, KeyError("a secret path"), times=10**9)
    await served.reaches(job_id, RUNNING)
    monkeypatch.setattr(store, "update_job", refusing)
    executor.end(job_id, 1)
    trouble = "ends of jobs can't be stored just now: a fault of the server's own, which its log has"
    await eventually(lambda: asyncio.sleep(0, served.finisher.overdue.trouble), until=partial(eq, trouble))
    refusing.left = 0
    await served.reaches(job_id, COMPLETED)


def test_pauses_between_such_tries_grow_and_others_stay_short() -> None:
    pauses = (0.1, 0.5, 1.0, 2.0, 5.0)
    assert [longer(pauses, number, UNFORESEEN) for number in range(12)] == [*pauses, 10, 20, 40, 80, 160, 300, 300]
    assert longer(pauses, 10**6, UNFORESEEN) == 300
    assert longer(pauses, 10**6, OSError("no room")) == pauses[-1]


async def test_an_end_whose_content_the_store_refuses_is_stored_without_what_the_job_left(
    served: Services, executor: ScriptedExecutor, store: SqliteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the next server would meet the same, and every one after it."""
    job_id, refusing = await served.create(), Refusing(store, InvariantError("twice"), artifacts=True)
    await served.reaches(job_id, RUNNING)
    (tmp_path / "jobs" / job_id / "output" / "result").write_text("result")
    monkeypatch.setattr(store, "update_job", refusing)
    executor.end(job_id, 1)
    await served.reaches(job_id, COMPLETED)
    assert refusing.refused == finishing.WHOLE_TRIES
    assert not await store.artifacts(job_id)
    receipt = await store.receipt(job_id)
    assert receipt is not None
    assert finishing.NOT_STORED.refused[0].reason.encode() in receipt.receipt
    assert (tmp_path / "jobs" / job_id / "output" / "result").exists()
