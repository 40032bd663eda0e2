"""Audit entries that repeat: the first of a kind is told at once, the others within a minute as one with their number.

So whoever fails again and again, a thousand times a second or from a thousand addresses, adds a few entries a minute.
"""

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from jobledger.v1.engine_service_pb2 import AuditDecision

from jobledger_server.core.ports import AuditRecord, Clock

WINDOW_SECONDS = 60.0
# Kinds within a window: of strangers, and of callers who are known. What is beyond them is one kind more, of nobody.
MOST_STRANGERS, MOST_KNOWN = 32, 256

# Kinds that are told apart by what they are about: so many of one caller and method, while there is room for others.
MOST_OBJECTS, MOST_WITH_OBJECTS = 16, MOST_KNOWN // 2


class Kind(NamedTuple):
    """What entries that count as alike have in common, by their fields."""

    token_id: str
    subject: str
    method: str
    object: str
    decision: AuditDecision.ValueType
    reason: str
    peer: str


class Repeated:
    """Counts entries by who, what, whence and why, and by what they are about up to a bound. True while it counts."""

    def __init__(self, *, clock: Clock, window: float = WINDOW_SECONDS) -> None:
        self.window = window
        self._clock = clock
        self._began = 0.0
        self._kinds: dict[Kind, AuditRecord | None] = {}
        self._sizes = {True: 0, False: 0}
        self._objects: Counter[Kind] = Counter()

    def __bool__(self) -> bool:
        return bool(self._kinds)

    def is_first(self, entry: AuditRecord) -> bool:
        """Whether the entry is to be told by itself; else it is counted."""
        if not self._kinds:
            self._began = self._clock.monotonic()
        kind = self._kind_of(entry)
        if kind not in self._kinds:
            self._kinds[kind] = None
            self._sizes[bool(entry.token_id)] += 1
            return True
        counted = self._kinds[kind]
        if counted is None:
            counted = self._kinds[kind] = _of_kind(entry, kind)
        counted.count += 1
        return False

    def due(self) -> Iterator[AuditRecord]:
        """What was counted, once the window is over; then a new one begins."""
        over = self._kinds and self._clock.monotonic() - self._began >= self.window
        return self.all() if over else iter(())

    def all(self) -> Iterator[AuditRecord]:
        """What was counted so far."""
        counted = [entry for entry in self._kinds.values() if entry is not None]
        self._kinds, self._sizes = {}, {True: 0, False: 0}
        self._objects.clear()
        return iter(counted)

    def _kind_of(self, entry: AuditRecord) -> Kind:
        kind = Kind(entry.token_id, entry.subject, entry.method, "", entry.decision, entry.reason, entry.peer)
        if entry.token_id and entry.object and (about := self._about(kind, entry.object)):
            return about
        most = MOST_KNOWN if entry.token_id else MOST_STRANGERS
        if kind in self._kinds or self._sizes[bool(entry.token_id)] < most:
            return kind
        # A token that fails in many ways is still told by its id.
        known = entry.token_id if self._sizes[True] < 2 * MOST_KNOWN else ""
        return Kind(known, "", "", "", entry.decision, entry.reason, "")

    def _about(self, kind: Kind, about: str) -> Kind | None:
        """The kind with what the entry is about; None where there are too many of those."""
        whole = kind._replace(object=about)
        if whole in self._kinds:
            return whole
        if self._objects[kind] >= MOST_OBJECTS or self._sizes[True] >= MOST_WITH_OBJECTS:
            return None
        self._objects[kind] += 1
        return whole


def _of_kind(entry: AuditRecord, kind: Kind) -> AuditRecord:
    return AuditRecord(at=entry.at, request_id=entry.request_id, count=0, **kind._asdict())
