"""What jobs left: the list, and the bytes."""

import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass

from jobledger.v1.job_pb2 import (
    ARTIFACT_STATUS_COMPLETE,
    ARTIFACT_STATUS_FAILED,
    ARTIFACT_STATUS_QUARANTINED,
    Artifact,
    Job,
)
from jobledger.v1.job_service_pb2 import DownloadArtifactRequest

from jobledger_server.core.artifacts import events
from jobledger_server.core.errors import Reason, ServiceError
from jobledger_server.core.policy import Principal
from jobledger_server.core.ports import BlobDamagedError, Blobs, Clock, Store
from jobledger_server.core.ranges import ByteRange, byte_range
from jobledger_server.service.damage import Damage
from jobledger_server.service.lookup import find_job

log = logging.getLogger(__name__)
NOT_LEFT = "The job declared this artifact and did not leave it: `refused` in its receipt says why"


@dataclass(frozen=True, slots=True)
class Download:
    """An artifact, the part of it that was asked for, and that part's bytes."""

    artifact: Artifact
    part: ByteRange
    chunks: AsyncIterator[bytes]


class Artifacts:
    """GetArtifacts and DownloadArtifact."""

    def __init__(self, *, store: Store, clock: Clock, blobs: Blobs, damage: Damage) -> None:
        self._store = store
        self._clock = clock
        self._blobs = blobs
        self._damage = damage

    async def list(self, job_id: str, principal: Principal) -> list[Artifact]:
        """By path."""
        record = await find_job(self._store, principal, job_id)
        return list(await self._store.artifacts(record.job.job_id))

    async def download(self, request: DownloadArtifactRequest, principal: Principal) -> Download:
        """The bytes of an artifact, or of a part of it.

        Raises:
            ServiceError: ARTIFACT_NOT_FOUND, ARTIFACT_NOT_READY, ARTIFACT_QUARANTINED, RANGE_NOT_SATISFIABLE.
        """
        job, artifact = await self._find(request, principal)
        part = byte_range(
            artifact.size_bytes,
            offset=request.offset,
            length=request.length if request.HasField("length") else None,
        )
        if not await self._blobs.verify(artifact.sha256):
            raise await self._quarantine(job, artifact)
        return Download(artifact, part, self._read(job, artifact, part))

    async def _read(self, job: Job, artifact: Artifact, part: ByteRange) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._blobs.read(artifact.sha256, part.start, part.length):
                yield chunk
        except (BlobDamagedError, FileNotFoundError):
            raise await self._quarantine(job, artifact) from None

    async def _find(self, request: DownloadArtifactRequest, principal: Principal) -> tuple[Job, Artifact]:
        job = (await find_job(self._store, principal, request.job_id)).job
        for artifact in await self._store.artifacts(job.job_id):
            if artifact.id == request.artifact_id:
                break
        else:
            raise ServiceError(Reason.ERROR_REASON_ARTIFACT_NOT_FOUND)
        if artifact.status == ARTIFACT_STATUS_QUARANTINED:
            raise ServiceError(Reason.ERROR_REASON_ARTIFACT_QUARANTINED)
        if artifact.status == ARTIFACT_STATUS_FAILED:
            raise ServiceError(Reason.ERROR_REASON_ARTIFACT_NOT_FOUND, NOT_LEFT)
        if artifact.status != ARTIFACT_STATUS_COMPLETE:
            raise ServiceError(Reason.ERROR_REASON_ARTIFACT_NOT_READY)
        return job, artifact

    async def _quarantine(self, job: Job, artifact: Artifact) -> ServiceError:
        """Takes note that its bytes are gone or others, so that it is told once and never served."""
        damaged = Artifact()
        damaged.CopyFrom(artifact)
        damaged.status = ARTIFACT_STATUS_QUARANTINED
        if await self._store.set_artifact_status(damaged, events(job, [damaged], self._clock.now())):
            self._damage.artifacts += 1
            log.warning(
                "an artifact of %s is quarantined: its bytes are gone, or others than %s says. Its path: %r",
                *(job.job_id, artifact.sha256, artifact.path),
            )
        return ServiceError(Reason.ERROR_REASON_ARTIFACT_QUARANTINED)
