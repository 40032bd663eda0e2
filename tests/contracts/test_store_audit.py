"""The audit log in a store: entries with what they tell of, never changed, gone when they are old."""

import asyncio
from dataclasses import asdict, replace
from typing import Any

import pytest
from jobledger.v1.engine_service_pb2 import AUDIT_DECISION_ALLOWED, AUDIT_DECISION_DENIED, AuditEntry
from jobledger_server.core.audit import PendingEntry, entry_about, set_pending
from jobledger_server.core.ports import AuditFilter, AuditRecord, InvariantError, Store, TokenChange, TokenRecord
from jobledger_server.core.times import timestamp
from stores.backends import Backend
from support.records import NOW, a_record, a_token, an_event

EVERY = AuditFilter()


def an_entry(**fields: Any) -> AuditRecord:
    entry = AuditRecord(
        token_id="abc",
        method="jobledger.v1.JobService/CancelJob",
        object="job_1",
        decision=AUDIT_DECISION_ALLOWED,
        peer="127.0.0.1",
        request_id="req_1",
        count=1,
        at=NOW,
    )
    return replace(entry, **fields)


async def numbers(store: Store, where: AuditFilter = EVERY) -> list[int]:
    return [entry.number for entry in await store.audit_after(0, where, limit=100)]


async def test_an_entry_reads_back_as_it_was_with_its_number(store: Store) -> None:
    denied = an_entry(subject="é", decision=AUDIT_DECISION_DENIED, reason="FORBIDDEN", count=7)
    await store.append_audit([an_entry(), denied])
    first, second = await store.audit_after(0, EVERY, limit=10)
    assert (first.number, second.number) == (1, 2)
    assert second == AuditEntry(**{**asdict(denied), "number": 2, "at": timestamp(NOW)})


async def test_pages_go_either_way(store: Store) -> None:
    await store.append_audit([an_entry() for _ in range(5)])
    newest = await store.audit_before(None, EVERY, limit=2)
    assert [entry.number for entry in newest] == [5, 4]
    assert [entry.number for entry in await store.audit_before(4, EVERY, limit=9)] == [3, 2, 1]
    assert [entry.number for entry in await store.audit_after(3, EVERY, limit=1)] == [4]


async def test_filters_hold_together(store: Store) -> None:
    await store.append_audit(
        [an_entry(), an_entry(token_id="xyz"), an_entry(object="job_2"), an_entry(at=NOW + 5), AuditRecord()]
    )
    assert await numbers(store, AuditFilter(token_id="abc")) == [1, 3, 4]
    assert await numbers(store, AuditFilter(object="job_1")) == [1, 2, 4]
    assert await numbers(store, AuditFilter(since=NOW + 1)) == [4]
    assert await numbers(store, AuditFilter(token_id="abc", object="job_1", since=NOW)) == [1, 4]
    assert await numbers(store, AuditFilter(token_id="")) == []


async def test_the_entry_of_a_call_is_stored_with_what_the_call_changes(store: Store) -> None:
    """By its first write, and by no other; the job that it makes is named."""
    pending = PendingEntry(AuditRecord(method="jobledger.v1.JobService/CreateJob", at=NOW))
    set_pending(pending)
    record = a_record()
    await asyncio.gather(store.create_job(record, [an_event()]), store.put_token(a_token()))
    [entry] = await store.audit_after(0, EVERY, limit=10)
    assert pending.is_taken
    assert entry.object == record.job.job_id
    set_pending(None)


async def test_a_change_that_fails_leaves_no_entry(backend: Backend) -> None:
    async with backend.open() as store:
        await store.put_token(a_token())
        pending = PendingEntry(an_entry())
        set_pending(pending)

        def refuse(token: TokenRecord) -> TokenChange:
            raise ValueError(token.token_id)

        with pytest.raises(ValueError, match="token"):
            await store.change_token("token", refuse)
        assert await numbers(store) == []
        assert not pending.is_taken, "the next write of the call may store it"
        await store.change_token("token", lambda token: TokenChange(token=replace(token, revoked_at=NOW)))
        set_pending(None)
    async with backend.open() as store:
        assert await numbers(store) == [1]


async def test_a_write_that_changes_nothing_leaves_no_entry(store: Store) -> None:
    """A token that is not there, one that stays as it is, a job that nobody knows: the call may write again."""
    await store.put_token(a_token())
    pending = PendingEntry(an_entry())
    set_pending(pending)
    await store.change_token("unknown", lambda token: TokenChange(token=replace(token, revoked_at=NOW)))
    await store.change_token("token", lambda _: None)
    await store.update_job("job_unknown", lambda _: None)
    assert await numbers(store) == []
    with entry_about("job_7"):
        await store.change_token("token", lambda token: TokenChange(token=replace(token, revoked_at=NOW)))
    assert pending.is_taken
    set_pending(None)
    assert [entry.object for entry in await store.audit_after(0, EVERY, limit=9)] == ["job_7"]


async def test_old_entries_go_from_the_first_on_and_their_numbers_are_not_given_again(backend: Backend) -> None:
    async with backend.open() as store:
        ages = (NOW - 9, NOW - 8, NOW + 1, NOW - 7)
        await store.append_audit([an_entry(at=at) for at in ages])
        assert await store.count_audit(NOW) == 2
        assert [await store.drop_audit(NOW, limit=1) for _ in range(3)] == [1, 1, 0]
        assert await numbers(store) == [3, 4]
        assert await store.count_audit(NOW + 2) == 2
        assert await store.drop_audit(NOW + 2, limit=10) == 2
    async with backend.open() as store:
        await store.append_audit([an_entry()])
        assert await numbers(store) == [5]


async def test_a_rotation_is_whole_or_nothing(store: Store) -> None:
    """The new token, the end of the old one and the event are one change."""
    await store.put_token(a_token())
    new = replace(a_token("new"), first_id="token")

    def rotate(token: TokenRecord) -> TokenChange:
        rotated = replace(token, expires_at=NOW + 60, successor_id="new")
        return TokenChange(token=rotated, new=new, events=[an_event()])

    changed = await store.change_token("token", rotate)
    assert changed == replace(a_token(), expires_at=NOW + 60, successor_id="new")
    assert await store.token("new") == new
    assert (await store.event_bounds()).last == 1
    assert await store.change_token("unknown", rotate) is None
    assert await store.change_token("token", lambda _: None) == changed
    with pytest.raises(InvariantError):
        await store.change_token("new", lambda token: TokenChange(token=replace(token, digest=None), new=a_token("3")))  # type: ignore[arg-type]
    assert [token.token_id for token in await store.tokens()] == ["new", "token"]


async def test_changes_of_one_token_do_not_overwrite_each_other(store: Store) -> None:
    """A token that is revoked while it is rotated stays revoked."""
    await store.put_token(a_token())
    await asyncio.gather(
        store.change_token("token", lambda token: TokenChange(token=replace(token, revoked_at=NOW))),
        store.change_token("token", lambda token: TokenChange(token=replace(token, expires_at=NOW + 60))),
    )
    assert await store.token("token") == replace(a_token(), revoked_at=NOW, expires_at=NOW + 60)
