"""The store when disk, locks or files fail: callers hear of it, nothing is half done, and it goes on afterwards."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
from jobledger.v1.events_pb2 import Event
from jobledger_server.core.ports import EventBounds, JobFilter, StoreUnavailableError
from jobledger_server.stores.sqlite import SqliteStore
from jobledger_server.stores.sqlite.connection import unavailable
from jobledger_server.stores.sqlite.writer import Transaction
from support.records import COMPLETED, RUNNING, a_change, a_receipt, a_record, state_changed

LARGE = {f"label-{number}": "x" * 200 for number in range(60)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobledger.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    async with SqliteStore(path, busy_timeout=0.05) as store:
        yield store


async def limit_pages(store: SqliteStore, pages: int) -> None:
    """Makes the disk as good as full: SQLite takes no page beyond these, and answers SQLITE_FULL."""

    def limit(transaction: Transaction) -> None:
        transaction.connection.execute(f"PRAGMA max_page_count = {pages}")

    await store._writer.run(limit)


def damage(path: Path) -> None:
    """Overwrites all but the first pages."""
    content = path.read_bytes()
    path.write_bytes(content[:8192].ljust(len(content), b"\xff"))


async def test_on_a_full_disk_writing_fails_whole_reading_goes_on_and_space_heals(store: SqliteStore) -> None:
    heard: list[Event] = []
    store.on_events(heard.extend)
    first = await store.create_job(a_record(RUNNING), [])
    await limit_pages(store, 1)
    records = [a_record(labels=LARGE) for _ in range(10)]
    outcomes = await asyncio.gather(
        *(store.create_job(record, [state_changed(record)]) for record in records), return_exceptions=True
    )
    assert [type(outcome) for outcome in outcomes] == [StoreUnavailableError] * 10
    assert "free some space" in str(outcomes[0])
    assert (await store.list_jobs(JobFilter(id_prefix="job_"), limit=10)).records == [first]
    assert sum((await store.count_by_state()).values()) == 1
    assert (await store.event_bounds(), heard) == (EventBounds(first=1, last=0), [])
    await limit_pages(store, 1_000_000)
    created = await store.create_job(records[0], [state_changed(records[0])])
    assert created.number == 2
    assert [event.sequence_number for event in heard] == [1]


async def test_a_lock_of_another_process_fails_writes_soon_and_reading_goes_on(store: SqliteStore, path: Path) -> None:
    first = await store.create_job(a_record(), [])
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailableError, match="Another process holds"):
            await store.create_job(a_record(), [])
        assert await store.get_job(first.job.job_id) == first
        other.execute("COMMIT")
    assert (await store.create_job(a_record(), [])).number == 2


async def test_a_damaged_file_is_told_as_such(path: Path) -> None:
    async with SqliteStore(path) as store:
        await asyncio.gather(*(store.create_job(a_record(labels=LARGE), []) for _ in range(30)))
    damage(path)
    with pytest.raises(StoreUnavailableError, match="jobledger recover"):
        async with SqliteStore(path) as store:
            await store.list_jobs(JobFilter(id_prefix="job_"), limit=1000)


async def test_receipts_can_not_be_changed_or_deleted_even_by_hand(store: SqliteStore, path: Path) -> None:
    record = await store.create_job(a_record(RUNNING), [])
    job_id = record.job.job_id
    await store.update_job(job_id, lambda stored: a_change(stored, COMPLETED, receipt=a_receipt(job_id)))
    before = await store.receipt(job_id)
    with closing(sqlite3.connect(path)) as other:
        for statement in ("UPDATE receipts SET receipt = x'00'", "DELETE FROM receipts"):
            with pytest.raises(sqlite3.IntegrityError, match="a receipt"):
                other.execute(statement)
    assert await store.receipt(job_id) == before


async def test_events_that_were_dropped_leave_their_numbers_behind(store: SqliteStore, path: Path) -> None:
    record = a_record()
    await store.append_events([state_changed(record)] * 5)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("DELETE FROM events WHERE sequence_number <= 3")
        assert await store.event_bounds() == EventBounds(first=4, last=5)
        other.execute("DELETE FROM events")
        assert await store.event_bounds() == EventBounds(first=6, last=5)
    await store.append_events([state_changed(record)])
    assert await store.event_bounds() == EventBounds(first=6, last=6)


async def test_counters_agree_with_the_rows(store: SqliteStore, path: Path) -> None:
    records = [await store.create_job(a_record(), []) for _ in range(20)]
    for record in records[:12]:
        await store.update_job(record.job.job_id, lambda stored: a_change(stored, RUNNING))
    for record in records[9:15]:
        await store.delete_job(record.job.job_id)
    with closing(sqlite3.connect(path)) as other:
        counted = dict(other.execute("SELECT state, count(*) FROM jobs GROUP BY state"))
        leftovers = other.execute("SELECT count(*) FROM job_labels WHERE job_number NOT IN (SELECT number FROM jobs)")
        assert leftovers.fetchone() == (0,)
    assert await store.count_by_state() == counted


async def test_a_closed_store_says_so(path: Path) -> None:
    async with SqliteStore(path) as store:
        pass
    with pytest.raises(StoreUnavailableError, match="closed"):
        await store.get_job("job_x")
    with pytest.raises(StoreUnavailableError, match="closed"):
        await store.create_job(a_record(), [])


def test_an_error_that_is_not_known_still_tells_what_it_was() -> None:
    assert "The database refused (OperationalError: odd)" in str(unavailable(sqlite3.OperationalError("odd")))
