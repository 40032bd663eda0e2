"""A `ServiceError` as a gRPC status with its details, by the registry."""

import math

from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from jobledger_server.core.errors import ServiceError, name_of, rule_of

DOMAIN = "jobledger"

# grpc clients refuse metadata beyond 8 KiB, and then their callers see neither reason nor message. The status travels
# there twice: percent-encoded, and with its details in base64. Much of a text may be what a caller sent.
MOST_MESSAGE_BYTES = 512
MOST_FIELDS = 10
MOST_FIELD_BYTES = 100
MOST_DESCRIPTION_BYTES = 160


def to_status(error: ServiceError) -> Status:
    """The status that says what the error says; of the fields that break a rule, the first ten."""
    status = Status(code=rule_of(error.reason).grpc_code, message=_cut(error.message, MOST_MESSAGE_BYTES))
    _add(status, ErrorInfo(reason=name_of(error.reason), domain=DOMAIN, metadata=error.metadata))
    if error.fields:
        violations = [
            BadRequest.FieldViolation(
                field=_cut(violation.field, MOST_FIELD_BYTES),
                description=_cut(violation.description, MOST_DESCRIPTION_BYTES),
            )
            for violation in error.fields[:MOST_FIELDS]
        ]
        _add(status, BadRequest(field_violations=violations))
    if error.retry_after is not None:
        _add(status, RetryInfo(retry_delay=Duration(seconds=math.ceil(error.retry_after))))
    return status


def _cut(text: str, most: int) -> str:
    data = text.encode()
    return text if len(data) <= most else data[: most - 3].decode(errors="ignore") + "…"


def _add(status: Status, detail: Message) -> None:
    packed = Any()
    packed.Pack(detail)
    status.details.append(packed)
