"""A server as a user starts it, and a client of both its doors that adds as little time of its own as it can."""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import aiohttp
import grpc
from benchmarks.framework import NotMeasuredError
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from jobledger.v1.job_pb2 import Job, JobSpec, JobState
from jobledger.v1.job_service_pb2 import (
    CancelJobRequest,
    CreateJobRequest,
    ListJobsRequest,
    ListJobsResponse,
    WaitJobRequest,
)
from jobledger.v1.job_service_pb2_grpc import JobServiceStub
from support.eventually import eventually
from support.running import RunningServer, start

if TYPE_CHECKING:  # the stubs of asyncio have no class at run time
    from jobledger.v1.job_service_pb2_grpc import JobServiceAsyncStub

QUEUED = JobState.JOB_STATE_QUEUED
RUNNING = JobState.JOB_STATE_RUNNING
CANCELLING = JobState.JOB_STATE_CANCELLING
COMPLETED = JobState.JOB_STATE_COMPLETED
CANCELLED = JobState.JOB_STATE_CANCELLED
LIVE = (QUEUED, RUNNING, CANCELLING)

# Longest that anything is waited for: past it there is no figure.
PATIENCE_SECONDS = 300
T = TypeVar("T")
SERVICE = "/jobledger.v1.JobService/"
CHANNEL_OPTIONS = (("grpc.max_receive_message_length", 64 * 1024 * 1024),)


@dataclass(frozen=True, kw_only=True)
class Target:
    """A client: one gRPC channel, one HTTP session."""

    server: RunningServer
    channel: grpc.aio.Channel
    jobs: "JobServiceAsyncStub"
    metadata: tuple[tuple[str, str], ...]
    session: aiohttp.ClientSession

    async def create(self, *command: str, **spec: Any) -> str:
        """Submits a job. Returns its id."""
        request = CreateJobRequest(spec=JobSpec(command=command, **spec))
        return (await self.jobs.CreateJob(request, metadata=self.metadata)).job_id

    async def ended(self, job_id: str, state: JobState.ValueType = COMPLETED) -> Job:
        """The job, once it has ended as it should.

        Raises:
            NotMeasuredError: it ended in another way, or not at all.
        """
        request = WaitJobRequest(job_id=job_id, timeout=Duration(seconds=PATIENCE_SECONDS))
        job = await self.jobs.WaitJob(request, metadata=self.metadata)
        if job.state != state:
            seen, wanted = JobState.Name(job.state), JobState.Name(state)
            raise NotMeasuredError(f"{job_id} is {seen} ({job.error_code} {job.error_message}), not {wanted}")
        return job

    async def cancel(self, job_id: str) -> None:
        await self.jobs.CancelJob(CancelJobRequest(job_id=job_id), metadata=self.metadata)

    async def page(self, **request: Any) -> ListJobsResponse:
        """A page of jobs."""
        return await self.jobs.ListJobs(ListJobsRequest(**request), metadata=self.metadata)

    async def count(self, *states: JobState.ValueType) -> int:
        """How many jobs are in these states."""
        return (await self.page(state=states, limit=1)).total

    async def until_count(self, count: int, *states: JobState.ValueType) -> None:
        """Waits until so many jobs are in these states.

        Raises:
            NotMeasuredError: it does not come to that.
        """
        names = ", ".join(map(JobState.Name, states))
        await seen(lambda: self.count(*states), until=lambda total: total == count, wanted=f"{count} jobs {names}")

    async def rpc(self, method: str, request: Message) -> bytes:
        """The bytes of a JobService method's answer, not parsed: that would be the client's time."""
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self.channel.unary_unary(SERVICE + method)
        return await call(request.SerializeToString(), metadata=self.metadata)

    async def get(self, path: str, query: Mapping[str, str | int] | None = None) -> bytes:
        """The bytes of a REST answer.

        Raises:
            NotMeasuredError: it is an error.
        """
        async with self.session.get(path, params=query) as response:
            body = await response.read()
            if response.status != 200:
                raise NotMeasuredError(f"GET {path} answers {response.status}: {body[:500]!r}")
            return body


async def seen(look: Callable[[], Awaitable[T]], *, until: Callable[[T], bool], wanted: str) -> T:
    """What `look` gives once `until` holds of it.

    Raises:
        NotMeasuredError: it does not come to that.
    """
    try:
        return await eventually(look, seconds=PATIENCE_SECONDS, until=until)
    except AssertionError as error:
        raise NotMeasuredError(f"{wanted}: {error}") from None


@asynccontextmanager
async def attached(server: RunningServer) -> AsyncIterator[Target]:
    """A client of a server that runs."""
    bearer = f"Bearer {server.token}"
    timeout = aiohttp.ClientTimeout(total=PATIENCE_SECONDS)
    async with (
        grpc.aio.insecure_channel(server.target, options=CHANNEL_OPTIONS) as channel,
        aiohttp.ClientSession(server.url, headers={"Authorization": bearer}, timeout=timeout) as session,
    ):
        metadata = (("authorization", bearer),)
        yield Target(server=server, channel=channel, jobs=JobServiceStub(channel), metadata=metadata, session=session)


async def started(data_dir: Path, *flags: str) -> RunningServer:
    """`jobledger up`, ready. What it still runs when it is told to stop ends with it.

    One client stands for many here: what one token may do is not what is measured.
    """
    settings = data_dir.parent / f"{data_dir.name}.toml"
    await asyncio.to_thread(settings.write_text, "token_rate = 0\ntoken_streams = 1000000\ntoken_calls = 1000000\n")
    return await asyncio.to_thread(start, data_dir, "--stop-jobs", "--config", str(settings), *flags, afresh=True)


async def ended(server: RunningServer) -> None:
    """Ends a server and its jobs; those of one that was killed too."""
    if server.process.poll() is not None:
        server = await started(server.data_dir)
    try:
        await asyncio.to_thread(server.stop)
    finally:
        server.kill()


@asynccontextmanager
async def serving(data_dir: Path, *flags: str) -> AsyncIterator[Target]:
    """A server for the time of the block, and a client of it."""
    server = await started(data_dir, *flags)
    try:
        async with attached(server) as target:
            yield target
    finally:
        await ended(server)


def python(script: str) -> tuple[str, ...]:
    """The command that runs a script in this Python, with nothing loaded that it does not name."""
    return sys.executable, "-I", "-S", "-c", script
