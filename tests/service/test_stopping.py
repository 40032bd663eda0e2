"""A server that stops its jobs tries that for as long as it may succeed, and ends in any case."""

import asyncio
import errno
from collections.abc import Callable
from functools import partial
from operator import eq
from types import SimpleNamespace
from typing import Any

import pytest
from jobledger.v1.job_service_pb2 import CancelJobRequest, CancelJobsRequest
from jobledger_server.core.ports import JobChange, JobRecord, StoreUnavailableError
from jobledger_server.core.states import is_terminal
from jobledger_server.core.times import duration
from jobledger_server.main import drain
from jobledger_server.service import cancelling, finishing, scheduler
from jobledger_server.stores.sqlite import SqliteStore
from support.eventually import eventually
from support.executors import CANCELLED as STOPPED
from support.executors import ScriptedExecutor
from support.records import CANCELLED, CANCELLING, RUNNING
from support.services import ANYBODY, Services

PATIENCE = cancelling.STOP_PATIENCE_SECONDS


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancelling, "STOP_LOOK_SECONDS", 0.005)
    monkeypatch.setattr(finishing, "RETRY_SECONDS", (0.005,))


@pytest.fixture
def most() -> int:
    return 3


async def running(served: Services, number: int) -> list[str]:
    jobs = [await served.create(created_at=served.clock.now() + place) for place in range(number)]
    for job_id in jobs:
        await served.reaches(job_id, RUNNING)
    return jobs


class Failing:
    """A store that refuses changes of some jobs; `tries` of them."""

    def __init__(self, store: SqliteStore, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
        self.tries = 0
        self.refuses: Callable[[JobRecord, JobChange], bool] = lambda before, change: True
        self._error = error
        self._update = store.update_job
        monkeypatch.setattr(store, "update_job", self)

    async def __call__(self, job_id: str, decide: Callable[[JobRecord], JobChange | None]) -> JobRecord | None:
        def refuse(current: JobRecord) -> JobChange | None:
            change = decide(current)
            if change is not None and self.refuses(current, change):
                self.tries += 1
                raise self._error
            return change

        return await self._update(job_id, refuse)

    async def tried(self, more: int = 3) -> None:
        before = self.tries
        await eventually(lambda: asyncio.sleep(0, self.tries), until=lambda seen: seen >= before + more)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (StoreUnavailableError("disk full"), "E_ENGINE_SAFE_MODE"),
        (OSError("no files left"), "E_ENGINE_SAFE_MODE"),
        (KeyError("unforeseen"), "E_INTERNAL"),
    ],
    ids=repr,
)
async def test_one_of_many_that_can_not_be_cancelled_costs_no_other_its_result(
    served: Services, store: SqliteStore, monkeypatch: pytest.MonkeyPatch, error: Exception, code: str
) -> None:
    jobs = await running(served, 3)
    failing = Failing(store, monkeypatch, error)
    failing.refuses = lambda before, change: before.job.job_id == jobs[1]
    answer = await served.cancelling.cancel_many(CancelJobsRequest(job_id=jobs), ANYBODY)
    told = {result.job_id: (result.state, result.error_code) for result in answer.results}
    assert told == {jobs[0]: (CANCELLING, ""), jobs[1]: (RUNNING, code), jobs[2]: (CANCELLING, "")}


async def test_a_signal_that_fails_for_what_nobody_foresaw_is_sent_all_the_same(
    served: Services, executor: ScriptedExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The intent is stored by then."""
    (job_id,) = await running(served, 1)
    signal = executor.cancel
    failed: list[str] = []

    async def fail_once(job_id: str, attempt: int, *, grace_seconds: float) -> None:
        if not failed:
            failed.append(job_id)
            raise RuntimeError("can't start new thread")
        await signal(job_id, attempt, grace_seconds=grace_seconds)

    monkeypatch.setattr(executor, "cancel", fail_once)
    answer = await served.cancelling.cancel_many(CancelJobsRequest(job_id=[job_id]), ANYBODY)
    assert [result.state for result in answer.results] == [CANCELLING]
    await eventually(lambda: asyncio.sleep(0, len(executor.cancels)), until=partial(eq, 1))


async def test_jobs_that_can_not_be_stopped_for_a_while_are_stopped_after_it(
    served: Services, executor: ScriptedExecutor, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor.on_cancel = lambda attempt: executor.end(*attempt, STOPPED)
    jobs = await running(served, 3)
    failing = Failing(store, monkeypatch, StoreUnavailableError("disk full"))
    stopping = asyncio.create_task(served.cancelling.stop_all())
    await failing.tried()
    served.clock.advance(PATIENCE - 1)
    await failing.tried()
    failing.refuses = lambda before, change: False
    await stopping
    assert [(await served.get(job_id)).job.state for job_id in jobs] == [CANCELLED] * 3


async def test_jobs_that_can_not_be_stopped_hold_the_server_up_no_longer_than_it_is_patient(
    served: Services, store: SqliteStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    jobs = await running(served, 2)
    failing = Failing(store, monkeypatch, StoreUnavailableError("disk full"))
    stopping = asyncio.create_task(served.cancelling.stop_all())
    await failing.tried()
    assert not stopping.done()
    served.clock.advance(PATIENCE + 1)
    await stopping
    (told,) = [record.getMessage() for record in caplog.records if "run on" in record.getMessage()]
    assert all(job_id in told for job_id in jobs)
    assert [(await served.get(job_id)).job.state for job_id in jobs] == [RUNNING] * 2


async def test_ends_that_can_not_be_stored_hold_it_up_no_longer_either_but_grace_periods_do(
    served: Services, executor: ScriptedExecutor, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    grace = PATIENCE * 3
    quick, slow = await running(served, 2)
    answer = await served.cancelling.cancel_many(
        CancelJobsRequest(job_id=[slow], grace_period=duration(grace)), ANYBODY
    )
    assert [result.state for result in answer.results] == [CANCELLING]
    failing = Failing(store, monkeypatch, StoreUnavailableError("disk full"))
    failing.refuses = lambda before, change: is_terminal(change.record.job.state)
    executor.on_cancel = lambda attempt: executor.end(*attempt, STOPPED) if attempt[0] == quick else None
    stopping = asyncio.create_task(served.cancelling.stop_all())
    await failing.tried()
    served.clock.advance(PATIENCE * 2)
    await failing.tried(10)
    assert not stopping.done()
    # From when the grace period is over it is patient once more.
    served.clock.advance(PATIENCE)
    await failing.tried(10)
    assert not stopping.done()
    served.clock.advance(PATIENCE + 1)
    await stopping


async def test_whoever_holds_a_jobs_lock_does_not_hold_up_the_end_of_the_server(
    served: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cancelling, "STOP_TRY_SECONDS", 0.005)
    (job_id,) = await running(served, 1)
    async with served.locks.hold(job_id):
        stopping = asyncio.create_task(served.cancelling.stop_all())
        done, _ = await asyncio.wait({stopping}, timeout=0.05)
        assert not done
        served.clock.advance(PATIENCE + 1)
        await stopping


async def test_a_start_that_can_not_be_stored_does_not_hold_it_up_either(
    served: Services, executor: ScriptedExecutor, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "PAUSE_SECONDS", 0.005)
    failing = Failing(store, monkeypatch, StoreUnavailableError("disk full"))
    await served.create()
    await failing.tried()
    stopping = asyncio.create_task(served.cancelling.stop_all())
    await failing.tried()
    assert not stopping.done()
    served.clock.advance(PATIENCE + 1)
    await stopping
    assert len(executor.started) == 1


@pytest.mark.parametrize("why", ["expired", "refused"])
async def test_a_job_whose_end_in_the_queue_can_not_be_stored_can_be_cancelled_meanwhile(
    served: Services, executor: ScriptedExecutor, store: SqliteStore, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    """Whoever cancels it is told at once whether that could be stored, and does not wait until anything can be."""
    if why == "expired":
        await running(served, 3)
    else:
        executor.faults = [OSError(errno.EACCES, "no")]
    failing = Failing(store, monkeypatch, StoreUnavailableError("disk full"))
    job_id = await served.create(queue_timeout=0.01 if why == "expired" else None)
    await failing.tried()
    async with asyncio.timeout(10):
        with pytest.raises(StoreUnavailableError):
            await served.cancelling.cancel(CancelJobRequest(job_id=job_id), ANYBODY)
        failing.refuses = lambda before, change: change.record.job.state != CANCELLED
        assert (await served.cancelling.cancel(CancelJobRequest(job_id=job_id), ANYBODY)).state == CANCELLED
    await eventually(lambda: asyncio.sleep(0, len(served.finisher.overdue)), until=partial(eq, 0))
    assert (await served.get(job_id)).job.state == CANCELLED


@pytest.mark.parametrize("failing", ["announce_shutdown", "stop_all", ""])
async def test_a_server_stops_whatever_fails_before(failing: str, caplog: pytest.LogCaptureFixture) -> None:
    done: list[str] = []

    def step(name: str) -> Any:
        async def take(**options: object) -> None:
            done.append(name)
            if name == failing:
                raise StoreUnavailableError("disk full")

        return take

    server: Any = SimpleNamespace(
        limits=SimpleNamespace(close=lambda: done.append("close")),
        events=SimpleNamespace(announce_shutdown=step("announce_shutdown")),
        cancelling=SimpleNamespace(stop_all=step("stop_all")),
        server=SimpleNamespace(stop=step("stop")),
    )
    await drain(server, stop_jobs=True)
    assert done == ["close", "announce_shutdown", "stop_all", "stop"]
    assert len([record for record in caplog.records if record.exc_info]) == bool(failing)
