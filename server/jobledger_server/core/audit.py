"""What the audit log has of a call, and the entry of the call that runs, which is stored with what it changes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from functools import cache

from google.api.annotations_pb2 import http
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from jobledger.v1.engine_service_pb2 import AUDIT_DECISION_ALLOWED, AUDIT_DECISION_DENIED, AuditDecision
from jobledger.v1.job_service_pb2 import CreateJobRequest

from jobledger_server.core.errors import Reason, ServiceError
from jobledger_server.core.policy import SERVICES
from jobledger_server.core.ports.audit import AuditRecord

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

# The reason of a call that was let in, did not fail and changed nothing: a dry run, or what was so already.
NO_CHANGE = "NO_CHANGE"
# These change files, too: they have an entry of their own also where they write nothing to the store.
CHANGING_FILES = frozenset({"jobledger.v1.JobService/SendInput", "jobledger.v1.EngineService/CollectGarbage"})


class PendingEntry:
    """The entry of a call that may change something: the first write that does stores it in its transaction.

    Attributes:
        entry: as it is known so far; its `object` may be told later.
        tell_hidden: is told the ids of jobs that the call names among others, and its caller may not see.
    """

    __slots__ = ("_taken", "entry", "tell_hidden")

    def __init__(self, entry: AuditRecord, tell_hidden: Callable[[AuditRecord, str], None] | None = None) -> None:
        self.entry = entry
        self.tell_hidden = tell_hidden
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


def note_hidden(object_id: str) -> None:
    """Says that the call that runs named a job, among others, which is not for its caller to see."""
    pending = _pending.get()
    if pending is not None and pending.tell_hidden is not None:
        pending.tell_hidden(pending.entry, object_id)


@contextmanager
def entry_about(object_id: str) -> Iterator[None]:
    """What is changed in this block has an entry of its own, about this object; the call then needs no other."""
    whole = _pending.get()
    if whole is None:
        yield
        return
    part = PendingEntry(replace(whole.entry, object=object_id), whole.tell_hidden)
    outer = _pending.set(part)
    try:
        yield
    finally:
        _pending.reset(outer)
        if part.is_taken:
            whole.take()
        # What goes on in the background is no part of the call.
        part.take()


def is_denial(error: ServiceError) -> bool:
    """Whether it is the caller who is refused: also by what looks to it like the absence of a job."""
    return error.hidden or error.reason in DENIALS


def decision_on(error: ServiceError) -> AuditDecision.ValueType:
    return AUDIT_DECISION_DENIED if is_denial(error) else AUDIT_DECISION_ALLOWED


def changes_files(method: str, request: Message) -> bool:
    """Whether what a call has changed may be elsewhere than in the store; `method` without the first slash."""
    return method in CHANGING_FILES and not getattr(request, "dry_run", False)


def object_of(request: Message) -> str:
    """The job or the token that a request names; empty where it names none."""
    name = _naming_field(request.DESCRIPTOR)
    return getattr(request, name)[:128] if name else ""


def base_of(request: Message) -> str:
    """The job that a request wants run again; empty where it names none."""
    return request.spec.rerun_of[:128] if isinstance(request, CreateJobRequest) else ""


@cache
def _naming_field(kind: Descriptor) -> str:
    """The field in which messages of this type name one; empty where none does."""
    for name in ("job_id", "token_id"):
        field = kind.fields_by_name.get(name)
        if field is not None and field.type == FieldDescriptor.TYPE_STRING and not field.is_repeated:
            return name
    return ""


def changing_methods() -> frozenset[str]:
    """Full names of the RPCs that change something: all that are not read by GET."""
    return frozenset(
        f"/{service.full_name}/{method.name}"
        for service in SERVICES
        for method in service.methods
        if method.GetOptions().Extensions[http].WhichOneof("pattern") != "get"
    )
