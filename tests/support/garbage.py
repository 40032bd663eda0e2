"""A data directory with jobs that have ended, and what collects its garbage."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from jobledger.v1.job_pb2 import JobState
from jobledger_server.blobs.files import FileBlobs
from jobledger_server.core.ports import Kept
from jobledger_server.core.retention import Retention, retention_of
from jobledger_server.service.garbage import GarbageCollector
from jobledger_server.service.locks import JobLocks
from jobledger_server.service.storage import Storage
from jobledger_server.service.workspace import Workspaces
from jobledger_server.stores.sqlite import SqliteStore
from support.blobs import put
from support.clock import ManualClock
from support.records import COMPLETED, RUNNING, a_change, a_receipt, a_record, an_artifact


class Place:
    """A data directory, and what collects its garbage."""

    def __init__(self, data_dir: Path, store: SqliteStore, clock: ManualClock) -> None:
        self.store, self.clock, self.data_dir = store, clock, data_dir
        self.workspaces, self.locks = Workspaces(data_dir=data_dir), JobLocks()
        self.blobs = FileBlobs(data_dir / "blobs")
        self.deleted: list[str] = []
        self.storage = Storage(clock=clock, free=lambda: 2**40, warn_free_bytes=0, min_free_bytes=0)

    def collector(self, retention: Retention) -> GarbageCollector:
        return GarbageCollector(
            store=self.store,
            clock=self.clock,
            blobs=self.blobs,
            workspaces=self.workspaces,
            locks=self.locks,
            retention=retention,
            storage=self.storage,
            deletions=self,
        )

    async def note_deleted(self, job_ids: Sequence[str]) -> None:
        """As `Deletions.note_deleted`."""
        self.deleted += job_ids

    async def collect(self, *rules: str, dry_run: bool = False) -> dict[str, int]:
        """A pass under these rules alone; how many went by class."""
        named = dict.fromkeys((kept.value for kept in Kept), "never") | dict(rule.split("=") for rule in rules)
        return dict((await self.collector(retention_of(named.items())).collect(dry_run=dry_run)).count)

    async def blob(self, content: bytes) -> str:
        source = self.data_dir / "source"
        source.write_bytes(content)
        descriptor = os.open(source, os.O_RDONLY)
        try:
            return put(self.blobs, descriptor)[0]
        finally:
            os.close(descriptor)

    async def ended(
        self,
        state: JobState.ValueType = COMPLETED,
        kept: Sequence[Kept] = (Kept.LOGS_INFO, Kept.JOB_DIRS_COMPLETED),
        sha256: str = "",
    ) -> str:
        """A job that has just ended, with a log, a directory and, with a hash, an artifact."""
        record = a_record(RUNNING, created_at=self.clock.now())
        job_id = record.job.job_id
        await self.store.create_job(record, [])
        artifacts = [an_artifact(await self.store.reserve_artifact_ids(1))] if sha256 else []
        for artifact in artifacts:
            artifact.sha256 = sha256
        change = replace(a_change(record, state, at=self.clock.now(), receipt=a_receipt(job_id)), events=())
        await self.store.update_job(job_id, lambda stored: replace(change, kept=kept, artifacts=artifacts))
        self.files(job_id)
        return job_id

    def files(self, job_id: str) -> None:
        for directory in (self.workspaces.job_dir(job_id) / "output", self.workspaces.log_dir(job_id)):
            directory.mkdir(parents=True)
            (directory / "file").write_bytes(b"x" * 100)

    def left(self, job_id: str) -> list[str]:
        places = {"log": self.workspaces.log_dir(job_id), "job_dir": self.workspaces.job_dir(job_id)}
        return [name for name, place in places.items() if place.exists()]
