"""Audit entries that repeat: the first of a kind is told at once, the others within a minute as one with their number.

So whoever fails again and again, a thousand times a second or from a thousand addresses, adds a few entries a minute.
"""

from collections.abc import Iterator
from typing import TypeAlias

from jobledger.v1.engine_service_pb2 import AuditEntry

from jobledger_server.core.ports import Clock

WINDOW_SECONDS = 60.0
# Kinds within a window: of strangers, and of callers who are known. What is beyond them is one kind more, of nobody.
MOST_STRANGERS, MOST_KNOWN = 32, 256

Kind: TypeAlias = tuple[str, ...]


class Repeated:
    """Counts entries by who, what, whence and why. True while it counts some."""

    def __init__(self, *, clock: Clock, window: float = WINDOW_SECONDS) -> None:
        self.window = window
        self._clock = clock
        self._began = 0.0
        self._kinds: dict[Kind, AuditEntry | None] = {}
        self._sizes = {True: 0, False: 0}

    def __bool__(self) -> bool:
        return bool(self._kinds)

    def is_first(self, entry: AuditEntry) -> bool:
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

    def due(self) -> Iterator[AuditEntry]:
        """What was counted, once the window is over; then a new one begins."""
        over = self._kinds and self._clock.monotonic() - self._began >= self.window
        return self.all() if over else iter(())

    def all(self) -> Iterator[AuditEntry]:
        """What was counted so far."""
        counted = [entry for entry in self._kinds.values() if entry is not None]
        self._kinds, self._sizes = {}, {True: 0, False: 0}
        return iter(counted)

    def _kind_of(self, entry: AuditEntry) -> Kind:
        kind = (entry.token_id, entry.subject, entry.method, entry.reason, entry.peer)
        most = MOST_KNOWN if entry.token_id else MOST_STRANGERS
        if kind in self._kinds or self._sizes[bool(entry.token_id)] < most:
            return kind
        # A token that fails in many ways is still told by its id.
        return (entry.token_id if self._sizes[True] < 2 * MOST_KNOWN else "", "", "", entry.reason, "")


def _of_kind(entry: AuditEntry, kind: Kind) -> AuditEntry:
    token_id, subject, method, reason, peer = kind
    return AuditEntry(
        at=entry.at,
        token_id=token_id,
        subject=subject,
        method=method,
        reason=reason,
        peer=peer,
        decision=entry.decision,
        request_id=entry.request_id,
    )
