"""Liveness and readiness, for supervisors and load balancers."""

import grpc
from aiohttp import web
from grpc_health.v1 import health_pb2

from jobledger_gateway.calls import Rpc
from jobledger_gateway.exchange import Exchange

CHECK = health_pb2.DESCRIPTOR.services_by_name["Health"].methods_by_name["Check"]
PATIENCE_SECONDS = 5.0


class Health:
    """`/healthz`: the gateway answers. `/readyz`: the engine behind it serves."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._check = Rpc(channel, CHECK)

    async def alive(self, exchange: Exchange) -> web.StreamResponse:  # noqa: ARG002 - an endpoint's signature
        """200: the process lives."""
        return web.json_response({"status": "ok"})

    async def ready(self, exchange: Exchange) -> web.StreamResponse:
        """200 while the engine serves, else 503."""
        try:
            reply = await self._check(
                health_pb2.HealthCheckRequest(),
                metadata=exchange.metadata,
                deadline=min(exchange.deadline or PATIENCE_SECONDS, PATIENCE_SECONDS),
            )
        except grpc.aio.AioRpcError as failure:
            if failure.code() is grpc.StatusCode.UNIMPLEMENTED:
                # It answers, and has no health to tell.
                return web.json_response({"status": "ok"})
            return web.json_response({"status": "unreachable", "code": failure.code().name}, status=503)
        serves = reply.message.status == health_pb2.HealthCheckResponse.SERVING
        return web.json_response({"status": "ok" if serves else "not_serving"}, status=200 if serves else 503)
