"""Makes what starts and ends jobs on this machine."""

import platform
import socket
from contextlib import AsyncExitStack
from dataclasses import dataclass

from jobledger_server.config import Settings
from jobledger_server.core.concurrency import ConcurrencyLimits
from jobledger_server.core.receipts import Environment
from jobledger_server.executors.local.executor import LocalExecutor
from jobledger_server.executors.local.isolation import Isolation
from jobledger_server.service.collecting import Collector
from jobledger_server.service.declaring import Declaring
from jobledger_server.service.engine import VERSION
from jobledger_server.service.events import EventHub
from jobledger_server.service.finishing import Finisher
from jobledger_server.service.listening import Listener
from jobledger_server.service.locks import JobLocks
from jobledger_server.service.queue_heartbeat import QueueHeart
from jobledger_server.service.sealing import Sealer
from jobledger_server.service.signals import JobSignals
from jobledger_server.service.slots import Slots
from jobledger_server.wiring.ledger import Ledger

QUEUE_BEAT_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Supervision:
    """What starts jobs and ends them, and tells of it."""

    executor: LocalExecutor
    isolation: Isolation
    finisher: Finisher
    locks: JobLocks
    signals: JobSignals
    slots: Slots
    events: EventHub


async def start_supervision(
    stack: AsyncExitStack, settings: Settings, ledger: Ledger, isolation: Isolation
) -> Supervision:
    """Makes what starts and ends jobs; it stops with the stack, and the jobs go on."""
    store, clock = ledger.store, ledger.clock
    limits = ConcurrencyLimits(queues=dict(settings.queue_limits), labels=dict(settings.label_limits))
    signals, locks, slots = JobSignals(), JobLocks(), Slots(most=settings.max_running, limits=limits)
    events = await stack.enter_async_context(EventHub(store=store, clock=clock))
    heart = QueueHeart(store=store, clock=clock, events=events, slots=slots, interval=QUEUE_BEAT_SECONDS)
    await stack.enter_async_context(heart)
    declaring = Declaring(store=store, clock=clock, locks=locks)
    listener = await stack.enter_async_context(Listener(store=store, clock=clock, signals=signals, declaring=declaring))
    executor = await stack.enter_async_context(
        LocalExecutor(data_dir=settings.data_dir, listener=listener, clock=clock, isolation=isolation)
    )
    finisher = Finisher(
        store=store,
        clock=clock,
        executor=executor,
        declaring=declaring,
        collector=Collector(blobs=ledger.blobs),
        sealer=Sealer(keys=ledger.keys, environment=_environment()),
        workspaces=ledger.workspaces,
        locks=locks,
        signals=signals,
        slots=slots,
    )
    listener.finisher = await stack.enter_async_context(finisher)
    return Supervision(
        executor=executor,
        isolation=isolation,
        finisher=finisher,
        locks=locks,
        signals=signals,
        slots=slots,
        events=events,
    )


def _environment() -> Environment:
    """Where jobs run, for their receipts."""
    return Environment(
        engine_version=VERSION,
        os=f"{platform.system()} {platform.release()}",
        platform=platform.platform(),
        python=platform.python_version(),
        host=socket.gethostname(),
    )
