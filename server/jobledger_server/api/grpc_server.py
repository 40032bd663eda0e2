"""The gRPC door: services, interceptors, channel options, addresses."""

import resource
from collections.abc import Sequence
from dataclasses import dataclass

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc
from jobledger.v1.engine_service_pb2_grpc import add_EngineServiceServicer_to_server
from jobledger.v1.job_service_pb2_grpc import add_JobServiceServicer_to_server
from jobledger.v1.receipt_service_pb2_grpc import add_ReceiptServiceServicer_to_server

from jobledger_server.api.engine_servicer import EngineServicer
from jobledger_server.api.job_servicer import JobServicer
from jobledger_server.api.receipt_servicer import ReceiptServicer
from jobledger_server.api.types import ServerInterceptor
from jobledger_server.core.policy import HEALTH, REFLECTION, REFLECTION_V1, SERVICES

MESSAGE_BYTES = 4 * 1024 * 1024
# A client needs one connection for all its calls. Each takes a descriptor, of which jobs, logs and REST need theirs.
MOST_CONNECTIONS, SHARE_OF_DESCRIPTORS = 1024, 4

# Without these grpc shares a port that is taken, leaves silent and dead connections open, and lets one client open any
# number of streams, or reset them without end.
OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
    # Both the same: between the two gRPC refuses by chance. It is room for the longest credentials that REST admits.
    ("grpc.max_metadata_size", 16 * 1024),
    ("grpc.absolute_max_metadata_size", 16 * 1024),
    ("grpc.max_concurrent_streams", 128),
    ("grpc.max_connection_idle_ms", 600_000),
    ("grpc.server_handshake_timeout_ms", 5_000),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.max_ping_strikes", 2),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Everything that is served, the same through every door."""

    jobs: JobServicer
    receipts: ReceiptServicer
    engine: EngineServicer
    health: health.aio.HealthServicer

    def register(self, server: grpc.aio.Server) -> None:
        add_JobServiceServicer_to_server(self.jobs, server)
        add_ReceiptServiceServicer_to_server(self.receipts, server)
        add_EngineServiceServicer_to_server(self.engine, server)
        health_pb2_grpc.add_HealthServicer_to_server(self.health, server)
        add_reflection(server)


def add_reflection(server: grpc.aio.Server) -> None:
    """Reflection v1alpha, and v1, whose messages are the same on the wire."""
    names = [*(service.full_name for service in SERVICES), HEALTH, REFLECTION]
    servicer = reflection.aio.ReflectionServicer(names)
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, server)
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    v1 = grpc.method_handlers_generic_handler(REFLECTION_V1, {"ServerReflectionInfo": handler})
    server.add_generic_rpc_handlers((v1,))


def build_server(services: Services, interceptors: Sequence[ServerInterceptor]) -> grpc.aio.Server:
    """A server that has no address yet."""
    options = (*OPTIONS, ("grpc.max_allowed_incoming_connections", most_connections()))
    server = grpc.aio.server(interceptors=list(interceptors), options=options)
    services.register(server)
    return server


def most_connections() -> int:
    """How many connections are held at a time, with the descriptors that this process may have."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST_CONNECTIONS if soft == resource.RLIM_INFINITY else min(MOST_CONNECTIONS, soft // SHARE_OF_DESCRIPTORS)


def health_servicer() -> health.aio.HealthServicer:
    """Health of the whole, and of each of our services: not serving until `set_serving`."""
    servicer: health.aio.HealthServicer = health.aio.HealthServicer()
    return servicer


async def set_serving(servicer: health.aio.HealthServicer, *, serving: bool) -> None:
    status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
    for name in ("", *(service.full_name for service in SERVICES)):
        await servicer.set(name, status)
