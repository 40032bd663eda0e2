"""Everything behind the doors, put together."""

import asyncio
import secrets
import shutil
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from jobledger_server.access.admin import TokenAdmin
from jobledger_server.access.audit_file import AuditFile
from jobledger_server.access.cached_tokens import CachedTokens
from jobledger_server.access.live_calls import LiveCalls
from jobledger_server.access.private_files import create_private, read_private
from jobledger_server.api.job_servicer import JobUseCases
from jobledger_server.config import Settings
from jobledger_server.core.clock import SystemClock
from jobledger_server.core.pages import PageTokens
from jobledger_server.executors.local.isolation import objection
from jobledger_server.executors.local.self_check import isolation_at
from jobledger_server.service.artifacts import Artifacts
from jobledger_server.service.auditing import AuditLog
from jobledger_server.service.cancelling import Cancelling
from jobledger_server.service.creating import Creating
from jobledger_server.service.engine import Engine
from jobledger_server.service.garbage import GarbageCollector
from jobledger_server.service.jobs import Jobs
from jobledger_server.service.listing import Listing
from jobledger_server.service.logs import Logs
from jobledger_server.service.receipts import Receipts
from jobledger_server.service.recovery import Recovery
from jobledger_server.service.restored import is_restored, settle
from jobledger_server.service.scheduler import Scheduler
from jobledger_server.service.storage import Storage
from jobledger_server.service.sweeping import Sweeper
from jobledger_server.service.token_watch import TokenWatch
from jobledger_server.wiring.ledger import Ledger, open_ledger
from jobledger_server.wiring.supervision import Supervision, start_supervision


@dataclass(frozen=True, slots=True, kw_only=True)
class Core:
    """Everything behind the doors."""

    clock: SystemClock
    use_cases: JobUseCases
    engine: Engine
    garbage: GarbageCollector
    known_tokens: CachedTokens
    tokens: TokenAdmin
    audit: AuditLog
    live_calls: LiveCalls


async def open_core(stack: AsyncExitStack, settings: Settings) -> Core:
    """Opens the ledger, recovers what an earlier server left, and starts what works in the background."""
    isolation = await asyncio.to_thread(isolation_at, settings.isolation, settings.data_dir)
    ledger = await open_ledger(stack, settings)
    supervision = await start_supervision(stack, settings, ledger, isolation)
    await _start_jobs(stack, settings, ledger, supervision)
    storage = Storage(
        clock=ledger.clock,
        free=lambda: shutil.disk_usage(settings.data_dir).free,
        warn_free_bytes=settings.warn_free_bytes,
        min_free_bytes=settings.min_free_bytes,
    )
    garbage = _garbage(settings, ledger, supervision, storage)
    await stack.enter_async_context(Sweeper(garbage=garbage, storage=storage))
    tokens = CachedTokens(ledger.store)
    live_calls = LiveCalls(tokens=tokens, clock=ledger.clock, most_streams=settings.token_streams)
    tokens.on_change(live_calls.token_changed)
    await stack.enter_async_context(TokenWatch(live_calls))
    return Core(
        clock=ledger.clock,
        use_cases=_use_cases(settings, ledger, supervision, storage, live_calls),
        engine=_engine(ledger, supervision, storage),
        garbage=garbage,
        known_tokens=tokens,
        tokens=TokenAdmin(tokens=tokens, clock=ledger.clock),
        audit=await stack.enter_async_context(_audit_log(settings, ledger)),
        live_calls=live_calls,
    )


async def _start_jobs(stack: AsyncExitStack, settings: Settings, ledger: Ledger, supervision: Supervision) -> None:
    """Finishes, adopts or ends what an earlier server left; then what waits is started."""
    store, executor, finisher, slots = ledger.store, supervision.executor, supervision.finisher, supervision.slots
    scheduler = Scheduler(
        store=store,
        clock=ledger.clock,
        executor=executor,
        finisher=finisher,
        workspaces=ledger.workspaces,
        locks=supervision.locks,
        signals=supervision.signals,
        slots=slots,
    )
    restored = is_restored(settings.data_dir)
    recovery = Recovery(store=store, executor=executor, scheduler=scheduler, finisher=finisher, slots=slots)
    await recovery.run(restored=restored)
    if restored:
        settle(settings.data_dir)
    await stack.enter_async_context(scheduler)


def _audit_log(settings: Settings, ledger: Ledger) -> AuditLog:
    return AuditLog(
        store=ledger.store,
        clock=ledger.clock,
        pages=PageTokens(_page_secret(settings.data_dir / "keys" / "pages.key")),
        copy=AuditFile(settings.data_dir / "audit"),
        reads=settings.audit_reads,
    )


def _engine(ledger: Ledger, supervision: Supervision, storage: Storage) -> Engine:
    events = supervision.events
    engine = Engine(
        store=ledger.store,
        clock=ledger.clock,
        events=events,
        slots=supervision.slots,
        storage=storage,
        damage=ledger.damage,
        keys=ledger.keys,
        overdue=supervision.finisher.overdue,
        isolation=supervision.isolation.level,
    )
    events.pulse = engine.pulse
    return engine


def _garbage(settings: Settings, ledger: Ledger, supervision: Supervision, storage: Storage) -> GarbageCollector:
    return GarbageCollector(
        store=ledger.store,
        clock=ledger.clock,
        blobs=ledger.blobs,
        workspaces=ledger.workspaces,
        locks=supervision.locks,
        retention=settings.retention,
        storage=storage,
        deletions=ledger.archiver,
    )


def _use_cases(
    settings: Settings, ledger: Ledger, supervision: Supervision, storage: Storage, live: LiveCalls
) -> JobUseCases:
    store, clock, workspaces = ledger.store, ledger.clock, ledger.workspaces
    executor, finisher, slots = supervision.executor, supervision.finisher, supervision.slots
    signals, locks = supervision.signals, supervision.locks
    pages = PageTokens(_page_secret(settings.data_dir / "keys" / "pages.key"))
    return JobUseCases(
        creating=Creating(
            store=store,
            clock=clock,
            finisher=finisher,
            workspaces=workspaces,
            limits=slots.limits,
            storage=storage,
            roots=settings.roots,
            job_types=settings.job_types,
            objection=partial(objection, supervision.isolation),
        ),
        job_types=settings.job_types,
        jobs=Jobs(
            store=store,
            clock=clock,
            executor=executor,
            workspaces=workspaces,
            signals=signals,
            locks=locks,
            deletions=ledger.archiver,
            storage=storage,
        ),
        listing=Listing(store=store, executor=executor, workspaces=workspaces, pages=pages),
        cancelling=Cancelling(
            store=store,
            clock=clock,
            executor=executor,
            finisher=finisher,
            locks=locks,
            signals=signals,
            slots=slots,
            live=live,
        ),
        logs=Logs(store=store, workspaces=workspaces, signals=signals),
        artifacts=Artifacts(store=store, clock=clock, blobs=ledger.blobs, damage=ledger.damage),
        receipts=Receipts(store=store, keys=ledger.keys, archiver=ledger.archiver),
        events=supervision.events,
    )


def _page_secret(path: Path) -> bytes:
    """What page tokens are sealed with, the same after a restart."""
    secret = read_private(path)
    if secret is None:
        secret = secrets.token_bytes(32)
        create_private(path, secret)
    return secret
