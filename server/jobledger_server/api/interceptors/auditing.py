"""What the audit log is told of calls: of those that change something each, of others the ones that are refused.

The two halves stand at different places. `Refusals` hears of whatever is refused, from outside of `Access`. `Auditing`,
once the request is read, has the entry of a call that changes something stored with what it changes.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from jobledger.v1.engine_service_pb2 import AUDIT_DECISION_ALLOWED, AUDIT_DECISION_DENIED

from jobledger_server.api.interceptors.access import current_principal, forget_principal, known_principal, peer_of
from jobledger_server.api.interceptors.base import Wrapping
from jobledger_server.api.types import Context, Stream, Unary
from jobledger_server.core.audit import (
    NO_CHANGE,
    PendingEntry,
    base_of,
    changes_files,
    changing_methods,
    decision_on,
    is_denial,
    object_of,
    set_pending,
)
from jobledger_server.core.errors import Reason, ServiceError, name_of
from jobledger_server.core.policy import SERVICES, Principal, is_open
from jobledger_server.core.ports import AuditRecord
from jobledger_server.service.auditing import AuditLog

REQUEST_ID = "x-request-id"
MOST_CHARACTERS = 128
# The stream whose request may name jobs of others and is let in all the same.
WATCH = "/jobledger.v1.JobService/WatchEvents"
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
        entry = _entry(known, context, principal)
        entry.decision, entry.reason = decision_on(error), name_of(error.reason)
        entry.token_id = entry.token_id or error.token_id
        entry.subject = entry.subject or error.subject
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
            message = kind.FromString(request) if isinstance(request, bytes) else request
            return object_of(message) or base_of(message)
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

        async def noted(request: Any, context: Context) -> Any:
            entry = self._audit.complete(_allowed(method, request, context))
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
        if method == WATCH:
            call = self._watch(method, call)
        if not self._audit.reads or is_open(method):
            return call

        async def noted(request: Any, context: Context) -> AsyncIterator[Any]:
            self._audit.note(_allowed(method, request, context))
            async with aclosing(call(request, context)) as responses:  # type: ignore[type-var]
                async for response in responses:
                    yield response

        return noted

    def _watch(self, method: str, call: Stream) -> Stream:
        def watch(request: Any, context: Context) -> AsyncIterator[Any]:
            pending = PendingEntry(self._audit.complete(_entry(method, context, current_principal())), self._hidden)
            # It changes nothing.
            pending.take()
            set_pending(pending)
            return call(request, context)

        return watch

    def _kept(self, method: str, call: Unary) -> Unary:
        async def kept(request: Any, context: Context) -> Any:
            pending = PendingEntry(self._audit.complete(_allowed(method, request, context)), self._hidden)
            set_pending(pending)
            try:
                answer = await call(request, context)
            except Exception as error:
                self._failed(pending, error)
                raise
            finally:
                set_pending(None)
            if pending.take():
                await self._not_stored(pending.entry, request)
            else:
                self._audit.follow()
            return answer

        return kept

    def _hidden(self, entry: AuditRecord, job_id: str) -> None:
        denied = replace(entry, object=job_id)
        denied.decision, denied.reason = AUDIT_DECISION_DENIED, JOB_NOT_FOUND
        self._audit.note_failure(denied)

    async def _not_stored(self, entry: AuditRecord, request: Any) -> None:
        """Of a call that has changed nothing it is enough to count it: it may come in a loop, too."""
        if changes_files(entry.method, request):
            await self._audit.keep(entry)
            self._audit.follow()
        else:
            entry.reason = NO_CHANGE
            self._audit.note_failure(entry)

    def _failed(self, pending: PendingEntry, error: Exception) -> None:
        """A refusal is told by `Refusals`; of what failed after a write, that write has the entry."""
        if not pending.take() or (isinstance(error, ServiceError) and is_denial(error)):
            return
        pending.entry.reason = name_of(error.reason) if isinstance(error, ServiceError) else "INTERNAL"
        self._audit.note_failure(pending.entry)


def _allowed(method: str, request: Any, context: Context) -> AuditRecord:
    entry = _entry(method, context, current_principal())
    if isinstance(request, Message):
        entry.object = object_of(request)
    return entry


def _entry(method: str, context: Context, principal: Principal | None) -> AuditRecord:
    return AuditRecord(
        method=method[1:],
        peer=peer_of(context),
        token_id="" if principal is None else principal.token_id,
        subject="" if principal is None else principal.subject,
        request_id=_request_id(context),
    )


def _request_id(context: Context) -> str:
    """The one that the caller sent; empty where it sent none."""
    sent = ""
    for key, value in context.invocation_metadata() or ():
        if key == REQUEST_ID and isinstance(value, str):
            # What is no character can't be stored.
            sent = value[:MOST_CHARACTERS].encode(errors="replace").decode()
    return sent
