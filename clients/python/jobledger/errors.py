"""What a call can end with, other than an answer.

    JobledgerError
    ├── SetupError               no server, no token, or an unsafe connection: nothing was sent
    ├── AuthenticationError      E_AUTH_MISSING, E_AUTH_MALFORMED, E_AUTH_INVALID, E_AUTH_TOKEN_EXPIRED
    ├── PermissionDeniedError    E_FORBIDDEN, E_PATH_NOT_ALLOWED, E_PATH_TRAVERSAL
    ├── ValidationError          E_VALIDATION and others of the request itself; has `fields`
    ├── NotFoundError            E_JOB_NOT_FOUND, E_ARTIFACT_NOT_FOUND, E_RECEIPT_NOT_READY, ...
    ├── ConflictError            E_JOB_ALREADY_FINISHED, E_JOB_NOT_FINISHED, E_IDEMPOTENCY_CONFLICT, ...
    ├── OutOfRangeError          E_STREAM_GAP_TOO_LARGE, E_RANGE_NOT_SATISFIABLE
    ├── DataLossError            E_ARTIFACT_QUARANTINED, E_LOG_DAMAGED, or bytes that do not match their hash
    ├── RateLimitedError         E_RATE_LIMITED, E_AUTH_RATE_LIMITED, E_OVERLOADED
    ├── UnavailableError         E_ENGINE_STARTING, E_ENGINE_SAFE_MODE, ..., or the server can't be reached
    ├── DeadlineError            E_DEADLINE: the call may have taken effect (a TimeoutError too)
    ├── UnsupportedError         E_UNIMPLEMENTED
    └── InternalError            E_INTERNAL

Each has `error_code` (a code of the server's registry), `message`, `details` and `retry_after`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from grpc import StatusCode
from grpc_status import rpc_status


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """A field that breaks a rule: its path, and what the rule says."""

    field: str
    description: str


class JobledgerError(Exception):
    """A call that did not succeed.

    Attributes:
        error_code: code of the server's registry, such as `E_JOB_NOT_FOUND`.
        message: for people; says what to do next where something can be done.
        details: what the server adds, by name.
        fields: fields that break a rule; empty but for a ValidationError.
        retry_after: seconds after which the server thinks another try may help; None where it said nothing.
    """

    def __init__(
        self,
        message: str,
        *,
        error_code: str = "E_INTERNAL",
        details: Mapping[str, str] | None = None,
        fields: Sequence[FieldViolation] = (),
        retry_after: float | None = None,
    ) -> None:
        self.error_code = error_code
        self.message = message
        self.details = dict(details or {})
        self.fields = tuple(fields)
        self.retry_after = retry_after
        super().__init__(f"{message} ({error_code})")


class SetupError(JobledgerError):
    """There is no server to be found, no token, or the connection would not be safe. Nothing was sent."""


class AuthenticationError(JobledgerError):
    """The token is missing, malformed, expired, or not one of this server's."""


class PermissionDeniedError(JobledgerError):
    """The token does not carry the scope, or a path is not allowed."""


class ValidationError(JobledgerError):
    """The request breaks a rule; `fields` says which."""


class NotFoundError(JobledgerError):
    """There is no such thing, not yet, or the caller may not see it."""


class ConflictError(JobledgerError):
    """The state of the job, or an idempotency key, does not admit the call."""


class OutOfRangeError(JobledgerError):
    """The point asked for is not kept, or lies outside the content."""


class DataLossError(JobledgerError):
    """Bytes no longer match their hash."""


class RateLimitedError(JobledgerError):
    """Too much was asked at once; `retry_after` says when to try again."""


class UnavailableError(JobledgerError):
    """The server can't be reached, or can't do this just now. Safe to repeat for calls that change nothing twice."""


class DeadlineError(JobledgerError, TimeoutError):
    """The deadline passed. The call may have taken effect."""


class UnsupportedError(JobledgerError):
    """The server does not offer the call."""


class InternalError(JobledgerError):
    """A fault in the server; the reference in the message stands in its log."""


# By code of the gRPC status: the exception, and the error code where the server gave no reason.
_BY_STATUS: Final[Mapping[StatusCode, tuple[type[JobledgerError], str]]] = {
    StatusCode.CANCELLED: (UnavailableError, "E_ENGINE_UNREACHABLE"),
    StatusCode.UNKNOWN: (InternalError, "E_INTERNAL"),
    StatusCode.INVALID_ARGUMENT: (ValidationError, "E_BAD_REQUEST"),
    StatusCode.DEADLINE_EXCEEDED: (DeadlineError, "E_DEADLINE"),
    StatusCode.NOT_FOUND: (NotFoundError, "E_NOT_FOUND"),
    StatusCode.ALREADY_EXISTS: (ConflictError, "E_IDEMPOTENCY_CONFLICT"),
    StatusCode.PERMISSION_DENIED: (PermissionDeniedError, "E_FORBIDDEN"),
    StatusCode.RESOURCE_EXHAUSTED: (RateLimitedError, "E_OVERLOADED"),
    StatusCode.FAILED_PRECONDITION: (ConflictError, "E_BAD_REQUEST"),
    StatusCode.ABORTED: (ConflictError, "E_OVERLOADED"),
    StatusCode.OUT_OF_RANGE: (OutOfRangeError, "E_RANGE_NOT_SATISFIABLE"),
    StatusCode.UNIMPLEMENTED: (UnsupportedError, "E_UNIMPLEMENTED"),
    StatusCode.INTERNAL: (InternalError, "E_INTERNAL"),
    StatusCode.UNAVAILABLE: (UnavailableError, "E_ENGINE_UNREACHABLE"),
    StatusCode.DATA_LOSS: (DataLossError, "E_INTERNAL"),
    StatusCode.UNAUTHENTICATED: (AuthenticationError, "E_AUTH_INVALID"),
}

# As the system words it, and for people.
_NOBODY_THERE: Final = {"Connection refused": "connection refused", "No such file or directory": "no such socket"}
# What a plain connection to a port with TLS ends with.
_CUT_SHORT: Final = ("Socket closed", "Connection reset by peer")

# Reasons that mean something else than their gRPC code does for most.
_BY_REASON: Final[Mapping[str, type[JobledgerError]]] = {
    "RECEIPT_NOT_READY": NotFoundError,
    "RECEIPT_NOT_GENERATED": NotFoundError,
    "TOO_LARGE": ValidationError,
    "HEADERS_TOO_LARGE": ValidationError,
    "HOST_NOT_ALLOWED": PermissionDeniedError,
}


def error_from(failure: grpc.aio.AioRpcError, target: str) -> JobledgerError:
    """The exception for a failed call to `target`, with all that the server said about it."""
    kind, code = _BY_STATUS[failure.code()]
    details = _status_details(failure)
    info, violations, retry = ErrorInfo(), BadRequest(), RetryInfo()
    for detail in details:
        for message in (info, violations, retry):
            detail.Unpack(message)
    if info.reason:
        kind, code = _BY_REASON.get(info.reason, kind), f"E_{info.reason}"
    return kind(
        failure.details() or code if info.reason else _unexplained(failure, target),
        error_code=code,
        details=dict(info.metadata),
        fields=[FieldViolation(item.field, item.description) for item in violations.field_violations],
        retry_after=retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9
        if retry.HasField("retry_delay")
        else None,
    )


def _status_details(failure: grpc.aio.AioRpcError) -> Sequence[AnyMessage]:
    try:
        status = rpc_status.from_call(failure)
    except ValueError:  # the status in the trailer contradicts the call's own, which rules
        return ()
    return () if status is None else tuple(status.details)


def _unexplained(failure: grpc.aio.AioRpcError, target: str) -> str:
    """A message for a failure that does not come from the server itself."""
    said = failure.details() or failure.code().name
    if failure.code() is StatusCode.UNAVAILABLE:
        return _unreachable(target, said)
    if failure.code() is StatusCode.DEADLINE_EXCEEDED:
        return f"No answer from {target} in time; the call may have taken effect"
    return said


def _unreachable(target: str, said: str) -> str:
    """What gRPC's core says of an attempt to connect, in other words where these are known."""
    for heard, reason in _NOBODY_THERE.items():
        if heard in said:
            place = target.removeprefix("unix:")
            return f"No server answers at {place} ({reason}): `jobledger up` starts one"
    if "CERTIFICATE_VERIFY_FAILED" in said:
        return f"The certificate of the server at {target} is of no authority that is trusted: name one by --ca-file"
    if any(heard in said for heard in _CUT_SHORT):
        advice = "If it speaks TLS, connect with --tls or --ca-file"
        return f"What listens at {target} ended the connection. {advice}"
    return f"Cannot reach a server at {target}: {said}. Is it running? `jobledger up` starts one"
