"""The transcoder for any gRPC service: descriptors with google.api.http annotations and a channel in, an app out.

services = load_services(Path("api.binpb"))
async with grpc.aio.insecure_channel("127.0.0.1:50051", CHANNEL_OPTIONS) as channel:
    app = transcode(services, channel, options=TranscoderOptions(dialect=Dialect.PROTOJSON))
    async with serve(app, host="127.0.0.1", port=8080) as address:
        ...
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import grpc
from aiohttp import web
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import ServiceDescriptor

from jobledger_gateway.about import About, about_services
from jobledger_gateway.application import application
from jobledger_gateway.codec import Codec
from jobledger_gateway.comments import load_comments
from jobledger_gateway.descriptors import DescriptorError, load_services
from jobledger_gateway.dialect import Dialect
from jobledger_gateway.docs import Docs
from jobledger_gateway.exchange import Page
from jobledger_gateway.gateway import Gateway
from jobledger_gateway.health import Health
from jobledger_gateway.http_rule import RuleError, parse_template
from jobledger_gateway.metadata import Passing
from jobledger_gateway.metrics import Counters, Metrics
from jobledger_gateway.openapi import PAGES, document
from jobledger_gateway.origins import Origins
from jobledger_gateway.routes import Route, routes_of
from jobledger_gateway.serving import Address, serve
from jobledger_gateway.streaming import StreamSettings
from jobledger_gateway.unserved import warn_of

__all__ = [
    "CHANNEL_OPTIONS",
    "Address",
    "DescriptorError",
    "Dialect",
    "RuleError",
    "StreamSettings",
    "TranscoderOptions",
    "load_comments",
    "load_services",
    "serve",
    "transcode",
]

LARGEST_MESSAGE, LARGEST_METADATA = 64 * 1024 * 1024, 64 * 1024
# How a channel to the service is best opened. Answers may pass gRPC's own default of 4 MiB: the service bounds them.
# Past gRPC's own 8 KiB of metadata it refuses answers by chance, past 16 all: errors with details may have more.
# A service that is back is found within seconds. Pings are as rare as gRPC's own defaults demand, over five minutes
# apart; a service that is gone without a word is noticed in 20 s where something was sent to it.
CHANNEL_OPTIONS: Sequence[tuple[str, int]] = (
    ("grpc.max_receive_message_length", LARGEST_MESSAGE),
    ("grpc.max_metadata_size", LARGEST_METADATA),
    ("grpc.absolute_max_metadata_size", LARGEST_METADATA),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 5_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.keepalive_time_ms", 330_000),
    ("grpc.keepalive_timeout_ms", 20_000),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TranscoderOptions:
    """How a transcoder serves.

    Attributes:
        dialect: how messages look in JSON.
        allowed_hosts: names that the Host header may have, with a port or without; None for any.
        allowed_origins: origins of pages that may call, beside the application's own.
        max_body_bytes: largest body, inflated.
        request_headers: headers that go along as metadata, beside credentials and trace; `-bin` ones are base64.
        response_headers: initial metadata that becomes headers, beside location, etag and content-disposition.
        streams: how streams behave.
        texts: comments by full name, for the OpenAPI document; see `load_comments`.
    """

    dialect: Dialect = Dialect.PLAIN
    allowed_hosts: tuple[str, ...] | None = None
    allowed_origins: tuple[str, ...] = ()
    max_body_bytes: int = 1024 * 1024
    request_headers: tuple[str, ...] = ()
    response_headers: tuple[str, ...] = ()
    streams: StreamSettings = field(default_factory=StreamSettings)
    texts: Mapping[str, str] = field(default_factory=dict)


def transcode(
    services: Sequence[ServiceDescriptor], channel: grpc.aio.Channel, *, options: TranscoderOptions | None = None
) -> web.Application:
    """The application that answers HTTP with calls over the channel, as the annotations of the services say.

    `/healthz`, `/readyz`, `/metrics` (of the application itself), `/docs` and `/v1/openapi.json` are added, each where
    no annotation answers its path. Methods that take a stream of requests are answered for with 501, and logged.

    Raises:
        RuleError: an annotation can't be served, or two of them mean the same requests.
        ValueError: an option names a header that must not pass.
    """
    options = options or TranscoderOptions()
    stopping = asyncio.Event()
    origins = Origins(
        hosts=options.allowed_hosts,
        origins=options.allowed_origins,
        sent=options.request_headers,
        shown=options.response_headers,
    )
    pool = services[0].file.pool if services else descriptor_pool.Default()
    codec, counters = Codec(dialect=options.dialect, pool=pool), Counters()
    gateway = Gateway(
        origins=origins,
        max_body_bytes=options.max_body_bytes,
        counters=counters,
        codec=codec,
        passing=Passing(request=options.request_headers, response=options.response_headers),
    )
    routes = list(routes_of(services, channel, options.streams, stopping, codec))
    for route in routes:
        gateway.add(route.rule.method, route.rule.template, route.endpoint, name=str(route))
    warn_of(route.rule.rpc for route in routes)
    about = about_services(services, dialect=options.dialect, texts=options.texts)
    _add_pages(gateway, routes, about, Health(channel), Metrics(None, counters, public=True))
    return application(gateway, origins, stopping)


def _add_pages(gateway: Gateway, routes: Sequence[Route], about: About, health: Health, metrics: Metrics) -> None:
    """Pages at those of their paths that no annotation has, wildcards included: a service's own comes first."""
    free = {path for path in PAGES if not gateway.answers("GET", path)}
    served = [route for route in routes if not route.rule.rpc.client_streaming]
    pages = {
        "/healthz": Page(health.alive),
        "/readyz": Page(health.ready),
        "/metrics": Page(metrics.respond),
        **Docs(document(served, about, pages=free)).pages(),
    }
    for path, page in pages.items():
        if not gateway.answers("GET", path):
            gateway.add("GET", parse_template(path), page, name=path)
