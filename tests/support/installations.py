"""A data directory with jobs, receipts and their archive: the real services over an executor that does as told."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobledger_server.archive.files import ReceiptArchive
from jobledger_server.core.ports import Outcome, StoredReceipt
from jobledger_server.service.archiving import Archiver
from jobledger_server.service.signing import KeyRing
from jobledger_server.stores.sqlite import SqliteStore
from support.clock import ManualClock
from support.executors import SUCCESS, ScriptedExecutor
from support.records import RUNNING
from support.services import Services, serving


@dataclass(frozen=True, kw_only=True)
class Installation:
    """A life of its server."""

    data_dir: Path
    store: SqliteStore
    served: Services
    archiver: Archiver
    executor: ScriptedExecutor

    async def started(self, **fields: Any) -> str:
        """A job that runs."""
        job_id = await self.served.create(**fields)
        await self.served.reaches(job_id, RUNNING)
        return job_id

    async def ended(
        self, outcome: Outcome = SUCCESS, *, outputs: Mapping[str, bytes] | None = None, **fields: Any
    ) -> str:
        """A job that has ended, with its receipt."""
        job_id = await self.started(**fields)
        for path, data in (outputs or {}).items():
            (self.data_dir / "jobs" / job_id / "output" / path).write_bytes(data)
        await self.served.finisher.attempt_ended(job_id, 1, outcome)
        return job_id

    async def receipts(self) -> list[StoredReceipt]:
        """All, in the order of the log."""
        return await receipts_of(self.store)


async def receipts_of(store: SqliteStore) -> list[StoredReceipt]:
    """All receipts of a store, in the order of the log."""
    jobs = await store.sealed_jobs(0, limit=10_000)
    found = [await store.receipt(job.job.job_id) for job in jobs if job.job is not None]
    return [receipt for receipt in found if receipt is not None]


def archiving(data_dir: Path, *, store: SqliteStore, clock: ManualClock) -> Archiver:
    """What keeps the archive of a data directory level with its store."""
    keys = KeyRing.open(data_dir / "keys", clock)
    return Archiver(store=store, archive=ReceiptArchive(data_dir / "receipts"), keys=keys, rest=0)


@asynccontextmanager
async def installation(data_dir: Path) -> AsyncIterator[Installation]:
    """A life of a server, its archive level with its database at the end."""
    data_dir.mkdir(mode=0o700, exist_ok=True)
    executor = ScriptedExecutor(clock=(clock := ManualClock()))
    async with (
        SqliteStore(data_dir / "jobledger.db") as store,
        serving(data_dir, store=store, clock=clock, executor=executor) as served,
        archiving(data_dir, store=store, clock=clock) as archiver,
    ):
        yield Installation(data_dir=data_dir, store=store, served=served, archiver=archiver, executor=executor)
