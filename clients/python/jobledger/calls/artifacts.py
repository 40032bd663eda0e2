"""What jobs leave: listing artifacts, and fetching them with their hash checked."""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

from jobledger.calls.base import Calls
from jobledger.calls.content import content
from jobledger.errors import DataLossError, DeadlineError, NotFoundError, SetupError, UnavailableError
from jobledger.partial_files import PartialFile, partial_file, refuse_to_replace
from jobledger.v1.job_pb2 import Artifact
from jobledger.v1.job_service_pb2 import DownloadArtifactRequest, GetArtifactsRequest

# What leaves a part that is worth keeping.
INTERRUPTED = (UnavailableError, DeadlineError, asyncio.CancelledError, KeyboardInterrupt)


class ArtifactCalls(Calls):
    """Verbs on artifacts."""

    async def artifacts(self, job_id: str) -> Sequence[Artifact]:
        """What a job left, by path.

        Raises:
            NotFoundError: there is no such job.
        """
        answer = await self._transport.call(self._jobs.GetArtifacts, GetArtifactsRequest(job_id=job_id))
        return answer.artifacts

    async def artifact_content(self, job_id: str, artifact: Artifact | str) -> AsyncGenerator[bytes, None]:
        """An artifact's bytes, in chunks.

        Args:
            artifact: one of `artifacts`, or its path relative to `output/`.

        Raises:
            NotFoundError: the job has no such artifact.
            ConflictError: it has not been collected yet.
            DataLossError: the server quarantined it, or (after the last chunk) what came does not match its hash.
        """
        found = artifact if isinstance(artifact, Artifact) else await self._artifact(job_id, artifact)
        digest = hashlib.sha256()
        async for chunk in self._chunks(job_id, found, 0):
            digest.update(chunk)
            yield chunk
        if digest.hexdigest() != found.sha256:
            raise _other_bytes(found, digest.hexdigest())

    async def download_artifact(
        self, job_id: str, artifact: Artifact | str, to: str | Path, *, overwrite: bool = False
    ) -> Path:
        """Writes an artifact to a file, which appears only once it is complete and its hash is checked.

        Where the server can't be reached any more, or the call is cancelled, what came so far stays beside the file as
        `.jobledger-*.part`: asked again, the download goes on from there.

        Args:
            artifact: one of `artifacts`, or its path relative to `output/`.
            to: the file; a directory gets a file of the artifact's name.
            overwrite: whether a file that is there already may be replaced.

        Raises:
            NotFoundError, ConflictError, DataLossError: as for `artifact_content`.
            FileExistsError: there is such a file.
            OSError: the file can't be written.
        """
        found = artifact if isinstance(artifact, Artifact) else await self._artifact(job_id, artifact)
        target = _target_file(found, Path(to))
        if not overwrite:
            refuse_to_replace(target)
        async with partial_file(target, found.sha256, *INTERRUPTED) as file:
            resumed = file.size > 0
            await self._fetch(job_id, found, file)
            if resumed and file.sha256 != found.sha256:
                await file.begin_anew()
                await self._fetch(job_id, found, file)
            if file.sha256 != found.sha256:
                raise _other_bytes(found, file.sha256)
            file.complete(overwrite=overwrite)
        return target

    async def _fetch(self, job_id: str, artifact: Artifact, file: PartialFile) -> None:
        """Adds what is missing."""
        if file.size > artifact.size_bytes:
            await file.begin_anew()
        # Closed on every way out, so that the stream does not outlive a disk that is full.
        async with contextlib.aclosing(self._chunks(job_id, artifact, file.size)) as chunks:
            async for chunk in chunks:
                await file.write(chunk)

    def _chunks(self, job_id: str, artifact: Artifact, offset: int) -> AsyncGenerator[bytes, None]:
        """The bytes from an offset on, wherever the connection breaks."""
        request = DownloadArtifactRequest(job_id=job_id, artifact_id=artifact.id, offset=offset)
        size = artifact.size_bytes if artifact.HasField("size_bytes") else None
        return content(self._transport, self._jobs.DownloadArtifact, request, size=size)

    async def _artifact(self, job_id: str, path: str) -> Artifact:
        for artifact in await self.artifacts(job_id):
            if artifact.path == path:
                return artifact
        raise NotFoundError(f"{job_id} has no artifact {path!r}", error_code="E_ARTIFACT_NOT_FOUND")


def _target_file(artifact: Artifact, to: Path) -> Path:
    """Never outside of the directory, whatever the server says."""
    if not to.is_dir():
        return to
    name = artifact.name
    if name in ("", ".", "..") or any(character in name for character in "/\\\0"):
        raise SetupError(f"{name!r} is no name for a file: say which file to write", error_code="E_VALIDATION")
    return to / name


def _other_bytes(artifact: Artifact, sha256: str) -> DataLossError:
    return DataLossError(
        f"{artifact.path} came with SHA-256 {sha256}, not {artifact.sha256}: fetch it again",
        error_code="E_ARTIFACT_QUARANTINED",
    )
