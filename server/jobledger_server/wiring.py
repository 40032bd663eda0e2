"""The embedded server, put together: the only file that names concrete classes.

Everything long-lived is an async context manager on one stack: what serves closes before what it uses.
"""

import asyncio
import os
import platform
import secrets
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

import grpc
from jobledger_gateway.app import GatewayOptions, build_app

from jobledger_server.access.admin import TokenAdmin
from jobledger_server.access.cached_tokens import CachedTokens
from jobledger_server.access.private_files import create_private, read_private
from jobledger_server.access.throttle import FailureThrottle
from jobledger_server.access.token_file import provide_token_file
from jobledger_server.access.tokens import Authenticator
from jobledger_server.addresses import bind, bracketed, serving
from jobledger_server.api.engine_servicer import EngineServicer
from jobledger_server.api.grpc_server import Services, build_server, health_servicer, set_serving
from jobledger_server.api.inprocess import InProcessChannel
from jobledger_server.api.interceptors.access import Access
from jobledger_server.api.interceptors.decoding import Decoding
from jobledger_server.api.interceptors.errors import Errors
from jobledger_server.api.interceptors.limits import Limits
from jobledger_server.api.interceptors.validation import Validation
from jobledger_server.api.job_servicer import JobServicer, JobUseCases
from jobledger_server.api.receipt_servicer import ReceiptServicer
from jobledger_server.archive.files import ReceiptArchive
from jobledger_server.blobs.files import FileBlobs
from jobledger_server.config import Settings
from jobledger_server.core.clock import SystemClock
from jobledger_server.core.concurrency import ConcurrencyLimits
from jobledger_server.core.pages import PageTokens
from jobledger_server.core.receipts import Environment
from jobledger_server.core.secret_references import AllowedSecrets
from jobledger_server.executors.local.executor import LocalExecutor
from jobledger_server.executors.local.isolation import Isolation, objection
from jobledger_server.executors.local.self_check import isolation_at
from jobledger_server.service.archiving import Archiver
from jobledger_server.service.artifacts import Artifacts
from jobledger_server.service.cancelling import Cancelling
from jobledger_server.service.collecting import Collector
from jobledger_server.service.creating import Creating
from jobledger_server.service.declaring import Declaring
from jobledger_server.service.engine import VERSION, Engine
from jobledger_server.service.events import EventHub
from jobledger_server.service.external_signer import ExternalSigner
from jobledger_server.service.finishing import Finisher
from jobledger_server.service.garbage import GarbageCollector
from jobledger_server.service.jobs import Jobs
from jobledger_server.service.listening import Listener
from jobledger_server.service.listing import Listing
from jobledger_server.service.locks import JobLocks
from jobledger_server.service.logs import Logs
from jobledger_server.service.queue_heartbeat import QueueHeart
from jobledger_server.service.receipts import Receipts
from jobledger_server.service.recovery import Recovery
from jobledger_server.service.restored import begin_new_log, is_restored, settle
from jobledger_server.service.scheduler import Scheduler
from jobledger_server.service.sealing import Sealer
from jobledger_server.service.signals import JobSignals
from jobledger_server.service.signing import KeyRing, open_ring
from jobledger_server.service.slots import Slots
from jobledger_server.service.storage import Storage
from jobledger_server.service.sweeping import Sweeper
from jobledger_server.service.workspace import Workspaces
from jobledger_server.stores.sqlite.store import SqliteStore

QUEUE_BEAT_SECONDS = 5.0
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the use cases are made of."""

    store: SqliteStore
    clock: SystemClock
    blobs: FileBlobs
    keys: KeyRing
    archiver: Archiver
    executor: LocalExecutor
    finisher: Finisher
    workspaces: Workspaces
    locks: JobLocks
    signals: JobSignals
    slots: Slots
    events: EventHub
    storage: Storage


@dataclass(frozen=True, slots=True, kw_only=True)
class Core:
    """Everything behind the doors."""

    clock: SystemClock
    use_cases: JobUseCases
    engine: Engine
    garbage: GarbageCollector
    known_tokens: CachedTokens
    tokens: TokenAdmin


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
        core = await _core(stack, settings)
        token_file = settings.data_dir / "token"
        await provide_token_file(token_file, admin=core.tokens, tokens=core.known_tokens, now=core.clock.now())
        limits = Limits()
        throttle = FailureThrottle(clock=core.clock)
        authenticator = Authenticator(tokens=core.known_tokens, clock=core.clock, throttle=throttle)
        interceptors = [Errors(), Access(authenticator=authenticator), limits, Decoding(), Validation()]
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


async def _core(stack: AsyncExitStack, settings: Settings) -> Core:
    """Opens the store, recovers what an earlier server left, and starts what works in the background."""
    isolation = await asyncio.to_thread(isolation_at, settings.isolation, settings.data_dir)
    parts = await _parts(stack, settings, isolation)
    store, clock, events, slots = parts.store, parts.clock, parts.events, parts.slots
    scheduler = Scheduler(
        store=store,
        clock=clock,
        executor=parts.executor,
        finisher=parts.finisher,
        workspaces=parts.workspaces,
        locks=parts.locks,
        signals=parts.signals,
        slots=slots,
    )
    await Recovery(store=store, executor=parts.executor, scheduler=scheduler, finisher=parts.finisher, slots=slots).run(
        restored=is_restored(settings.data_dir)
    )
    if is_restored(settings.data_dir):
        settle(settings.data_dir)
    await stack.enter_async_context(scheduler)
    engine = Engine(
        store=store, clock=clock, events=events, slots=slots, storage=parts.storage, isolation=isolation.level
    )
    events.pulse = engine.pulse
    garbage = _garbage(parts, settings)
    await stack.enter_async_context(Sweeper(garbage=garbage, storage=parts.storage))
    tokens = CachedTokens(store)
    return Core(
        clock=clock,
        use_cases=_use_cases(parts, settings, isolation),
        engine=engine,
        garbage=garbage,
        known_tokens=tokens,
        tokens=TokenAdmin(tokens=tokens, clock=clock),
    )


def _garbage(parts: Parts, settings: Settings) -> GarbageCollector:
    return GarbageCollector(
        store=parts.store,
        clock=parts.clock,
        blobs=parts.blobs,
        workspaces=parts.workspaces,
        locks=parts.locks,
        retention=settings.retention,
        storage=parts.storage,
    )


def _storage(settings: Settings, clock: SystemClock) -> Storage:
    return Storage(
        clock=clock,
        free=lambda: shutil.disk_usage(settings.data_dir).free,
        warn_free_bytes=settings.warn_free_bytes,
        min_free_bytes=settings.min_free_bytes,
    )


async def _parts(stack: AsyncExitStack, settings: Settings, isolation: Isolation) -> Parts:
    """Opens the store, and makes what starts and ends jobs."""
    data_dir, clock = settings.data_dir, SystemClock()
    store = await stack.enter_async_context(SqliteStore(data_dir / "jobledger.db"))
    blobs = FileBlobs(data_dir / "blobs")
    await asyncio.to_thread(blobs.discard_unfinished)
    workspaces = Workspaces(data_dir=data_dir, roots=settings.roots, secrets=AllowedSecrets.of(settings.secrets))
    external = ExternalSigner.of(settings.signer, settings.signer_key)
    if is_restored(data_dir):
        begin_new_log(data_dir / "keys")
    keys = await open_ring(data_dir / "keys", clock=clock, store=store, external=external)
    archive = ReceiptArchive(data_dir / "receipts")
    archiver = await stack.enter_async_context(Archiver(store=store, archive=archive, keys=keys))
    limits = ConcurrencyLimits(queues=dict(settings.queue_limits), labels=dict(settings.label_limits))
    signals, locks, slots = JobSignals(), JobLocks(), Slots(most=settings.max_running, limits=limits)
    events = await stack.enter_async_context(EventHub(store=store, clock=clock))
    await stack.enter_async_context(
        QueueHeart(store=store, clock=clock, events=events, slots=slots, interval=QUEUE_BEAT_SECONDS)
    )
    declaring = Declaring(store=store, clock=clock, locks=locks)
    listener = await stack.enter_async_context(Listener(store=store, clock=clock, signals=signals, declaring=declaring))
    executor = await stack.enter_async_context(
        LocalExecutor(data_dir=data_dir, listener=listener, clock=clock, isolation=isolation)
    )
    sealer = Sealer(keys=keys, workspaces=workspaces, environment=_environment())
    finisher = await stack.enter_async_context(
        Finisher(
            store=store,
            clock=clock,
            executor=executor,
            declaring=declaring,
            collector=Collector(blobs=blobs),
            sealer=sealer,
            workspaces=workspaces,
            locks=locks,
            signals=signals,
            slots=slots,
        )
    )
    listener.finisher = finisher
    return Parts(
        store=store,
        clock=clock,
        blobs=blobs,
        keys=keys,
        archiver=archiver,
        executor=executor,
        finisher=finisher,
        workspaces=workspaces,
        locks=locks,
        signals=signals,
        slots=slots,
        events=events,
        storage=_storage(settings, clock),
    )


def _use_cases(parts: Parts, settings: Settings, isolation: Isolation) -> JobUseCases:
    store, clock, executor, finisher = parts.store, parts.clock, parts.executor, parts.finisher
    workspaces, signals, locks, slots = parts.workspaces, parts.signals, parts.locks, parts.slots
    pages = PageTokens(_page_secret(settings.data_dir / "keys" / "pages.key"))
    return JobUseCases(
        creating=Creating(
            store=store,
            clock=clock,
            finisher=finisher,
            workspaces=workspaces,
            limits=slots.limits,
            storage=parts.storage,
            roots=settings.roots,
            objection=partial(objection, isolation),
        ),
        jobs=Jobs(store=store, clock=clock, executor=executor, workspaces=workspaces, signals=signals, locks=locks),
        listing=Listing(store=store, executor=executor, workspaces=workspaces, pages=pages),
        cancelling=Cancelling(
            store=store, clock=clock, executor=executor, finisher=finisher, locks=locks, signals=signals, slots=slots
        ),
        logs=Logs(store=store, workspaces=workspaces, signals=signals),
        artifacts=Artifacts(store=store, blobs=parts.blobs),
        receipts=Receipts(store=store, keys=parts.keys, archiver=parts.archiver),
        events=parts.events,
    )


def _page_secret(path: Path) -> bytes:
    """What page tokens are sealed with, the same after a restart."""
    secret = read_private(path)
    if secret is None:
        secret = secrets.token_bytes(32)
        create_private(path, secret)
    return secret


def _environment() -> Environment:
    """Where jobs run, for their receipts."""
    return Environment(
        engine_version=VERSION,
        os=f"{platform.system()} {platform.release()}",
        platform=platform.platform(),
        python=platform.python_version(),
        host=socket.gethostname(),
    )


def _services(core: Core) -> Services:
    return Services(
        jobs=JobServicer(core.use_cases),
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
