"""Cancelling: the intent is stored before anything is signalled, once, and whoever was first wins."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from jobledger.v1.job_service_pb2 import CancelJobRequest, CancelJobsRequest
from jobledger_server.core.errors import Reason, ServiceError
from jobledger_server.core.policy import Principal
from jobledger_server.core.ports import JobChange, JobRecord, StoreUnavailableError
from jobledger_server.stores.sqlite import SqliteStore
from support.executors import CANCELLED as STOPPED
from support.executors import FAILURE, ScriptedExecutor
from support.records import CANCELLED, CANCELLING, COMPLETED, FAILED, QUEUED, RUNNING, a_job_id
from support.services import ANYBODY, Services

REQUESTED = "Cancellation requested"
ALREADY = "Job already cancelling or cancelled"


async def running(served: Services, **fields: Any) -> str:
    job_id = await served.create(**fields)
    await served.reaches(job_id, RUNNING)
    return job_id


async def waiting(served: Services, **fields: Any) -> str:
    """A job that waits, since others have all the slots."""
    while served.slots.available:
        await running(served)
    return await served.create(**fields)


async def ended(served: Services, executor: ScriptedExecutor) -> str:
    job_id = await running(served)
    executor.end(job_id, 1)
    await served.reaches(job_id, COMPLETED)
    return job_id


async def cancel(served: Services, job_id: str, principal: Principal = ANYBODY, **fields: Any) -> tuple[int, str]:
    answer = await served.cancelling.cancel(CancelJobRequest(job_id=job_id, **fields), principal)
    return answer.state, answer.message


async def test_the_intent_is_stored_before_anything_is_signalled(
    served: Services, executor: ScriptedExecutor, store: SqliteStore
) -> None:
    job_id = await running(served)
    seen: list[JobRecord | None] = []
    signal = executor.cancel

    async def look_then_signal(job_id: str, attempt: int, *, grace_seconds: float) -> None:
        seen.append(await store.get_job(job_id))
        await signal(job_id, attempt, grace_seconds=grace_seconds)

    executor.cancel = look_then_signal  # type: ignore[method-assign]
    answer = await cancel(served, job_id, reason="enough", grace_period={"seconds": 2})
    assert answer == (CANCELLING, REQUESTED)
    assert seen[0] is not None
    assert seen[0].cancel is not None
    assert (seen[0].cancel.reason, seen[0].cancel.requested_by, seen[0].cancel.grace_seconds) == ("enough", "token", 2)
    assert executor.cancels == [((job_id, 1), 2.0)]


async def test_an_intent_that_can_not_be_stored_signals_nothing(
    served: Services, executor: ScriptedExecutor, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = await running(served)

    async def fail(job_id: str, decide: Callable[[JobRecord], JobChange | None]) -> JobRecord | None:
        raise StoreUnavailableError("disk full")

    monkeypatch.setattr(store, "update_job", fail)
    with pytest.raises(StoreUnavailableError):
        await cancel(served, job_id)
    assert not executor.cancels


async def test_a_waiting_job_is_cancelled_at_once_with_a_receipt(
    served: Services, executor: ScriptedExecutor, store: SqliteStore
) -> None:
    job_id = await waiting(served)
    assert await cancel(served, job_id) == (CANCELLED, "Job cancelled")
    assert await store.receipt(job_id)
    assert not executor.cancels
    told = [event for event in await store.events_after(0, limit=100) if event.job.job_id == job_id]
    assert [event.state_changed.new_state for event in told] == [QUEUED, CANCELLED]


async def test_cancelling_again_changes_nothing_but_may_shorten_the_grace_period(
    served: Services, executor: ScriptedExecutor, store: SqliteStore
) -> None:
    job_id = await running(served)
    await cancel(served, job_id, reason="first")
    before, last = await served.get(job_id), (await store.event_bounds()).last
    assert await cancel(served, job_id, reason="second", grace_period={"seconds": 1}) == (CANCELLING, ALREADY)
    assert await served.get(job_id) == before
    assert (await store.event_bounds()).last == last
    assert [grace for _, grace in executor.cancels] == [0.0, 1.0]
    executor.end(job_id, 1, STOPPED)
    await served.reaches(job_id, CANCELLED)
    assert await cancel(served, job_id) == (CANCELLED, ALREADY)
    assert len(executor.cancels) == 2


async def test_many_who_cancel_at_once_make_one_cancellation(
    served: Services, executor: ScriptedExecutor, store: SqliteStore
) -> None:
    job_id = await running(served)
    answers = await asyncio.gather(*(cancel(served, job_id) for _ in range(10)))
    assert sorted(message for _, message in answers) == [REQUESTED, *[ALREADY] * 9]
    told = [event for event in await store.events_after(0, limit=100) if event.job.job_id == job_id]
    assert [event.state_changed.new_state for event in told] == [QUEUED, RUNNING, CANCELLING]


async def test_cancelling_a_finished_job_is_refused_and_changes_nothing(
    served: Services, executor: ScriptedExecutor, store: SqliteStore
) -> None:
    job_id = await ended(served, executor)
    before, last = await served.get(job_id), (await store.event_bounds()).last
    with pytest.raises(ServiceError, match="Cannot cancel completed job") as caught:
        await cancel(served, job_id)
    assert caught.value.reason == Reason.ERROR_REASON_JOB_ALREADY_FINISHED
    assert await served.get(job_id) == before
    assert (await store.event_bounds()).last == last


@pytest.mark.parametrize("cancel_first", [False, True])
async def test_whoever_is_first_cancel_or_end_wins(
    served: Services, executor: ScriptedExecutor, store: SqliteStore, cancel_first: bool
) -> None:
    """Either way the job ends once, with one receipt; an end by itself keeps its outcome."""
    job_id = await running(served)

    async def end() -> None:
        executor.end(job_id, 1)

    racers = [cancel(served, job_id), end()] if cancel_first else [end(), cancel(served, job_id)]
    await asyncio.gather(*racers, return_exceptions=True)
    await served.reaches(job_id, COMPLETED)
    told = [event for event in await store.events_after(0, limit=100) if event.job.job_id == job_id]
    assert [event.state_changed.new_state for event in told].count(COMPLETED) == 1
    assert len(await store.receipt_leaves()) == 1


async def test_a_failed_attempt_of_a_cancelled_job_is_not_tried_again(
    served: Services, executor: ScriptedExecutor
) -> None:
    job_id = await running(served, max_attempts=3)
    await cancel(served, job_id)
    executor.end(job_id, 1, FAILURE)
    assert (await served.reaches(job_id, FAILED)).job.attempt == 1
    assert executor.started == [(job_id, 1)]


@pytest.mark.parametrize("job_id", ["", "job_", "nonsense", a_job_id(), "job_" + "x" * 5000])
async def test_an_unknown_job_is_not_found(served: Services, job_id: str) -> None:
    with pytest.raises(ServiceError) as caught:
        await cancel(served, job_id)
    assert caught.value.reason == Reason.ERROR_REASON_JOB_NOT_FOUND


async def test_a_job_of_another_workspace_is_not_found(served: Services, executor: ScriptedExecutor) -> None:
    job_id = await running(served, workspace_id="red")
    bound = Principal(token_id="bound", scopes=frozenset({"jobs:cancel"}), workspaces=frozenset({"blue"}))
    with pytest.raises(ServiceError) as caught:
        await cancel(served, job_id, bound)
    assert caught.value.reason == Reason.ERROR_REASON_JOB_NOT_FOUND
    many = await served.cancelling.cancel_many(CancelJobsRequest(job_id=[job_id]), bound)
    assert [result.error_code for result in many.results] == ["E_JOB_NOT_FOUND"]
    assert not executor.cancels


async def all_kinds(served: Services, executor: ScriptedExecutor) -> list[str]:
    """A finished job, one that is being cancelled, one that runs, and one that waits, oldest first."""
    jobs = [await ended(served, executor)]
    for _ in range(2):
        served.clock.advance(1)
        jobs.append(await running(served))
    served.clock.advance(1)
    await cancel(served, jobs[1])
    executor.cancels.clear()
    return [*jobs, await waiting(served)]


def told(results: Any) -> list[tuple[str, int, str]]:
    return [(result.job_id, result.state, result.error_code or result.message) for result in results]


async def test_a_dry_run_says_what_would_be_and_changes_nothing(
    served: Services, executor: ScriptedExecutor, store: SqliteStore
) -> None:
    jobs = await all_kinds(served, executor)
    last = (await store.event_bounds()).last
    answer = await served.cancelling.cancel_many(CancelJobsRequest(job_id=jobs, dry_run=True), ANYBODY)
    assert answer.dry_run
    assert told(answer.results) == [
        (jobs[0], COMPLETED, "E_JOB_ALREADY_FINISHED"),
        (jobs[1], CANCELLING, ALREADY),
        (jobs[2], CANCELLING, "Would be cancelled"),
        (jobs[3], CANCELLED, "Would be cancelled"),
    ]
    assert (await store.event_bounds()).last == last
    assert not executor.cancels


async def test_each_named_job_gets_a_result_and_one_refusal_stops_no_other(
    served: Services, executor: ScriptedExecutor
) -> None:
    jobs, unknown = await all_kinds(served, executor), [a_job_id(), "nonsense"]
    answer = await served.cancelling.cancel_many(CancelJobsRequest(job_id=[*unknown, *jobs]), ANYBODY)
    assert told(answer.results) == [
        (jobs[0], COMPLETED, "E_JOB_ALREADY_FINISHED"),
        (jobs[1], CANCELLING, ALREADY),
        (jobs[2], CANCELLING, REQUESTED),
        (jobs[3], CANCELLED, "Job cancelled"),
        (unknown[0], 0, "E_JOB_NOT_FOUND"),
        (unknown[1], 0, "E_JOB_NOT_FOUND"),
    ]


async def test_without_names_only_live_jobs_are_cancelled(served: Services, executor: ScriptedExecutor) -> None:
    jobs = await all_kinds(served, executor)
    answer = await served.cancelling.cancel_many(CancelJobsRequest(), ANYBODY)
    assert [result.job_id for result in answer.results] == jobs[1:]
    again = await served.cancelling.cancel_many(CancelJobsRequest(state=[COMPLETED]), ANYBODY)
    assert not again.results


async def test_a_filter_spares_the_others(served: Services) -> None:
    chosen = await running(served, labels={"team": "a"})
    spared = await running(served, labels={"team": "b"})
    answer = await served.cancelling.cancel_many(CancelJobsRequest(label=["team=a"]), ANYBODY)
    assert told(answer.results) == [(chosen, CANCELLING, REQUESTED)]
    assert (await served.get(spared)).job.state == RUNNING


async def test_the_end_of_the_engine_waits_until_nothing_runs(served: Services, executor: ScriptedExecutor) -> None:
    jobs = [await running(served) for _ in range(2)]
    signalled = asyncio.Event()
    executor.on_cancel = lambda attempt: signalled.set() if len(executor.cancels) == 2 else None
    stopping = asyncio.create_task(served.cancelling.stop_all())
    async with asyncio.timeout(10):
        await signalled.wait()
        for job_id in jobs:
            assert not stopping.done()
            executor.end(job_id, 1, STOPPED)
        await stopping
    for job_id in jobs:
        assert (await served.get(job_id)).job.state == CANCELLED
