"""Accepts jobs."""

from collections.abc import Callable, Sequence
from pathlib import Path

from jobledger.v1.job_pb2 import JOB_STATE_QUEUED, Job, JobSpec
from jobledger.v1.job_service_pb2 import CreateJobRequest

from jobledger_server.core import transitions
from jobledger_server.core.changes import completed
from jobledger_server.core.concurrency import ConcurrencyLimits
from jobledger_server.core.errors import Reason, ServiceError
from jobledger_server.core.ids import ulid
from jobledger_server.core.job_types import JobTypes
from jobledger_server.core.policy import Principal, require
from jobledger_server.core.ports import (
    Clock,
    IdempotencyConflictError,
    IdempotencyKey,
    JobRecord,
    KeyedJobDeletedError,
    Store,
)
from jobledger_server.core.specs import request_hash, resolve
from jobledger_server.core.times import SECOND, timestamp
from jobledger_server.service.finishing import Finisher
from jobledger_server.service.lookup import find_job
from jobledger_server.service.storage import Storage
from jobledger_server.service.workspace import Workspaces

IDEMPOTENCY_PERIOD = 24 * 3600 * SECOND


class Creating:
    """CreateJob."""

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        finisher: Finisher,
        workspaces: Workspaces,
        limits: ConcurrencyLimits,
        storage: Storage,
        roots: Sequence[Path],
        job_types: JobTypes,
        objection: Callable[[Path, str], str | None],
    ) -> None:
        """`objection` says why isolation keeps the job of that directory from that working directory, if it does."""
        self._store = store
        self._clock = clock
        self._finisher = finisher
        self._workspaces = workspaces
        self._limits = limits
        self._storage = storage
        self._roots = tuple(roots)
        self._job_types = job_types
        self._objection = objection

    @completed
    async def create(self, request: CreateJobRequest, principal: Principal) -> JobRecord:
        """Stores a new job, or finds the one that the idempotency key made before."""
        base = await self._base(request.spec, principal)
        if self._job_types.of_job(request.spec, base) is None:
            require(principal, "jobs:exec")
        await self._storage.require_room()
        record = self._record(self._resolve(request.spec, base, principal), principal)
        self._check_working_dir(record.job)
        try:
            stored = await self._store.create_job(
                record, [transitions.accepted(record)], self._key(request, principal, record)
            )
        except IdempotencyConflictError:
            raise ServiceError(Reason.ERROR_REASON_IDEMPOTENCY_CONFLICT) from None
        except KeyedJobDeletedError:
            raise ServiceError(
                Reason.ERROR_REASON_JOB_NOT_FOUND,
                "The job that this idempotency key made was deleted",
            ) from None
        if not principal.sees(stored.job.workspace_id):
            raise ServiceError(Reason.ERROR_REASON_JOB_NOT_FOUND, hidden=True)
        if stored.job.job_id == record.job.job_id:
            self._finisher.queued(stored)
        return stored

    async def _base(self, spec: JobSpec, principal: Principal) -> JobSpec | None:
        """What is to be run again. The answer shows it, which takes the scope for that."""
        if not spec.HasField("rerun_of"):
            return None
        require(principal, "jobs:read")
        return (await find_job(self._store, principal, spec.rerun_of)).job.spec

    def _resolve(self, spec: JobSpec, base: JobSpec | None, principal: Principal) -> JobSpec:
        resolved = resolve(
            spec,
            roots=self._roots,
            hidden=self._workspaces.data_dir,
            secrets=self._workspaces.secrets,
            base=base,
            job_types=self._job_types,
        )
        if (
            not spec.workspace_id
            and base is None
            and principal.workspaces is not None
            and len(principal.workspaces) == 1
        ):
            resolved.workspace_id = next(iter(principal.workspaces))
        if not principal.sees(resolved.workspace_id):
            raise ServiceError(
                Reason.ERROR_REASON_FORBIDDEN,
                f"The token is not bound to the workspace {resolved.workspace_id!r}",
                metadata={"workspace_id": resolved.workspace_id},
            )
        return resolved

    def _check_working_dir(self, job: Job) -> None:
        """The start checks it again: what it leads to may have changed by then."""
        if job.spec.HasField("working_dir") and (why := self._objection(Path(job.job_dir), job.spec.working_dir)):
            raise ServiceError(Reason.ERROR_REASON_PATH_NOT_ALLOWED, f"spec.working_dir: {why}")

    def _record(self, spec: JobSpec, principal: Principal) -> JobRecord:
        now = self._clock.now()
        job_id = f"job_{ulid(now, self._clock.random(10))}"
        job = Job(
            job_id=job_id,
            run_id=f"run_{ulid(now, self._clock.random(10))}",
            state=JOB_STATE_QUEUED,
            job_type=spec.job_type,
            workspace_id=spec.workspace_id,
            labels=spec.labels,
            spec=spec,
            created_at=timestamp(now),
            queued_at=timestamp(now),
            job_dir=str(self._workspaces.job_dir(job_id)),
            created_by=principal.identity,
        )
        return JobRecord(job=job, last_activity_at=now, concurrency_groups=self._limits.groups_of(job))

    def _key(self, request: CreateJobRequest, principal: Principal, record: JobRecord) -> IdempotencyKey | None:
        if not request.idempotency_key:
            return None
        return IdempotencyKey(
            principal=principal.line,
            key=request.idempotency_key,
            request_hash=request_hash(request),
            expires_at=record.last_activity_at + IDEMPOTENCY_PERIOD,
            workspaces=None if principal.workspaces is None else tuple(sorted(principal.workspaces)),
        )
