"""The gateway as an aiohttp application: a channel in, an app out."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import grpc
import orjson
from aiohttp import web
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass
from jobledger.v1 import engine_service_pb2, job_service_pb2, receipt_service_pb2

from jobledger_gateway.application import application
from jobledger_gateway.calls import Rpc
from jobledger_gateway.dashboard import PREFIX, Dashboard, View, render
from jobledger_gateway.docs import Docs
from jobledger_gateway.errors import Problem
from jobledger_gateway.exchange import Endpoint, Page
from jobledger_gateway.gateway import Gateway, Probe
from jobledger_gateway.health import Health
from jobledger_gateway.http_rule import parse_template
from jobledger_gateway.metadata import request_metadata
from jobledger_gateway.metrics import Counters, Metrics
from jobledger_gateway.openapi import document
from jobledger_gateway.origins import Origins
from jobledger_gateway.routes import Route, routes_of
from jobledger_gateway.serving import Address, serve
from jobledger_gateway.streaming import StreamSettings

__all__ = ["Address", "GatewayOptions", "build_app", "serve"]

SERVICES: tuple[ServiceDescriptor, ...] = tuple(
    file.DESCRIPTOR.services_by_name[name]
    for file, name in (
        (job_service_pb2, "JobService"),
        (receipt_service_pb2, "ReceiptService"),
        (engine_service_pb2, "EngineService"),
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayOptions:
    """How the gateway serves.

    Attributes:
        services: services whose google.api.http annotations become routes.
        allowed_hosts: names that the Host header may have, with a port or without; None for any.
        allowed_origins: origins of pages that may call, beside the gateway's own.
        max_body_bytes: largest body, inflated.
        metrics_public: whether `/metrics` answers without a token, telling of the gateway alone.
        auth_probe: path of the method that tells whether a token is good; "" where there is none.
        streams: how streams behave.
    """

    services: tuple[ServiceDescriptor, ...] = SERVICES
    allowed_hosts: tuple[str, ...] | None = None
    allowed_origins: tuple[str, ...] = ()
    max_body_bytes: int = 1024 * 1024
    metrics_public: bool = False
    auth_probe: str = "/jobledger.v1.EngineService/WhoAmI"
    streams: StreamSettings = field(default_factory=StreamSettings)


def build_app(channel: grpc.aio.Channel, *, options: GatewayOptions | None = None) -> web.Application:
    """The application that answers HTTP with calls over the channel.

    Raises:
        RuleError: an annotation can't be served, or two of them mean the same requests.
    """
    options = options or GatewayOptions()
    stopping = asyncio.Event()
    counters = Counters()
    origins = Origins(hosts=options.allowed_hosts, origins=options.allowed_origins)
    gateway = Gateway(
        origins=origins,
        max_body_bytes=options.max_body_bytes,
        probe=_probe(channel, options.auth_probe),
        counters=counters,
        render=_render,
    )
    routes = list(routes_of(options.services, channel, options.streams, stopping))
    _add_routes(gateway, routes, Dashboard(channel))
    _add_pages(gateway, routes, channel, Metrics(channel, counters, public=options.metrics_public))
    return application(gateway, origins, stopping)


def _add_routes(gateway: Gateway, routes: Sequence[Route], dashboard: Dashboard) -> None:
    for route in routes:
        endpoint: Endpoint = route.endpoint
        template = route.rule.template
        show = dashboard.views.get(route.rule.rpc.full_name)
        if template.segments[0] == PREFIX and show is not None:
            endpoint = View(route.binder, show)
        gateway.add(route.rule.method, template, endpoint, name=str(route))


def _add_pages(gateway: Gateway, routes: Sequence[Route], channel: grpc.aio.Channel, metrics: Metrics) -> None:
    health, docs = Health(channel), Docs(document(routes))
    pages = {
        "/healthz": Page(health.alive),
        "/readyz": Page(health.ready),
        "/metrics": Page(metrics.respond),
        **docs.pages(),
    }
    for path, page in pages.items():
        gateway.add("GET", parse_template(path), page, name=path)


def _render(request: web.Request, told: Problem) -> bytes:
    """Errors under the operators' view have its shape."""
    return orjson.dumps(render(told)) if is_dashboard(request) else told.encode()


def is_dashboard(request: web.Request) -> bool:
    """Whether a path lies under the operators' view."""
    return request.rel_url.raw_path.split("/")[1:2] == [PREFIX]


def _probe(channel: grpc.aio.Channel, path: str) -> Probe | None:
    if not path:
        return None
    method: MethodDescriptor = descriptor_pool.Default().FindMethodByName(path.strip("/").replace("/", "."))
    rpc, request_class = Rpc(channel, method), GetMessageClass(method.input_type)

    async def probe(request: web.Request) -> None:
        await rpc(request_class(), metadata=request_metadata(request))

    return probe
