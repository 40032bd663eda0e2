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

from jobledger_server.access.rates import RequestRates
from jobledger_server.access.server_tls import ServerTls
from jobledger_server.access.throttle import FailureThrottle
from jobledger_server.access.token_file import provide_token_file
from jobledger_server.access.tokens import Authenticator
from jobledger_server.addresses import bind, reachable, serving
from jobledger_server.api.engine_servicer import EngineServicer
from jobledger_server.api.grpc_server import Services, build_server, health_servicer, set_serving
from jobledger_server.api.inprocess import InProcessChannel
from jobledger_server.api.interceptors.access import Access
from jobledger_server.api.interceptors.auditing import Auditing, Refusals
from jobledger_server.api.interceptors.base import Chain
from jobledger_server.api.interceptors.decoding import Decoding
from jobledger_server.api.interceptors.errors import Errors
from jobledger_server.api.interceptors.limits import Limits
from jobledger_server.api.interceptors.tenure import Tenure
from jobledger_server.api.interceptors.validation import Validation
from jobledger_server.api.job_servicer import JobServicer
from jobledger_server.api.receipt_servicer import ReceiptServicer
from jobledger_server.config import LOOPBACK, Settings
from jobledger_server.core.changes import settled
from jobledger_server.service.cancelling import Cancelling
from jobledger_server.service.events import EventHub
from jobledger_server.service.tls_watch import TlsWatch
from jobledger_server.wiring.core import Core, open_core
from jobledger_server.wiring.oidc import open_oidc
from jobledger_server.wiring.tls import client_certificates, open_tls


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedded:
    """A server that answers: where, and what `lifecycle` needs to end it well."""

    grpc_address: str
    http_url: str
    unix_path: str | None
    http_unix_path: str | None
    tls: TlsWatch | None
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
        TlsFileError: a file of TLS can't be used.
        IsolationError: this machine can't isolate jobs as the settings want it.
        PrivateFileError, KeyRingError: a file that must be private is not; the message names it.
    """
    os.umask(0o077)
    async with AsyncExitStack() as stack:
        watch = await open_tls(stack, settings)
        tls = None if watch is None else watch.tls
        core = await open_core(stack, settings)
        # Once the doors are shut, and before the store is.
        stack.push_async_callback(settled)
        token_file = settings.data_dir / "token"
        await provide_token_file(token_file, admin=core.tokens, tokens=core.known_tokens, now=core.clock.now())
        limits = Limits(token_calls=settings.token_calls)
        throttle = FailureThrottle(clock=core.clock)
        jwts = open_oidc(stack, settings.oidc, clock=core.clock, throttle=throttle)
        authenticator = Authenticator(tokens=core.known_tokens, clock=core.clock, throttle=throttle, jwts=jwts)
        access = Access(
            authenticator=authenticator,
            certificates=client_certificates(settings, core.clock),
            rates=RequestRates(clock=core.clock, rate=settings.token_rate, burst=settings.token_burst),
        )
        who = [Refusals(audit=core.audit), access, Tenure(live=core.live_calls)]
        interceptors = [Chain([Errors(), *who, limits, Decoding(), Auditing(audit=core.audit), Validation()])]
        services = _services(core)
        server = build_server(services, interceptors)
        grpc_address = bind(server, settings, tls)
        await server.start()
        stack.push_async_callback(server.stop, grace=5)
        channel = await stack.enter_async_context(InProcessChannel(interceptors))
        services.register(cast("grpc.aio.Server", channel))
        app = build_app(cast("grpc.aio.Channel", channel), options=_gateway_options(settings, tls))
        address = await stack.enter_async_context(serving(app, settings, tls))
        await set_serving(services.health, serving=True)
        yield Embedded(
            grpc_address=f"{reachable(settings.host)}:{grpc_address.port}",
            http_url=f"{'http' if tls is None else 'https'}://{reachable(settings.host)}:{address.port}",
            unix_path=grpc_address.unix_path,
            http_unix_path=None if address.unix_path is None else str(address.unix_path),
            tls=watch,
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
        engine=EngineServicer(engine=core.engine, garbage=core.garbage, tokens=core.tokens, audit=core.audit),
        health=health_servicer(),
    )


def _gateway_options(settings: Settings, tls: ServerTls | None) -> GatewayOptions:
    certified = () if tls is None else tls.material.names
    return GatewayOptions(
        allowed_hosts=(*LOOPBACK, settings.host, *certified, *settings.allowed_hosts),
        allowed_origins=settings.allowed_origins,
        metrics_public=settings.public_metrics,
    )
