"""What is kept in memory of jobs: what the file has, or nothing."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from jobledger_server.core.ports import IdempotencyConflictError, JobChange, JobRecord, StoreUnavailableError
from jobledger_server.stores.sqlite import artifacts, idempotency, jobs
from jobledger_server.stores.sqlite.cache import MOST_BYTES_OF_JOB, OVERHEAD, Entry, JobCache
from jobledger_server.stores.sqlite.connection import connect
from jobledger_server.stores.sqlite.migrate import migrate, shipped_migrations
from jobledger_server.stores.sqlite.writer import Transaction, Writer
from support.records import COMPLETED, NOW, RUNNING, a_change, a_key, a_receipt, a_record, an_artifact


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "jobledger.db"
    with closing(connect(path, busy_timeout=1.0)) as connection:
        migrate(connection, shipped_migrations())
    return path


@pytest.fixture
async def writer(path: Path) -> AsyncIterator[Writer]:
    async with Writer(connect=partial(connect, path, busy_timeout=1.0)) as writer:
        yield writer


@pytest.fixture
def file(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(connect(path, busy_timeout=1.0, query_only=True)) as connection:
        yield connection


def is_what_the_file_has(cache: JobCache, file: sqlite3.Connection, job_id: str) -> bool:
    """Whether it is known, as a reader would find it."""
    found = list(artifacts.of_job(file, job_id))
    return cache.record(job_id) == jobs.get(file, job_id) is not None and cache.artifacts(job_id) == found


def ended(stored: JobRecord) -> JobChange:
    change = a_change(stored, COMPLETED, receipt=a_receipt(stored.job.job_id))
    return replace(change, artifacts=[an_artifact(2, path="b"), an_artifact(1, path="a")], artifacts_anew=True)


async def test_a_job_is_known_as_it_was_created_and_changed(writer: Writer, file: sqlite3.Connection) -> None:
    record = await writer.run(jobs.create, a_record(labels={"a": "b"}, concurrency_groups=("queue:x",)), [], None)
    job_id = record.job.job_id
    assert is_what_the_file_has(writer.cache, file, job_id)
    await writer.run(jobs.update, job_id, lambda stored: a_change(stored, RUNNING))
    for at in (2 * NOW, NOW):
        await writer.run(jobs.record_activity, job_id, at)
        assert is_what_the_file_has(writer.cache, file, job_id)
    assert is_what_the_file_has(writer.cache, file, job_id)
    await writer.run(jobs.update, job_id, ended)
    assert is_what_the_file_has(writer.cache, file, job_id)
    assert [artifact.path for artifact in writer.cache.artifacts(job_id) or ()] == ["a", "b"]


async def test_a_reader_gets_a_record_of_its_own(writer: Writer, file: sqlite3.Connection) -> None:
    record = await writer.run(jobs.create, a_record(), [], None)
    known = writer.cache.record(record.job.job_id)
    assert known is not None
    known.job.error_message = "mine"
    assert is_what_the_file_has(writer.cache, file, record.job.job_id)


async def test_what_is_changed_by_other_means_is_not_known(writer: Writer) -> None:
    record = await writer.run(jobs.create, a_record(RUNNING), [], None)
    job_id = record.job.job_id

    async def forgotten() -> bool:
        unknown = writer.cache.record(job_id) is None and writer.cache.artifacts(job_id) is None
        await writer.run(
            jobs.update, job_id, lambda stored: JobChange(record=stored, artifacts=[], artifacts_anew=True)
        )
        return unknown and writer.cache.record(job_id) is not None

    await writer.run(jobs.set_concurrency_groups, {job_id: ["queue:y"]})
    assert await forgotten()
    await writer.run(
        jobs.update, job_id, lambda stored: JobChange(record=stored, artifacts=[an_artifact(1)], artifacts_anew=True)
    )
    await writer.run(artifacts.replace, an_artifact(1, path="elsewhere"))
    assert await forgotten()
    await writer.run(jobs.delete, job_id)
    assert writer.cache.record(job_id) is None


async def test_artifacts_that_are_added_to_unknown_ones_are_not_known(writer: Writer, file: sqlite3.Connection) -> None:
    record = await writer.run(jobs.create, a_record(RUNNING), [], None)
    await writer.run(
        jobs.update, record.job.job_id, lambda stored: JobChange(record=stored, artifacts=[an_artifact(1)])
    )
    assert writer.cache.record(record.job.job_id) == jobs.get(file, record.job.job_id)
    assert writer.cache.artifacts(record.job.job_id) is None


async def test_work_that_fails_changes_nothing_that_is_known(writer: Writer, file: sqlite3.Connection) -> None:
    """Beside other work in its group, which is kept, and alone."""
    record = await writer.run(jobs.create, a_record(RUNNING), [], a_key())
    job_id = record.job.job_id

    def change_and_fail(transaction: Transaction) -> None:
        jobs.update(transaction, job_id, ended)
        idempotency.job_number(transaction.connection, a_key(request=b"another"), now=NOW)

    noted = writer.run(jobs.update, job_id, lambda stored: JobChange(record=replace(stored, eligible_at=5)))
    answers = await asyncio.gather(noted, writer.run(change_and_fail), return_exceptions=True)
    assert isinstance(answers[1], IdempotencyConflictError)
    known = writer.cache.record(job_id)
    assert known in (None, jobs.get(file, job_id))
    with pytest.raises(IdempotencyConflictError):
        await writer.run(change_and_fail)
    known = writer.cache.record(job_id)
    assert known in (None, jobs.get(file, job_id))


async def test_of_a_group_that_can_t_be_committed_nothing_is_known(writer: Writer, file: sqlite3.Connection) -> None:
    record = await writer.run(jobs.create, a_record(RUNNING), [], None)

    def change_on_a_failing_disk(transaction: Transaction) -> None:
        jobs.update(transaction, record.job.job_id, ended)
        raise sqlite3.OperationalError("disk I/O error")

    with pytest.raises(StoreUnavailableError):
        await writer.run(change_on_a_failing_disk)
    assert writer.cache.record(record.job.job_id) is None
    assert jobs.get(file, record.job.job_id) == record


def test_the_latest_are_kept_within_the_room_that_there_is() -> None:
    cache, entry = JobCache(most_bytes=3 * (OVERHEAD + 10)), Entry((1, b"x" * 10), ())
    for number in range(4):
        cache.put(f"job_{number}", entry)
    cache.put("job_1", entry)
    cache.put("job_4", entry)
    assert [number for number in range(5) if cache.artifacts(f"job_{number}") is not None] == [1, 3, 4]


def test_a_job_with_a_long_command_is_read_from_the_file() -> None:
    cache = JobCache()
    cache.put("job", Entry((1, b"x"), ()))
    cache.put("job", Entry((1, b"x" * MOST_BYTES_OF_JOB), ()))
    assert cache.artifacts("job") is None
