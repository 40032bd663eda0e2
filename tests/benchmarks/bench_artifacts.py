"""A large artifact: collected, fetched beside a plain loop over the same file, and fetched on after a cut."""

import asyncio
import hashlib
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import aiohttp
from benchmarks.framework import Goal, NotMeasuredError, Row, Run, benchmark
from benchmarks.measuring import interleaved, median, timed
from benchmarks.serving import Target, python, serving
from google.api.httpbody_pb2 import HttpBody
from jobledger.v1.job_pb2 import Artifact
from jobledger.v1.job_service_pb2 import DownloadArtifactRequest
from support.running import RunningServer

MIB = 1024 * 1024
SIZE = 2048 * MIB
ROUNDS = 3
RATIO, MEMORY_MIB = 0.5, 100.0
LEAVES = """
import os
block = bytearray(os.urandom({block}))
with open(os.environ["JOBLEDGER_OUTPUT_DIR"] + "/big", "wb") as file:
    for number in range({blocks}):
        block[:8] = number.to_bytes(8, "big")
        file.write(block)
"""
# The simplest server that there can be: it reads, it writes.
PLAIN = """
import sys
from aiohttp import web

async def whole(request):
    response = web.StreamResponse()
    with open(sys.argv[1], "rb") as file:
        response.content_length = file.seek(0, 2)
        file.seek(0)
        await response.prepare(request)
        while chunk := file.read(262144):
            await response.write(chunk)
    return response

app = web.Application()
app.router.add_get("/", whole)
web.run_app(app, host="127.0.0.1", port=0, print=lambda text: print(text, flush=True))
"""


class Left(NamedTuple):
    """The job that left the artifact, and how long that took from its creation to its receipt, in seconds."""

    job_id: str
    artifact: Artifact
    seconds: float

    @property
    def path(self) -> str:
        return f"/v1/jobs/{self.job_id}/artifacts/{self.artifact.id}/content"


@benchmark(
    "artifacts",
    goal=f"a file of 2 GiB is fetched at {RATIO:g} times the speed of a plain aiohttp loop or more, in flat memory",
)
async def artifacts(run: Run) -> list[Row]:
    """One job leaves a file of 2 GiB; its client reads it whole, counts the bytes, and drops them.

    collected: from the creation of the job to its receipt, which names the file's hash, its own writing included.
    fetched: median of three rounds, each over REST, over gRPC, and from a loop in aiohttp that reads the same file in
    256 KiB and does nothing else. fetched on: after a cut at a third, by Range and If-Range, to the same hash.
    memory: the most that the server took while all that ran, above what it took before.
    """
    size = run.scaled(SIZE // MIB) * MIB
    async with serving(run.directory / "data") as target:
        await target.ended(await target.create("true"))
        before = target.server.resident_megabytes()
        left = await _left(target, size)
        async with _plain(blob_of(target.server, left.artifact.sha256)) as url:
            calls = {
                "rest": lambda: _expect(size, _rest(target, left)),
                "grpc": lambda: _expect(size, _grpc(target, left)),
                "plain": lambda: _expect(size, _get(target.session, url)),
            }
            samples = await interleaved(1 if run.trial else ROUNDS, calls)
        resumed = await timed(lambda: _resumed(target, left))
        grown = _most_megabytes(target.server) - before
    rates = {name: size / MIB / median(times) for name, times in samples.items()}
    ratio = rates["rest"] / rates["plain"]
    return [
        Row(name="REST, of the plain loop's speed", value=ratio, unit="times", goal=Goal(RATIO, at_least=True)),
        Row(name="fetched over REST", value=rates["rest"], unit="MiB/s"),
        Row(name="fetched over gRPC", value=rates["grpc"], unit="MiB/s"),
        Row(name="fetched from a plain aiohttp loop", value=rates["plain"], unit="MiB/s"),
        Row(name="fetched on after a cut, hashed by the client", value=resumed, unit="s"),
        Row(name="written by the job and collected", value=left.seconds, unit="s"),
        Row(name="memory of the server above the beginning", value=grown, unit="MiB", goal=Goal(MEMORY_MIB)),
    ]


def blob_of(server: RunningServer, sha256: str) -> Path:
    return server.data_dir / "blobs" / sha256[:2] / sha256[2:]


async def _left(target: Target, size: int) -> Left:
    began = time.monotonic()
    job_id = await target.create(*python(LEAVES.format(block=MIB, blocks=size // MIB)))
    job = await target.ended(job_id)
    if len(job.artifacts) != 1 or job.artifacts[0].size_bytes != size:
        raise NotMeasuredError(f"{job_id} left {len(job.artifacts)} artifacts, not one of {size} bytes")
    return Left(job_id, job.artifacts[0], time.monotonic() - began)


async def _expect(size: int, pieces: AsyncIterator[bytes]) -> None:
    received = 0
    async for piece in pieces:
        received += len(piece)
    if received != size:
        raise NotMeasuredError(f"{received} bytes came, not {size}")


def _rest(target: Target, left: Left, headers: Mapping[str, str] | None = None) -> AsyncIterator[bytes]:
    return _get(target.session, left.path, headers)


async def _get(
    session: aiohttp.ClientSession, url: str, headers: Mapping[str, str] | None = None
) -> AsyncGenerator[bytes, None]:
    async with session.get(url, headers=headers) as response:
        response.raise_for_status()
        async for piece in response.content.iter_any():
            yield piece


async def _grpc(target: Target, left: Left) -> AsyncIterator[bytes]:
    request = DownloadArtifactRequest(job_id=left.job_id, artifact_id=left.artifact.id)
    body: HttpBody
    async for body in target.jobs.DownloadArtifact(request, metadata=target.metadata):
        yield body.data


async def _resumed(target: Target, left: Left) -> None:
    """Fetches a third, cuts the connection, and fetches the rest."""
    digest, received, size = hashlib.sha256(), 0, left.artifact.size_bytes
    bearer = {"Authorization": f"Bearer {target.server.token}"}
    async with (
        aiohttp.ClientSession(target.server.url, headers=bearer) as session,
        aclosing(_get(session, left.path)) as pieces,
    ):
        async for piece in pieces:
            digest.update(piece)
            received += len(piece)
            if received > size // 3:
                break
    condition = {"Range": f"bytes={received}-", "If-Range": f'"{left.artifact.sha256}"'}
    async for piece in _rest(target, left, condition):
        digest.update(piece)
    if digest.hexdigest() != left.artifact.sha256:
        raise NotMeasuredError("what came before and after the cut is not the artifact")


@asynccontextmanager
async def _plain(file: Path) -> AsyncIterator[str]:
    """The address of a plain loop over that file, in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-c", PLAIN, str(file), stdout=asyncio.subprocess.PIPE
    )
    try:
        if process.stdout is None:
            raise NotMeasuredError("the plain loop says nothing")
        told = (await process.stdout.readline()).decode()
        yield next((word for word in told.split() if word.startswith("http://")), told)
    finally:
        process.terminate()
        await process.wait()


def _most_megabytes(server: RunningServer) -> float:
    """The most memory that the server ever had, in MiB."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024
