"""Errors as HTTP clients see them: `{"error_code", "message", "details"}`, from the registry in `errors.proto`."""

import logging
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import grpc
import orjson
from jobledger.v1.errors_pb2 import ErrorReason, ErrorRule, error

from jobledger_gateway.codec import PLAIN, Codec
from jobledger_gateway.error_details import DOMAIN, details_of, metadata_of, reason_of, retry_after, rich_status

PREFIX = "ERROR_REASON_"

RULES: Mapping[str, ErrorRule] = {
    value.name.removeprefix(PREFIX): value.GetOptions().Extensions[error]
    for value in ErrorReason.DESCRIPTOR.values
    if value.number
}

# What a status without a reason of the registry becomes: the code in JSON, and the HTTP status.
CODES: Mapping[grpc.StatusCode, tuple[str, int]] = {
    grpc.StatusCode.CANCELLED: ("CANCELLED", 499),
    grpc.StatusCode.UNKNOWN: ("INTERNAL", 500),
    grpc.StatusCode.INVALID_ARGUMENT: ("BAD_REQUEST", 400),
    grpc.StatusCode.DEADLINE_EXCEEDED: ("DEADLINE", 504),
    grpc.StatusCode.NOT_FOUND: ("NOT_FOUND", 404),
    grpc.StatusCode.ALREADY_EXISTS: ("ALREADY_EXISTS", 409),
    grpc.StatusCode.PERMISSION_DENIED: ("FORBIDDEN", 403),
    grpc.StatusCode.RESOURCE_EXHAUSTED: ("RESOURCE_EXHAUSTED", 429),
    grpc.StatusCode.FAILED_PRECONDITION: ("FAILED_PRECONDITION", 400),
    grpc.StatusCode.ABORTED: ("ABORTED", 409),
    grpc.StatusCode.OUT_OF_RANGE: ("OUT_OF_RANGE", 400),
    grpc.StatusCode.UNIMPLEMENTED: ("UNIMPLEMENTED", 501),
    grpc.StatusCode.INTERNAL: ("INTERNAL", 500),
    grpc.StatusCode.UNAVAILABLE: ("ENGINE_UNREACHABLE", 503),
    grpc.StatusCode.DATA_LOSS: ("DATA_LOSS", 500),
    grpc.StatusCode.UNAUTHENTICATED: ("AUTH_INVALID", 401),
}

# What gRPC says, under a code that means a quota too, of a message that passes its limit; and which are answers.
TOO_LARGE = re.compile(r"(received|sent|send) message larger than max|message exceeds maximum size", re.IGNORECASE)
ANSWER_TOO_LARGE = re.compile(r"CLIENT: Received|SERVER: Sent|trying to send")
# What it says of metadata that pass a limit: of those of an answer within an outcome of its own. It lists their keys.
METADATA_TOO_LARGE = re.compile(r"(stream removed \()?received metadata size exceeds", re.IGNORECASE)
# What gRPC says where it loses a server, or finds none; any other text is the service's own.
CONNECTION = re.compile(
    r"failed to connect|stream removed|socket closed|transport (closed|failure|is closing)|goaway|cancelling all calls"
    r"|endpoint closing|handshak|errors? resolving|name resolution|empty address list|all (sub)?(backends|channels)"
    r"|channel (is )?(closed|closing|shutdown|shutting)|(ping|keepalive|keepalive watchdog) timeout|broken pipe"
    r"|connection (attempt|reset|refused|timed|aborted|closed)|(recv|send)msg|^(server )?shutdown$|ipv[46]:|unix:|dns:",
    re.IGNORECASE,
)
# Faults that are told of at most: a small body can hold half a million. And the characters of each.
MOST_TOLD, MOST_TEXT = 64, 512

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Violation:
    """A field that breaks a rule: its path as the client wrote it, and what the rule says."""

    field: str
    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What a client is told.

    Attributes:
        reason: name in the registry without its prefix, such as `JOB_NOT_FOUND`.
        status: HTTP status.
        details: JSON values by name.
        headers: headers that belong to the error, such as `Allow`.
    """

    reason: str
    status: int
    message: str
    details: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def code(self) -> str:
        """`error_code` in JSON."""
        return f"E_{self.reason}"

    def body(self) -> dict[str, Any]:
        """The error as a JSON value."""
        return {"error_code": self.code, "message": self.message, "details": dict(self.details)}

    def encode(self) -> bytes:
        """The error as JSON."""
        return orjson.dumps(self.body())


class GatewayError(Exception):
    """A request that the gateway itself refuses.

    Attributes:
        problem: what the client is told.
        token_first: whether a caller without a valid token must be told of the token instead.
    """

    def __init__(self, problem: Problem, *, token_first: bool = True) -> None:
        self.problem = problem
        self.token_first = token_first
        super().__init__(f"{problem.code}: {problem.message}")


def problem(
    reason: str,
    message: str | None = None,
    *,
    details: Mapping[str, Any] | None = None,
    fields: Sequence[Violation] = (),
    headers: Mapping[str, str] | None = None,
) -> Problem:
    """The problem of a reason in the registry, with the registry's message unless another is given."""
    rule = RULES[reason]
    told = dict(details or {})
    if fields:
        told["fields"] = [{"field": cut(it.field), "description": cut(it.description)} for it in fields[:MOST_TOLD]]
    return Problem(
        reason=reason,
        status=rule.http_status,
        message=message or rule.message,
        details=told,
        headers=_headers(rule.http_status, headers),
    )


def bad_request(message: str) -> GatewayError:
    """A request that can't be read."""
    return GatewayError(problem("BAD_REQUEST", message))


def invalid(fields: Sequence[Violation]) -> GatewayError:
    """A request whose values break rules. The message repeats the first, for those who read no further.

    Of many only the first are told, and the message says so.
    """
    first = fields[0]
    # Of a body that is one value, no field has a name.
    text = f"{cut(first.field)}: {cut(first.description)}" if first.field else f"The body {cut(first.description)}"
    more = f" (there may be more: only the first {MOST_TOLD} faults are told)" if len(fields) >= MOST_TOLD else ""
    return GatewayError(problem("VALIDATION", text + more, fields=fields))


def cut(text: str) -> str:
    """A text that may quote a request, at a length that can be told."""
    return text if len(text) <= MOST_TEXT else f"{text[:MOST_TEXT]}..."


def internal(cause: BaseException, message: str | None = None) -> Problem:
    """A fault of the gateway or the server: the client gets a reference, and a message, and the log all there is."""
    reference = secrets.token_hex(8)
    logger.error("internal error, reference %s", reference, exc_info=cause)
    return problem(
        "INTERNAL",
        f"{message or RULES['INTERNAL'].message}; its log has more under the reference {reference}",
        details={"reference": reference},
    )


def problem_of(failure: grpc.aio.AioRpcError, codec: Codec = PLAIN) -> Problem:
    """What a failed call is to an HTTP client: by its reason, else by its code.

    The registry is Jobledger's: a reason of another domain keeps its name, and goes by the code.
    """
    too_large = _of_metadata(failure)
    if too_large is not None:
        return too_large
    status = rich_status(failure)
    info = reason_of(status)
    if info.reason and info.domain != DOMAIN and CODES.get(failure.code(), ("INTERNAL",))[0] == "INTERNAL":
        return _withheld(info, failure)
    told = _by_reason(info, failure, status.message) if info.reason else _by_code(failure)
    if told.reason == "INTERNAL" and not info.reason:
        return told
    return replace(
        told, details=details_of(status, codec), headers={**_headers(told.status, None), **retry_after(status)}
    )


def _of_metadata(failure: grpc.aio.AioRpcError) -> Problem | None:
    """What is told of metadata that pass a limit of gRPC's; None for any other failure."""
    found = METADATA_TOO_LARGE.match(failure.details() or "")
    if found is None or failure.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
        return None
    if found[1]:
        return internal(failure, "The answer has more metadata than the gateway takes")
    logger.warning("call failed: %s: %s", failure.code().name, failure.details())
    return problem("HEADERS_TOO_LARGE")


def _withheld(info: Any, failure: grpc.aio.AioRpcError) -> Problem:
    """A fault of a service that names it: its text stays in the log, where there may be more in it than people mean."""
    told = internal(failure)
    return replace(told, reason=info.reason, details={**metadata_of(info), **told.details})


def _by_reason(info: Any, failure: grpc.aio.AioRpcError, message: str) -> Problem:
    rule = RULES.get(info.reason) if info.domain == DOMAIN else None
    return Problem(
        reason=info.reason,
        status=rule.http_status if rule else CODES[failure.code()][1],
        message=message or (rule.message if rule else info.reason),
    )


def _by_code(failure: grpc.aio.AioRpcError) -> Problem:
    reason, status = CODES.get(failure.code(), ("INTERNAL", 500))
    if reason == "INTERNAL":
        return internal(failure)
    details = failure.details() or ""
    if failure.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and TOO_LARGE.search(details):
        if ANSWER_TOO_LARGE.search(details):
            return internal(failure, "The answer is larger than the gateway takes: ask for a smaller part of it")
        reason = "TOO_LARGE"
    if reason == "TOO_LARGE" or _is_of_transport(failure.code(), details):
        logger.warning("call failed: %s: %s", failure.code().name, details)
        return problem(reason)
    # Who says so itself was reached.
    reason = "UNAVAILABLE" if reason == "ENGINE_UNREACHABLE" else reason
    return Problem(
        reason=reason, status=RULES[reason].http_status if reason in RULES else status, message=details or reason
    )


def _is_of_transport(code: grpc.StatusCode, details: str) -> bool:
    """Whether a status tells of gRPC's inner workings: the registry's message stands in its place."""
    if code is grpc.StatusCode.UNAVAILABLE:
        return not details or CONNECTION.search(details) is not None
    return code is grpc.StatusCode.DEADLINE_EXCEEDED


def _headers(status: int, more: Mapping[str, str] | None) -> dict[str, str]:
    challenge = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    return {**challenge, **(more or {})}
