"""One made-up service behind two doors: a socket on loopback, and the channel that has none."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeAlias, cast

import grpc
from grpc_health.v1 import health, health_pb2_grpc
from jobledger.v1 import job_service_pb2 as pb
from jobledger.v1.events_pb2 import Event
from jobledger.v1.job_pb2 import Job
from jobledger.v1.job_service_pb2_grpc import JobServiceServicer, add_JobServiceServicer_to_server
from jobledger_server.api.grpc_server import OPTIONS, add_reflection
from jobledger_server.api.inprocess import InProcessChannel
from jobledger_server.api.interceptors.access import current_principal
from jobledger_server.api.types import Context, ServerInterceptor
from jobledger_server.core.errors import FieldViolation, Reason, ServiceError
from jobledger_server.core.ports import StoreUnavailableError

# Of either kind: to types they have nothing in common.
Channel: TypeAlias = Any
DOORS = ("socket", "inprocess")
LARGE = "x" * 65_536


class Servicer(JobServiceServicer):
    """Does what the job_id says, and tells how that went."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.released = asyncio.Event()
        self.ended: list[str] = []
        self.produced = 0

    async def GetJob(self, request: pb.GetJobRequest, context: Context) -> Job:
        match request.job_id:
            case "principal":
                return Job(created_by=current_principal().token_id)
            case "metadata":
                await context.send_initial_metadata((("location", "/v1/jobs/x"),))
            case "missing":
                raise ServiceError(Reason.ERROR_REASON_JOB_NOT_FOUND, metadata={"hint": "look elsewhere"})
            case "busy":
                raise ServiceError(Reason.ERROR_REASON_OVERLOADED, retry_after=1.5)
            case "long":
                fields = [FieldViolation(f"spec.env[{'é' * 500}]", "ü" * 500)] * 500
                raise ServiceError(Reason.ERROR_REASON_VALIDATION, fields=fields)
            case "fault":
                raise ValueError("the password is tulip")
            case "unavailable":
                raise StoreUnavailableError("disk full at /secret/path")
            case "code":
                context.set_code(grpc.StatusCode.ABORTED)
                context.set_details("by hand")
            case "wait":
                await self._wait()
        return Job(job_id=request.job_id)

    async def WaitJob(self, request: pb.WaitJobRequest, context: Context) -> Job:
        await self._wait()
        return Job(job_id=request.job_id)

    async def CancelJob(self, request: pb.CancelJobRequest, context: Context) -> pb.CancelJobResponse:
        await self._wait()
        return pb.CancelJobResponse(job_id=request.job_id)

    async def WatchEvents(self, request: pb.WatchEventsRequest, context: Context) -> AsyncIterator[Event]:
        mode = request.job_id[0]
        if mode == "refused":
            raise ServiceError(Reason.ERROR_REASON_STREAM_INVALID_SEQUENCE)
        if mode == "silent":
            await context.send_initial_metadata((("etag", '"x"'),))
            await self._wait()
        try:
            async for event in self._events(mode, request.resume_from):
                yield event
        finally:
            self.ended.append(mode)

    async def _events(self, mode: str, count: int) -> AsyncIterator[Event]:
        for number in range(1, count + 1):
            self.produced = number
            yield Event(event_type=LARGE if mode == "large" else mode, sequence_number=number)
        if mode == "midway":
            raise ServiceError(Reason.ERROR_REASON_STREAM_GAP_TOO_LARGE, metadata={"first_available_sequence": "9"})
        if mode == "fault":
            raise ValueError("the password is tulip")

    async def _wait(self) -> None:
        self.begun.set()
        try:
            await self.released.wait()
        except asyncio.CancelledError:
            self.ended.append("cancelled")
            raise


def register(server: grpc.aio.Server, servicer: Servicer) -> None:
    add_JobServiceServicer_to_server(servicer, server)
    health_pb2_grpc.add_HealthServicer_to_server(health.aio.HealthServicer(), server)
    add_reflection(server)


@asynccontextmanager
async def opened(door: str, servicer: Servicer, interceptors: Sequence[ServerInterceptor]) -> AsyncIterator[Channel]:
    """A channel to the servicer, behind the interceptors."""
    if door == "inprocess":
        async with InProcessChannel(interceptors) as channel:
            register(cast("grpc.aio.Server", channel), servicer)
            yield channel
        return
    server = grpc.aio.server(interceptors=list(interceptors), options=OPTIONS)
    register(server, servicer)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as remote:
            yield remote
    finally:
        await server.stop(grace=None)


def bare(channel: Channel, method: str) -> Any:
    """A callable for a method that no stub has."""
    return channel.unary_unary(method, request_serializer=bytes, response_deserializer=bytes)
