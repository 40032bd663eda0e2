"""The store's methods: each hands one function of this package to the writer or to the readers."""

import asyncio
import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, closing
from functools import partial
from pathlib import Path
from typing import Self

from jobledger.v1.engine_service_pb2 import AuditEntry
from jobledger.v1.events_pb2 import Event
from jobledger.v1.job_pb2 import Artifact, JobState

from jobledger_server.core.ports import (
    AuditFilter,
    AuditRecord,
    EndedJob,
    EventBounds,
    IdempotencyKey,
    JobChange,
    JobFilter,
    JobOrder,
    JobPage,
    JobRecord,
    Kept,
    SerializedJobs,
    StoredReceipt,
    StoreUnavailableError,
    TokenChange,
    TokenRecord,
)
from jobledger_server.core.ports.archive import SealedJob
from jobledger_server.stores.sqlite import (
    artifacts,
    audit,
    counts,
    idempotency,
    jobs,
    pages,
    queries,
    receipts,
    retention,
    tokens,
)
from jobledger_server.stores.sqlite import events as event_rows
from jobledger_server.stores.sqlite.connection import connect, require_sqlite, unavailable
from jobledger_server.stores.sqlite.migrate import migrate, shipped_migrations
from jobledger_server.stores.sqlite.readers import Readers
from jobledger_server.stores.sqlite.writer import Writer


class SqliteStore:
    """`core.ports.Store` in one SQLite file. An async context manager, used from one event loop.

    Args:
        path: the database file; made, readable by its owner alone, where there is none.
        readers: how many quick queries run at a time, and how many long ones beside them.
        busy_timeout: seconds that a write waits for another process's lock.

    Raises:
        SchemaError: on entering, the file is of another version.
        StoreUnavailableError: on entering, the file can't be opened.
    """

    def __init__(self, path: Path, *, readers: int = 2, busy_timeout: float = 1.0) -> None:
        self._path = path
        open_connection = partial(connect, path, busy_timeout=busy_timeout)
        self._connect = open_connection
        self._writer = Writer(connect=open_connection)
        read_only = partial(open_connection, query_only=True)
        self._readers = Readers(connect=read_only, count=readers)
        # Lists that count or skip many jobs: what takes a moment does not wait for them.
        self._long_readers = Readers(connect=read_only, count=readers)
        self._stack = AsyncExitStack()

    @property
    def trouble(self) -> str:
        return self._writer.trouble

    @property
    def revision(self) -> int | None:
        return self._writer.revision

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await asyncio.to_thread(self._prepare)
            await stack.enter_async_context(self._readers)
            await stack.enter_async_context(self._long_readers)
            await stack.enter_async_context(self._writer)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def _prepare(self) -> None:
        require_sqlite()
        try:
            # SQLite gives the files beside it the permissions of this one.
            self._path.touch(mode=0o600)
            with closing(self._connect()) as connection:
                migrate(connection, shipped_migrations())
        except sqlite3.Error as error:
            raise unavailable(error) from error
        except OSError as error:
            raise StoreUnavailableError(f"The database file can't be opened: {error}") from error

    # --- jobs ---

    async def create_job(
        self, record: JobRecord, events: Sequence[Event], idempotency: IdempotencyKey | None = None
    ) -> JobRecord:
        return await self._writer.run(jobs.create, record, events, idempotency)

    async def get_job(self, job_id: str) -> JobRecord | None:
        return self._writer.cache.record(job_id) or await self._readers.run(jobs.get, job_id)

    async def update_job(self, job_id: str, decide: Callable[[JobRecord], JobChange | None]) -> JobRecord | None:
        return await self._writer.run(jobs.update, job_id, decide)

    async def list_jobs(
        self,
        where: JobFilter,
        *,
        limit: int,
        offset: int = 0,
        after: tuple[int, str] | None = None,
        order: JobOrder = JobOrder.NEWEST,
    ) -> JobPage:
        readers = self._readers if pages.is_quick(where, offset=offset) else self._long_readers
        return await readers.run(pages.page, where, limit=limit, offset=offset, after=after, order=order)

    async def list_serialized(
        self, where: JobFilter, *, limit: int, offset: int = 0, after: tuple[int, str] | None = None
    ) -> SerializedJobs:
        readers = self._readers if pages.is_quick(where, offset=offset) else self._long_readers
        return await readers.run(pages.serialized, where, limit=limit, offset=offset, after=after)

    async def queued_jobs(self, *, now: int, limit: int, full: Collection[str] = ()) -> Sequence[JobRecord]:
        return await self._readers.run(queries.queued, now=now, limit=limit, full=full)

    async def set_concurrency_groups(self, groups: Mapping[str, Sequence[str]]) -> None:
        await self._writer.run(jobs.set_concurrency_groups, groups)

    async def unfinished_jobs(self) -> Sequence[JobRecord]:
        return await self._readers.run(queries.unfinished)

    async def queue_position(self, job_id: str) -> int | None:
        return await self._readers.run(queries.queue_position, job_id)

    async def record_activity(self, job_id: str, at: int) -> None:
        await self._writer.run(jobs.record_activity, job_id, at)

    async def count_by_state(self, workspaces: Sequence[str] | None = None) -> Mapping[JobState.ValueType, int]:
        return await self._readers.run(counts.count_by_state, workspaces)

    async def delete_job(self, job_id: str) -> bool:
        return await self._writer.run(jobs.delete, job_id)

    async def reserve_artifact_ids(self, count: int) -> int:
        return await self._writer.run(artifacts.reserve_ids, count)

    async def artifacts(self, job_id: str) -> Sequence[Artifact]:
        known = self._writer.cache.artifacts(job_id)
        return await self._readers.run(artifacts.of_job, job_id) if known is None else known

    async def set_artifact_status(self, artifact: Artifact, events: Sequence[Event] = ()) -> bool:
        return await self._writer.run(artifacts.replace, artifact, events)

    # --- events, receipts, tokens ---

    async def append_events(self, events: Sequence[Event]) -> None:
        await self._writer.run(event_rows.append, events)

    async def events_after(self, sequence: int, *, limit: int) -> Sequence[Event]:
        return await self._readers.run(event_rows.after, sequence, limit=limit)

    async def event_bounds(self) -> EventBounds:
        return await self._readers.run(event_rows.bounds)

    def on_events(self, listener: Callable[[Sequence[Event]], None]) -> None:
        self._writer.on_events(listener)

    async def receipt(self, job_id: str) -> StoredReceipt | None:
        return await self._readers.run(receipts.get, job_id)

    async def receipt_leaves(self, start: int = 0) -> Sequence[bytes]:
        return await self._readers.run(receipts.leaves, start)

    async def sealed_jobs(self, start: int, *, limit: int) -> Sequence[SealedJob]:
        return await self._readers.run(receipts.sealed_jobs, start, limit=limit)

    async def put_token(self, token: TokenRecord, events: Sequence[Event] = ()) -> None:
        await self._writer.run(tokens.put, token, events)

    async def change_token(
        self, token_id: str, decide: Callable[[TokenRecord], TokenChange | None]
    ) -> TokenRecord | None:
        return await self._writer.run(tokens.change, token_id, decide)

    async def token(self, token_id: str) -> TokenRecord | None:
        return await self._readers.run(tokens.get, token_id)

    async def note_token_use(self, token_id: str, at: int) -> None:
        await self._writer.run(tokens.note_use, token_id, at)

    async def tokens(self) -> Sequence[TokenRecord]:
        return await self._readers.run(tokens.every)

    # --- audit log ---

    async def append_audit(self, entries: Sequence[AuditRecord]) -> None:
        await self._writer.run(lambda transaction: audit.append(transaction.connection, entries))

    async def audit_before(self, before: int | None, where: AuditFilter, *, limit: int) -> Sequence[AuditEntry]:
        return await self._long_readers.run(audit.before, before, where, limit=limit)

    async def audit_after(self, after: int, where: AuditFilter, *, limit: int) -> Sequence[AuditEntry]:
        return await self._long_readers.run(audit.after, after, where, limit=limit)

    async def count_audit(self, before: int) -> int:
        return await self._long_readers.run(audit.count_old, before)

    async def drop_audit(self, before: int, *, limit: int) -> int:
        return await self._writer.run(lambda transaction: audit.drop_old(transaction.connection, before, limit=limit))

    # --- retention ---

    async def ended_jobs(
        self, kept: Kept, *, before: int, limit: int, after: EndedJob | None = None
    ) -> Sequence[EndedJob]:
        return await self._readers.run(retention.ended, kept, before=before, limit=limit, after=after)

    async def forget(self, kept: Kept, job_ids: Collection[str], *, at: int) -> None:
        await self._writer.run(retention.forget, kept, job_ids, at=at)

    async def drop_events(self, through: int) -> int:
        return await self._writer.run(event_rows.drop, through)

    async def count_expired_keys(self, now: int) -> int:
        return await self._readers.run(idempotency.count_expired, now)

    async def drop_expired_keys(self, now: int, *, limit: int) -> int:
        return await self._writer.run(idempotency.drop_expired, now, limit=limit)

    async def size(self) -> int:
        return await asyncio.to_thread(retention.size, self._path)

    async def unknown_jobs(self, job_ids: Collection[str]) -> set[str]:
        return await self._readers.run(retention.unknown_jobs, job_ids)

    async def count_due_jobs(self, due: Mapping[Kept, int]) -> int:
        return await self._long_readers.run(retention.count_due_jobs, due)

    async def unneeded_blobs(self, hashes: Collection[str], *, due: Mapping[Kept, int] | None = None) -> set[str]:
        return await self._readers.run(retention.unneeded_blobs, hashes, due)
