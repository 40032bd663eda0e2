"""Receipts, artifacts and tokens."""

import asyncio
from dataclasses import replace

import pytest
from jobledger.v1.job_pb2 import ArtifactStatus
from jobledger_server.core.ports import EventBounds, JobChange, JobRecord, Store
from stores.backends import Backend
from support.records import (
    COMPLETED,
    NOW,
    RUNNING,
    a_change,
    a_job_id,
    a_receipt,
    a_record,
    a_token,
    an_artifact,
    an_event,
)


async def finish(store: Store) -> JobRecord:
    """A job that ended with a receipt."""
    record = await store.create_job(a_record(RUNNING), [])
    receipt = a_receipt(record.job.job_id)
    ended = await store.update_job(record.job.job_id, lambda stored: a_change(stored, COMPLETED, receipt=receipt))
    assert ended is not None
    return ended


async def test_a_receipt_reads_back_as_it_was_signed(store: Store) -> None:
    job_id = (await finish(store)).job.job_id
    assert await store.receipt(job_id) == replace(a_receipt(job_id), leaf_index=0, workspace_id="default")


async def test_a_job_without_receipt_has_none(store: Store) -> None:
    record = await store.create_job(a_record(), [])
    assert await store.receipt(record.job.job_id) is None
    assert await store.receipt(a_job_id()) is None
    assert await store.receipt_leaves() == []


async def test_leaves_are_numbered_densely_from_zero(store: Store) -> None:
    ended = await asyncio.gather(*(finish(store) for _ in range(20)))
    receipts = [await store.receipt(record.job.job_id) for record in ended]
    by_index = {receipt.leaf_index: receipt.leaf for receipt in receipts if receipt is not None}
    assert sorted(by_index) == list(range(20))
    for start in (0, 7, 20):
        assert await store.receipt_leaves(start) == [by_index[index] for index in range(start, 20)]


async def test_receipts_come_in_the_order_of_the_log_with_what_there_still_is_of_their_jobs(store: Store) -> None:
    first, second, third = [await finish(store) for _ in range(3)]
    record = await store.create_job(a_record(RUNNING), [])
    change = replace(
        a_change(record, COMPLETED, receipt=a_receipt(record.job.job_id)),
        artifacts=[an_artifact(1, "b"), an_artifact(2, "a")],
    )
    await store.update_job(record.job.job_id, lambda _: change)
    await store.delete_job(second.job.job_id)
    found = await store.sealed_jobs(0, limit=10)
    assert [it.leaf_index for it in found] == [0, 1, 2, 3]
    assert [it.job.job_id if it.job else None for it in found] == [
        *(first.job.job_id, None, third.job.job_id, record.job.job_id)
    ]
    assert [it.number for it in found] == [first.number, 0, third.number, record.number]
    assert (found[1].envelope, found[1].leaf) == (
        a_receipt(second.job.job_id).envelope,
        a_receipt(second.job.job_id).leaf,
    )
    assert {it.workspace_id for it in found} == {"default"}
    assert [[artifact.path for artifact in it.artifacts] for it in found] == [[], [], [], ["a", "b"]]
    assert await store.sealed_jobs(1, limit=2) == found[1:3]
    assert await store.sealed_jobs(4, limit=2) == []


async def test_a_receipt_outlives_its_job_and_its_place_in_the_log_stays(backend: Backend) -> None:
    async with backend.open() as store:
        first = (await finish(store)).job.job_id
        await store.delete_job(first)
        second = (await finish(store)).job.job_id
    async with backend.open() as store:
        assert await store.receipt(first) == replace(a_receipt(first), leaf_index=0, workspace_id="default")
        assert await store.receipt_leaves() == [a_receipt(first).leaf, a_receipt(second).leaf]


async def test_a_second_receipt_for_a_job_is_refused(store: Store) -> None:
    """Only a fault of the engine would try; the first one stands, whatever came of the job."""
    record = await store.create_job(a_record(RUNNING), [])
    job_id = record.job.job_id
    await store.update_job(job_id, lambda stored: JobChange(record=stored, receipt=a_receipt(job_id)))
    other = replace(a_receipt(job_id), receipt=b"another")
    with pytest.raises(AssertionError):
        await store.update_job(job_id, lambda stored: a_change(stored, COMPLETED, receipt=other))
    assert await store.receipt(job_id) == replace(a_receipt(job_id), leaf_index=0, workspace_id="default")
    assert await store.get_job(job_id) == record


async def test_artifacts_are_listed_by_path(store: Store) -> None:
    record = await store.create_job(a_record(RUNNING), [])
    artifacts = [an_artifact(number, path) for number, path in enumerate(["b.txt", "a/z.txt", "ü.txt", "B.txt"], 1)]
    await store.update_job(record.job.job_id, lambda stored: replace(a_change(stored, COMPLETED), artifacts=artifacts))
    paths = [artifact.path for artifact in await store.artifacts(record.job.job_id)]
    assert paths == ["B.txt", "a/z.txt", "b.txt", "ü.txt"]


async def test_the_status_of_an_artifact_changes_after_the_end_of_its_job(store: Store) -> None:
    record = await store.create_job(a_record(RUNNING), [])
    kept, damaged = an_artifact(1, "a"), an_artifact(2, "b")
    await store.update_job(
        record.job.job_id, lambda stored: replace(a_change(stored, COMPLETED), artifacts=[kept, damaged])
    )
    damaged.status = ArtifactStatus.ARTIFACT_STATUS_QUARANTINED
    event = an_event()
    assert [await store.set_artifact_status(damaged, [event]) for _ in range(2)] == [True, False]
    assert await store.artifacts(record.job.job_id) == [kept, damaged]
    assert [told.event_type for told in await store.events_after(0, limit=10)].count(event.event_type) == 1
    assert not await store.set_artifact_status(an_artifact(3, "none"), [event])


async def test_artifact_ids_are_never_given_twice(backend: Backend) -> None:
    async with backend.open() as store:
        firsts = await asyncio.gather(*(store.reserve_artifact_ids(count) for count in (3, 1, 5)))
    async with backend.open() as store:
        firsts += [await store.reserve_artifact_ids(2)]
    ids = [number for first, count in zip(firsts, (3, 1, 5, 2), strict=True) for number in range(first, first + count)]
    assert sorted(ids) == list(range(1, 12))


async def test_a_token_reads_back_as_it_was(store: Store) -> None:
    token = replace(a_token(), expires_at=NOW + 1, revoked_at=NOW + 2, last_used_at=NOW + 3)
    await store.put_token(token)
    assert await store.token(token.token_id) == token
    assert await store.token("unknown") is None


async def test_a_token_that_is_put_again_is_changed(store: Store) -> None:
    await store.put_token(a_token())
    changed = replace(a_token(), name="renamed", workspaces=(), revoked_at=NOW + 1)
    await store.put_token(changed)
    assert await store.tokens() == [changed]


async def test_the_last_use_of_a_token_only_moves_forward(store: Store) -> None:
    await store.put_token(a_token())
    for at, expected in ((NOW + 5, NOW + 5), (NOW + 2, NOW + 5), (NOW + 9, NOW + 9)):
        await store.note_token_use("token", at)
        assert await store.token("token") == replace(a_token(), last_used_at=expected)
    await store.note_token_use("unknown", NOW)
    assert len(await store.tokens()) == 1


async def test_tokens_come_oldest_first(store: Store) -> None:
    for token_id, age in (("b", 1), ("c", 3), ("a", 2)):
        await store.put_token(a_token(token_id, created_at=NOW - age))
    assert [token.token_id for token in await store.tokens()] == ["c", "a", "b"]


async def test_a_token_is_stored_with_the_events_that_tell_of_it(store: Store) -> None:
    await store.put_token(a_token(), [an_event()])
    assert await store.event_bounds() == EventBounds(first=1, last=1)
