"""The embedded server: `jobledger up`. What serves closes before what it uses."""

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import grpc
from jobledger_gateway.app import GatewayOptions, build_app
from jobledger_gateway.encoding import encode_json

from jobledger_server.access.throttle import FailureThrottle
from jobledger_server.access.token_file import provide_token_file
from jobledger_server.access.tokens import Authenticator
from jobledger_server.addresses import bind, bracketed, serving
from jobledger_server.api.engine_servicer import EngineServicer
from jobledger_server.api.grpc_server import Services, build_server, health_servicer, set_serving
from jobledger_server.api.inprocess import InProcessChannel
from jobledger_server.api.interceptors.access import Access
from jobledger_server.api.interceptors.base import Chain
from jobledger_server.api.interceptors.decoding import Decoding
from jobledger_server.api.interceptors.errors import Errors
from jobledger_server.api.interceptors.limits import Limits
from jobledger_server.api.interceptors.validation import Validation
from jobledger_server.api.job_servicer import JobServicer
from jobledger_server.api.receipt_servicer import ReceiptServicer
from jobledger_server.config import Settings
from jobledger_server.service.cancelling import Cancelling
from jobledger_server.service.events import EventHub
from jobledger_server.wiring.core import Core, open_core

LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedded:
    """A server that answers: where, and what `lifecycle` needs to end it well."""

    grpc_address: str
    http_url: str
    unix_path: str | None
    token_file: Path
    cancelling: Cancelling
    events: EventHub
    limits: Limits
    server: grpc.aio.Server


@asynccontextmanager
async def embedded(settings: Settings) -> AsyncIterator[Embedded]:
    """Starts the whole of `jobledger up`; when the block is left, it ends, and the jobs go on.

    Raises:
        StartError: an address is taken.
        IsolationError: this machine can't isolate jobs as the settings want it.
        PrivateFileError, KeyRingError: a file that must be private is not; the message names it.
    """
    os.umask(0o077)
    async with AsyncExitStack() as stack:
        core = await open_core(stack, settings)
        token_file = settings.data_dir / "token"
        await provide_token_file(token_file, admin=core.tokens, tokens=core.known_tokens, now=core.clock.now())
        limits = Limits()
        throttle = FailureThrottle(clock=core.clock)
        authenticator = Authenticator(tokens=core.known_tokens, clock=core.clock, throttle=throttle)
        interceptors = [Chain([Errors(), Access(authenticator=authenticator), limits, Decoding(), Validation()])]
        services = _services(core)
        server = build_server(services, interceptors)
        grpc_port, unix = bind(server, settings)
        await server.start()
        stack.push_async_callback(server.stop, grace=5)
        channel = await stack.enter_async_context(InProcessChannel(interceptors))
        services.register(cast("grpc.aio.Server", channel))
        app = build_app(cast("grpc.aio.Channel", channel), options=_gateway_options(settings))
        address = await stack.enter_async_context(serving(app, settings))
        await set_serving(services.health, serving=True)
        yield Embedded(
            grpc_address=f"{bracketed(settings.host)}:{grpc_port}",
            http_url=f"http://{bracketed(settings.host)}:{address.port}",
            unix_path=unix,
            token_file=token_file,
            cancelling=core.use_cases.cancelling,
            events=core.use_cases.events,
            limits=limits,
            server=server,
        )


def _services(core: Core) -> Services:
    return Services(
        jobs=JobServicer(core.use_cases, to_json=encode_json),
        receipts=ReceiptServicer(core.use_cases.receipts),
        engine=EngineServicer(engine=core.engine, garbage=core.garbage, tokens=core.tokens),
        health=health_servicer(),
    )


def _gateway_options(settings: Settings) -> GatewayOptions:
    return GatewayOptions(
        allowed_hosts=(*LOOPBACK, *settings.allowed_hosts),
        allowed_origins=settings.allowed_origins,
        metrics_public=settings.public_metrics,
    )
