"""`jobledger artifacts`: what a job left."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from jobledger.cli import output
from jobledger.cli.default_group import DefaultGroup
from jobledger.cli.params import job_argument
from jobledger.cli.session import NOT_VALID, REFUSED, connected, fail, json_option

if TYPE_CHECKING:
    from jobledger.client import Client
    from jobledger.v1.job_pb2 import Artifact


@click.group(name="artifacts", cls=DefaultGroup, default="list")
def command() -> None:
    """Lists what a job left, or fetches it: artifacts JOB, artifacts get JOB PATH."""


@command.command(name="list")
@job_argument
@json_option
@connected
async def list_artifacts(client: "Client", /, *, job_id: str, as_json: bool) -> None:
    """Lists what a job left."""
    from jobledger.v1.job_service_pb2 import GetArtifactsResponse

    artifacts = await client.artifacts(job_id)
    if as_json:
        output.document(GetArtifactsResponse(artifacts=artifacts))
    elif artifacts:
        output.table(("PATH", "SIZE", "STATUS", "TYPE", "SHA-256"), [row(artifact) for artifact in artifacts], colour=2)
    else:
        output.note(f"{job_id} has left nothing")


@command.command(name="get")
@job_argument
@click.argument("path", required=False)
@click.option(
    "--output", "-o", "to", type=click.Path(path_type=Path), default=Path(), help="File or directory. Default: here."
)
@click.option("--force", is_flag=True, help="Replace files that are there already.")
@json_option
@connected
async def get_artifacts(
    client: "Client", /, *, job_id: str, path: str | None, to: Path, force: bool, as_json: bool
) -> int | None:
    """Fetches one artifact, or all of them under their paths; each one's hash is checked.

    A download that was cut goes on where it was when it is asked for again. A file that is there already is never
    replaced without --force; one that has the very bytes counts as fetched. Exit code 4: some can't be had.
    """
    from jobledger.errors import NotFoundError
    from jobledger.v1.job_pb2 import ArtifactStatus
    from jobledger.values import short_name

    code = None
    found = [artifact for artifact in await client.artifacts(job_id) if path in (None, artifact.path)]
    if path and not found:
        raise NotFoundError(f"{job_id} has no artifact {path!r}; `jobledger artifacts {job_id}` lists them")
    for artifact in found:
        if path is None and artifact.status != ArtifactStatus.ARTIFACT_STATUS_COMPLETE:
            output.note(f"{artifact.path} is left out: it is {short_name(ArtifactStatus, artifact.status)}")
            code = REFUSED
            continue
        try:
            written = await _fetch(client, job_id, artifact, to if path else _place(to, artifact), force=force)
        except OSError as error:
            fail(f"{artifact.path!r} can't be written: {error}", NOT_VALID)
        if as_json:
            output.line({"path": artifact.path, "file": str(written), "sha256": artifact.sha256})
        else:
            # So that no program that reads the line takes a name for an option.
            print(f"./{written}" if str(written).startswith("-") else written)
    return code


async def _fetch(client: "Client", job_id: str, artifact: "Artifact", target: Path, *, force: bool) -> Path:
    """The file that holds the artifact now."""
    from jobledger.partial_files import has_sha256

    try:
        return await client.download_artifact(job_id, artifact, target, overwrite=force)
    except FileExistsError as error:
        there = Path(error.filename2 or error.filename)
        if has_sha256(there, artifact.sha256):
            return there
        fail(f"{there} is there already: say --force to replace it, or --output for another place", NOT_VALID)


def _place(root: Path, artifact: "Artifact") -> Path:
    """Where an artifact goes under a directory. Never outside of it, whatever the server says."""
    target = root / artifact.path
    parts = artifact.path.split("/")
    odd = "\\" in artifact.path or "\0" in artifact.path or {"", ".", ".."} & set(parts)
    if odd or not target.resolve().is_relative_to(root.resolve()):
        fail(f"{artifact.path!r} would leave {root}: fetch it by itself, with --output", NOT_VALID)
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


def row(artifact: "Artifact") -> tuple[str, ...]:
    """An artifact as cells of a table."""
    from jobledger.v1.job_pb2 import ArtifactStatus, ArtifactType
    from jobledger.values import short_name

    return (
        artifact.path,
        output.size(artifact.size_bytes) if artifact.HasField("size_bytes") else "-",
        short_name(ArtifactStatus, artifact.status),
        short_name(ArtifactType, artifact.artifact_type),
        artifact.sha256 or "-",
    )
