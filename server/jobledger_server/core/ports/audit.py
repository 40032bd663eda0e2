"""The audit log as it is stored. Entries are numbered from 1 on, and never changed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from jobledger.v1.engine_service_pb2 import AUDIT_DECISION_ALLOWED, AuditDecision, AuditEntry


@dataclass(slots=True, kw_only=True)
class AuditRecord:
    """An entry until it is stored: an AuditEntry without its number, and in a form that is quick to make.

    Attributes:
        at: microseconds since the epoch; 0 until it is told.
    """

    at: int = 0
    token_id: str = ""
    subject: str = ""
    method: str = ""
    object: str = ""
    decision: AuditDecision.ValueType = AUDIT_DECISION_ALLOWED
    reason: str = ""
    peer: str = ""
    request_id: str = ""
    count: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditFilter:
    """Which entries; None: any."""

    since: int | None = None
    token_id: str | None = None
    object: str | None = None


class AuditStore(Protocol):
    """The audit log.

    A write of any other kind that a call makes, and that changes something, stores the entry which is pending for that
    call (`core.audit`) in the same transaction.
    """

    async def append_audit(self, entries: Sequence[AuditRecord]) -> None:
        """Stores the entries, each with the next number."""

    async def audit_before(self, before: int | None, where: AuditFilter, *, limit: int) -> Sequence[AuditEntry]:
        """Up to `limit` entries with a number < before, highest first; None: from the last one on."""

    async def audit_after(self, after: int, where: AuditFilter, *, limit: int) -> Sequence[AuditEntry]:
        """Up to `limit` entries with a number > after, lowest first."""

    async def count_audit(self, before: int) -> int:
        """How many entries from the first one on are of a time before this instant."""

    async def drop_audit(self, before: int, *, limit: int) -> int:
        """Deletes up to `limit` of those. Returns how many."""
