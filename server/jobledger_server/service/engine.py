"""How the engine is."""

from collections.abc import Collection
from importlib.metadata import version

from jobledger.v1.engine_service_pb2 import EngineStatus
from jobledger.v1.events_pb2 import EngineHeartbeat
from jobledger.v1.job_pb2 import JOB_STATE_QUEUED

from jobledger_server.core.ports import Clock, Store
from jobledger_server.core.states import ACTIVE, short_name
from jobledger_server.core.times import timestamp
from jobledger_server.service.damage import Damage
from jobledger_server.service.events import EventHub
from jobledger_server.service.overdue import Overdue
from jobledger_server.service.signing import KeyRing
from jobledger_server.service.slots import Slots
from jobledger_server.service.storage import Storage

NAME = "jobledger"
VERSION = version(NAME)


class Engine:
    """Status, and the heartbeat of the event stream."""

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        events: EventHub,
        slots: Slots,
        storage: Storage,
        damage: Damage,
        keys: KeyRing,
        overdue: Overdue,
        isolation: str,
    ) -> None:
        self._store = store
        self._clock = clock
        self._events = events
        self._slots = slots
        self._storage = storage
        self._keys = keys
        self._overdue = overdue
        self._damage = damage
        self._isolation = isolation
        self._started = clock.monotonic()

    async def status(self, workspaces: Collection[str] | None = None) -> EngineStatus:
        """How the engine is, with counts of the jobs in these workspaces (None: in all)."""
        counts = await self._store.count_by_state(None if workspaces is None else sorted(workspaces))
        bounds = await self._store.event_bounds()
        return EngineStatus(
            name=NAME,
            version=VERSION,
            health=await self._health(),
            uptime_ms=self._uptime_ms(),
            active_jobs=sum(counts.get(state, 0) for state in ACTIVE),
            queue_depth=counts.get(JOB_STATE_QUEUED, 0),
            max_running=self._slots.most,
            jobs_by_state={short_name(state): count for state, count in counts.items()},
            last_sequence_number=bounds.last,
            first_sequence_number=bounds.first if bounds.first <= bounds.last else 0,
            open_streams=self._events.watchers,
            isolation=self._isolation,
            free_bytes=await self._storage.free_bytes(),
            swept_at=None if self._storage.swept_at is None else timestamp(self._storage.swept_at),
            # What all jobs take together tells of those that the caller does not see.
            storage_bytes=self._storage.bytes_of if workspaces is None else None,
            collected=self._storage.collected if workspaces is None else None,
            waiting_ends=len(self._overdue) if workspaces is None else 0,
            artifacts_quarantined=self._damage.artifacts if workspaces is None else 0,
            archive_checked_at=None
            if (checked_at := self._damage.archive_checked_at) is None
            else timestamp(checked_at),
            archive_damage=self._damage.archive or None,
        )

    async def pulse(self) -> EngineHeartbeat:
        status = await self.status()
        return EngineHeartbeat(
            uptime_ms=status.uptime_ms,
            health=status.health,
            active_jobs=status.active_jobs,
            queue_depth=status.queue_depth,
        )

    async def _health(self) -> str:
        if trouble := self._store.trouble:
            return f"the store can't write: {trouble}"
        if trouble := self._overdue.trouble:
            return trouble
        if trouble := self._keys.trouble:
            return f"receipts can't be signed just now: {trouble}"
        if damage := self._damage.archive:
            return f"the archive of receipts is damaged: {damage}"
        return await self._storage.trouble() or "ok"

    def _uptime_ms(self) -> int:
        return round((self._clock.monotonic() - self._started) * 1000)
