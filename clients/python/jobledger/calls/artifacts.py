"""What jobs leave: listing artifacts, and fetching them with their hash checked."""

import contextlib
import hashlib
import uuid
from collections.abc import AsyncGenerator, Iterator, Sequence
from pathlib import Path
from typing import IO

from google.api.httpbody_pb2 import HttpBody

from jobledger.calls.base import Calls
from jobledger.errors import DataLossError, NotFoundError
from jobledger.v1.job_pb2 import Artifact
from jobledger.v1.job_service_pb2 import DownloadArtifactRequest, GetArtifactsRequest


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
        request = DownloadArtifactRequest(job_id=job_id, artifact_id=found.id)
        digest = hashlib.sha256()
        async for body in self._transport.follow(self._jobs.DownloadArtifact, request, _after_bytes):
            digest.update(body.data)
            yield body.data
        if digest.hexdigest() != found.sha256:
            raise DataLossError(
                f"{found.path} came with SHA-256 {digest.hexdigest()}, not {found.sha256}: fetch it again",
                error_code="E_ARTIFACT_QUARANTINED",
            )

    async def download_artifact(self, job_id: str, artifact: Artifact | str, to: str | Path) -> Path:
        """Writes an artifact to a file, which appears only once it is complete and its hash is checked.

        Args:
            artifact: one of `artifacts`, or its path relative to `output/`.
            to: the file; a directory gets a file of the artifact's name.

        Raises:
            NotFoundError, ConflictError, DataLossError: as for `artifact_content`.
            OSError: the file can't be written.
        """
        found = artifact if isinstance(artifact, Artifact) else await self._artifact(job_id, artifact)
        target = _target_file(found, Path(to))
        # Closed on every way out, so that the stream does not outlive a disk that is full.
        async with contextlib.aclosing(self.artifact_content(job_id, found)) as chunks:
            with _complete_or_absent(target) as file:
                async for chunk in chunks:
                    file.write(chunk)
        return target

    async def _artifact(self, job_id: str, path: str) -> Artifact:
        for artifact in await self.artifacts(job_id):
            if artifact.path == path:
                return artifact
        raise NotFoundError(f"{job_id} has no artifact {path!r}", error_code="E_ARTIFACT_NOT_FOUND")


def _target_file(artifact: Artifact, to: Path) -> Path:
    return to / Path(artifact.name).name if to.is_dir() else to


@contextlib.contextmanager
def _complete_or_absent(target: Path) -> Iterator[IO[bytes]]:
    """A file beside `target` that takes its place at the end, and vanishes if something goes wrong."""
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        with partial.open("xb") as file:
            yield file
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _after_bytes(request: DownloadArtifactRequest, body: HttpBody) -> None:
    request.offset += len(body.data)
