"""What jobs left: the list, and the bytes."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

from jobledger.v1.job_pb2 import (
    ARTIFACT_STATUS_COMPLETE,
    ARTIFACT_STATUS_FAILED,
    ARTIFACT_STATUS_QUARANTINED,
    Artifact,
)
from jobledger.v1.job_service_pb2 import DownloadArtifactRequest

from jobledger_server.core.errors import Reason, ServiceError
from jobledger_server.core.policy import Principal
from jobledger_server.core.ports import BlobDamagedError, Blobs, Store
from jobledger_server.core.ranges import ByteRange, byte_range
from jobledger_server.service.lookup import find_job

NOT_LEFT = "The job declared this artifact and did not leave it: `refused` in its receipt says why"


@dataclass(frozen=True, slots=True)
class Download:
    """An artifact, the part of it that was asked for, and that part's bytes."""

    artifact: Artifact
    part: ByteRange
    chunks: AsyncIterator[bytes]


class Artifacts:
    """GetArtifacts and DownloadArtifact."""

    def __init__(self, *, store: Store, blobs: Blobs) -> None:
        self._store = store
        self._blobs = blobs

    async def list(self, job_id: str, principal: Principal) -> list[Artifact]:
        """By path."""
        record = await find_job(self._store, principal, job_id)
        return list(await self._store.artifacts(record.job.job_id))

    async def download(self, request: DownloadArtifactRequest, principal: Principal) -> Download:
        """The bytes of an artifact, or of a part of it.

        Raises:
            ServiceError: ARTIFACT_NOT_FOUND, ARTIFACT_NOT_READY, ARTIFACT_QUARANTINED, RANGE_NOT_SATISFIABLE.
        """
        artifact = await self._find(request, principal)
        part = byte_range(
            artifact.size_bytes,
            offset=request.offset,
            length=request.length if request.HasField("length") else None,
        )
        if not await self._blobs.verify(artifact.sha256):
            raise await self._quarantine(artifact)
        return Download(artifact, part, self._read(artifact, part))

    async def _read(self, artifact: Artifact, part: ByteRange) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._blobs.read(artifact.sha256, part.start, part.length):
                yield chunk
        except (BlobDamagedError, FileNotFoundError):
            raise await self._quarantine(artifact) from None

    async def _find(self, request: DownloadArtifactRequest, principal: Principal) -> Artifact:
        for artifact in await self.list(request.job_id, principal):
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
        return artifact

    async def _quarantine(self, artifact: Artifact) -> ServiceError:
        damaged = Artifact()
        damaged.CopyFrom(artifact)
        damaged.status = ARTIFACT_STATUS_QUARANTINED
        await self._store.set_artifact_status(damaged)
        return ServiceError(Reason.ERROR_REASON_ARTIFACT_QUARANTINED)
