"""What the audit log has of a call, and the entry of the call that runs, which is stored with what it changes."""

from contextvars import ContextVar

from google.api.annotations_pb2 import http
from google.protobuf.message import Message
from jobledger.v1.engine_service_pb2 import AUDIT_DECISION_ALLOWED, AUDIT_DECISION_DENIED, AuditDecision, AuditEntry

from jobledger_server.core.errors import Reason, ServiceError
from jobledger_server.core.policy import SERVICES

# Refusals of the caller; any other error is the call's own.
DENIALS = frozenset(
    {
        Reason.ERROR_REASON_AUTH_MISSING,
        Reason.ERROR_REASON_AUTH_MALFORMED,
        Reason.ERROR_REASON_AUTH_INVALID,
        Reason.ERROR_REASON_AUTH_TOKEN_EXPIRED,
        Reason.ERROR_REASON_AUTH_RATE_LIMITED,
        Reason.ERROR_REASON_RATE_LIMITED,
        Reason.ERROR_REASON_FORBIDDEN,
        Reason.ERROR_REASON_PATH_NOT_ALLOWED,
        Reason.ERROR_REASON_PATH_TRAVERSAL,
    }
)


class PendingEntry:
    """The entry of a call that may change something: the first write that succeeds stores it in its transaction.

    Attributes:
        entry: as it is known so far; its `object` may be told later.
    """

    __slots__ = ("_taken", "entry")

    def __init__(self, entry: AuditEntry) -> None:
        self.entry = entry
        self._taken = False

    @property
    def is_taken(self) -> bool:
        """Whether a write has it, or the call is over."""
        return self._taken

    def take(self) -> bool:
        """Whether the caller is the one to store it."""
        taken, self._taken = self._taken, True
        return not taken

    def give_back(self) -> None:
        """It was not stored: the next write may."""
        self._taken = False


_pending: ContextVar[PendingEntry | None] = ContextVar("pending_audit_entry", default=None)


def set_pending(pending: PendingEntry | None) -> None:
    """Sets the entry of the call that runs."""
    _pending.set(pending)


def take_pending() -> PendingEntry | None:
    """The entry of the call that runs, for who stores it now; None where it has none, or another write stores it."""
    pending = _pending.get()
    return pending if pending is not None and pending.take() else None


def note_object(object_id: str) -> None:
    """Says what the call that runs is about, where its request does not: a job or a token, by its id."""
    pending = _pending.get()
    if pending is not None and not pending.is_taken:
        pending.entry.object = object_id


def decision_on(error: ServiceError) -> AuditDecision.ValueType:
    return AUDIT_DECISION_DENIED if error.reason in DENIALS else AUDIT_DECISION_ALLOWED


def object_of(request: Message) -> str:
    """The job or the token that a request names; empty where it names none."""
    for name in ("job_id", "token_id"):
        if name in request.DESCRIPTOR.fields_by_name and isinstance(named := getattr(request, name), str):
            return named[:128]
    return ""


def changing_methods() -> frozenset[str]:
    """Full names of the RPCs that change something: all that are not read by GET."""
    return frozenset(
        f"/{service.full_name}/{method.name}"
        for service in SERVICES
        for method in service.methods
        if method.GetOptions().Extensions[http].WhichOneof("pattern") != "get"
    )
