"""What the audit log is told of calls: of those that change something each, of others the ones that are refused.

The two halves stand at different places. `Refusals` hears of whatever is refused, from outside of `Access`. `Auditing`,
once the request is read, has the entry of a call that changes something stored with what it changes.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any

from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from jobledger.v1.engine_service_pb2 import AUDIT_DECISION_ALLOWED, AUDIT_DECISION_DENIED, AuditEntry

from jobledger_server.api.interceptors.access import current_principal, forget_principal, known_principal, peer_of
from jobledger_server.api.interceptors.base import Wrapping
from jobledger_server.api.types import Context, Stream, Unary
from jobledger_server.core.audit import (
    NO_CHANGE,
    PendingEntry,
    changes_files,
    changing_methods,
    decision_on,
    is_denial,
    object_of,
    set_pending,
)
from jobledger_server.core.errors import Reason, ServiceError, name_of
from jobledger_server.core.policy import SERVICES, Principal, is_open
from jobledger_server.service.auditing import AuditLog

REQUEST_ID = "x-request-id"
MOST_CHARACTERS = 128
JOB_NOT_FOUND = name_of(Reason.ERROR_REASON_JOB_NOT_FOUND)


class Refusals(Wrapping):
    """Tells the audit log of every caller that is refused."""

    def __init__(self, *, audit: AuditLog) -> None:
        super().__init__()
        self._audit = audit
        self._requests: Mapping[str, type[Message]] = {
            f"/{service.full_name}/{method.name}": GetMessageClass(method.input_type)
            for service in SERVICES
            for method in service.methods
        }

    def unary(self, method: str, call: Unary) -> Unary:
        async def heard(request: Any, context: Context) -> Any:
            forget_principal()
            try:
                return await call(request, context)
            except ServiceError as error:
                self._refused(method, request, context, error)
                raise

        return heard

    def stream(self, method: str, call: Stream) -> Stream:
        async def heard(request: Any, context: Context) -> AsyncIterator[Any]:
            forget_principal()
            try:
                async with aclosing(call(request, context)) as responses:  # type: ignore[type-var]
                    async for response in responses:
                        yield response
            except ServiceError as error:
                self._refused(method, request, context, error)
                raise

        return heard

    def _refused(self, method: str, request: Any, context: Context, error: ServiceError) -> None:
        principal = known_principal()
        bound = principal is not None and principal.workspaces is not None
        if not is_denial(error) and not (bound and error.reason == Reason.ERROR_REASON_JOB_NOT_FOUND):
            return
        # Methods that nobody knows have names that callers made up.
        known = method if method in self._requests else ""
        entry = _entry(_blank(known), context, principal)
        entry.decision, entry.reason = decision_on(error), name_of(error.reason)
        entry.token_id = entry.token_id or error.token_id
        if principal is not None:
            entry.object = self._object(known, request)
        self._audit.complete(entry)
        # Up to here a job that is not there takes the same work as one that is hidden.
        if is_denial(error):
            self._audit.note_failure(entry)

    def _object(self, method: str, request: Any) -> str:
        """What a request is about that nobody has read, from a caller who is known."""
        kind = self._requests.get(method)
        if kind is None or not isinstance(request, Message | bytes):
            return ""
        try:
            return object_of(kind.FromString(request) if isinstance(request, bytes) else request)
        except DecodeError:
            return ""


class Auditing(Wrapping):
    """Has each call that changes something leave an entry before it is answered, and others where that is wanted."""

    def __init__(self, *, audit: AuditLog) -> None:
        super().__init__()
        self._audit = audit
        self._changing = changing_methods()

    def unary(self, method: str, call: Unary) -> Unary:
        if method in self._changing:
            return self._kept(method, call)
        if not self._audit.reads or is_open(method):
            return call

        blank = _blank(method)

        async def noted(request: Any, context: Context) -> Any:
            entry = self._audit.complete(_allowed(blank, request, context))
            try:
                return await call(request, context)
            except ServiceError as error:
                entry.decision, entry.reason = decision_on(error), name_of(error.reason)
                raise
            finally:
                # A refusal is told by `Refusals`.
                if entry.decision == AUDIT_DECISION_ALLOWED:
                    self._audit.note(entry)

        return noted

    def stream(self, method: str, call: Stream) -> Stream:
        if not self._audit.reads or is_open(method):
            return call

        blank = _blank(method)

        async def noted(request: Any, context: Context) -> AsyncIterator[Any]:
            self._audit.note(_allowed(blank, request, context))
            async with aclosing(call(request, context)) as responses:  # type: ignore[type-var]
                async for response in responses:
                    yield response

        return noted

    def _kept(self, method: str, call: Unary) -> Unary:
        blank = _blank(method)

        async def kept(request: Any, context: Context) -> Any:
            pending = PendingEntry(self._audit.complete(_allowed(blank, request, context)))
            set_pending(pending)
            try:
                answer = await call(request, context)
            except Exception as error:
                self._failed(pending, error)
                raise
            finally:
                set_pending(None)
            await self._done(pending, request)
            return answer

        return kept

    async def _done(self, pending: PendingEntry, request: Any) -> None:
        """Of a call that has changed nothing it is enough to count it: it may come in a loop, too."""
        for job_id in pending.hidden:
            hidden = AuditEntry()
            hidden.CopyFrom(pending.entry)
            hidden.object, hidden.decision, hidden.reason = job_id, AUDIT_DECISION_DENIED, JOB_NOT_FOUND
            self._audit.note_failure(hidden)
        if not pending.take():
            self._audit.follow()
        elif changes_files(pending.entry.method, request):
            await self._audit.keep(pending.entry)
            self._audit.follow()
        else:
            pending.entry.reason = NO_CHANGE
            self._audit.note_failure(pending.entry)

    def _failed(self, pending: PendingEntry, error: Exception) -> None:
        """A refusal is told by `Refusals`; of what failed after a write, that write has the entry."""
        if not pending.take() or (isinstance(error, ServiceError) and is_denial(error)):
            return
        pending.entry.reason = name_of(error.reason) if isinstance(error, ServiceError) else "INTERNAL"
        self._audit.note_failure(pending.entry)


def _blank(method: str) -> AuditEntry:
    """What all entries of a method have alike, made once: field by field it takes twice as long as a copy."""
    return AuditEntry(method=method[1:], decision=AUDIT_DECISION_ALLOWED, count=1)


def _allowed(blank: AuditEntry, request: Any, context: Context) -> AuditEntry:
    entry = _entry(blank, context, current_principal())
    if isinstance(request, Message) and (named := object_of(request)):
        entry.object = named
    return entry


def _entry(blank: AuditEntry, context: Context, principal: Principal | None) -> AuditEntry:
    entry = AuditEntry()
    entry.CopyFrom(blank)
    entry.peer = peer_of(context)
    if principal is not None:
        entry.token_id, entry.subject = principal.token_id, principal.subject
    for key, value in context.invocation_metadata() or ():
        if key == REQUEST_ID and isinstance(value, str):
            entry.request_id = value[:MOST_CHARACTERS]
    return entry
