"""Idempotency keys."""

import asyncio
from dataclasses import replace

import pytest
from jobledger_server.core.ports import (
    EventBounds,
    IdempotencyConflictError,
    JobFilter,
    JobRecord,
    KeyedJobDeletedError,
    Store,
)
from jobledger_server.core.times import SECOND
from stores.backends import Backend
from support.records import NOW, RUNNING, a_change, a_key, a_record, state_changed


async def test_the_same_key_and_request_give_the_same_job_and_store_nothing(store: Store) -> None:
    first = await store.create_job(a_record(), [], a_key())
    repeat = a_record()
    assert await store.create_job(repeat, [state_changed(repeat)], a_key()) == first
    assert await store.get_job(repeat.job.job_id) is None
    assert (await store.list_jobs(JobFilter(), limit=1)).total == 1
    assert await store.event_bounds() == EventBounds(first=1, last=0)


async def test_a_repeat_answers_with_the_job_as_it_is_now(store: Store) -> None:
    first = await store.create_job(a_record(), [], a_key())
    running = await store.update_job(first.job.job_id, lambda record: a_change(record, RUNNING))
    assert await store.create_job(a_record(), [], a_key()) == running


async def test_the_same_key_with_another_request_is_a_conflict_and_stores_nothing(store: Store) -> None:
    await store.create_job(a_record(), [], a_key(request=b"one"))
    other = a_record()
    with pytest.raises(IdempotencyConflictError):
        await store.create_job(other, [state_changed(other)], a_key(request=b"another"))
    assert await store.get_job(other.job.job_id) is None
    assert await store.event_bounds() == EventBounds(first=1, last=0)


async def test_keys_of_different_principals_are_different_keys(store: Store) -> None:
    first = await store.create_job(a_record(), [], a_key(principal="one"))
    second = await store.create_job(a_record(), [], a_key(principal="another", request=b"another"))
    assert first.job.job_id != second.job.job_id


async def test_a_key_finds_no_job_in_a_workspace_that_its_caller_does_not_see(store: Store) -> None:
    """One that is bound elsewhere now makes its own, and finds that again; who sees both has one key for them."""
    red = await store.create_job(a_record(workspace_id="red"), [], a_key(workspaces=("red",)))
    blue = await store.create_job(a_record(workspace_id="blue"), [], a_key(workspaces=("blue",)))
    assert blue.job.workspace_id == "blue"
    green = await store.create_job(a_record(workspace_id="green"), [], a_key(workspaces=("green",), request=b"another"))
    assert green.job.workspace_id == "green"
    known: list[tuple[JobRecord, tuple[str, ...] | None]] = [
        (red, ("red",)),
        (red, ("blue", "red")),
        (red, None),
        (blue, ("blue",)),
        (blue, ("blue", "green")),
    ]
    for record, workspaces in known:
        repeat = a_record(workspace_id=record.job.workspace_id)
        assert (await store.create_job(repeat, [], a_key(workspaces=workspaces))).job == record.job
        with pytest.raises(IdempotencyConflictError):
            await store.create_job(repeat, [], a_key(workspaces=workspaces, request=b"third"))


async def test_a_key_of_a_caller_that_is_bound_elsewhere_now_holds_for_its_own_time(store: Store) -> None:
    sooner, later = NOW + 10 * SECOND, NOW + 20 * SECOND
    await store.create_job(a_record(workspace_id="red"), [], a_key(workspaces=("red",), expires_at=sooner))
    record = a_record(workspace_id="blue")
    blue = await store.create_job(record, [], a_key(workspaces=("blue",), expires_at=later))
    repeat = a_record(workspace_id="blue", created_at=sooner + 1)
    again = await store.create_job(repeat, [], a_key(workspaces=("blue",), expires_at=later + SECOND))
    assert again.job == blue.job == record.job


@pytest.mark.parametrize(("later", "known"), [(-1, True), (0, False), (1, False)])
async def test_a_key_is_unknown_from_its_expiry_on(store: Store, later: int, known: bool) -> None:
    expires_at = NOW + 10 * SECOND
    first = await store.create_job(a_record(), [], a_key(expires_at=expires_at))
    repeat = a_record(created_at=expires_at + later)
    second = await store.create_job(repeat, [], a_key(expires_at=expires_at + 10 * SECOND, request=b"request"))
    assert (second.job.job_id == first.job.job_id) is known


async def test_an_expired_key_can_be_used_for_another_request(store: Store) -> None:
    await store.create_job(a_record(), [], a_key(expires_at=NOW + 1, request=b"one"))
    again = a_key(expires_at=NOW + 100 * SECOND, request=b"another")
    second = await store.create_job(a_record(created_at=NOW + 2), [], again)
    assert await store.create_job(a_record(created_at=NOW + 3), [], again) == second


async def test_the_key_of_a_deleted_job_holds_for_its_time(store: Store) -> None:
    """To repeat a request with its key is safe, always: it never runs a job a second time."""
    first = await store.create_job(a_record(), [], a_key())
    await store.delete_job(first.job.job_id)
    with pytest.raises(KeyedJobDeletedError):
        await store.create_job(a_record(), [], a_key())
    with pytest.raises(IdempotencyConflictError):
        await store.create_job(a_record(), [], a_key(request=b"another"))


async def test_a_key_survives_reopening(backend: Backend) -> None:
    async with backend.open() as store:
        first = await store.create_job(a_record(), [], a_key())
    async with backend.open() as store:
        assert await store.create_job(a_record(), [], a_key()) == first


async def test_of_many_concurrent_requests_with_one_key_one_makes_the_job(store: Store) -> None:
    answers = await asyncio.gather(*(store.create_job(a_record(), [], a_key()) for _ in range(50)))
    assert len({answer.job.job_id for answer in answers}) == 1
    assert (await store.list_jobs(JobFilter(), limit=1)).total == 1


async def test_a_creation_that_failed_leaves_its_key_free(store: Store) -> None:
    taken = await store.create_job(a_record(), [])
    with pytest.raises(AssertionError):
        await store.create_job(replace(a_record(), job=taken.job), [], a_key())
    fresh = a_record()
    assert (await store.create_job(fresh, [], a_key(request=b"another"))).job == fresh.job
