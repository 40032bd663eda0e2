"""Details of a google.rpc.Status as JSON, and as headers."""

import base64
import math
from collections.abc import Iterator, Mapping
from typing import Any

import grpc
import orjson
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from jobledger_gateway.codec import Codec
from jobledger_gateway.encoding import any_value

STATUS_DETAILS = "grpc-status-details-bin"
DOMAIN = "jobledger"
# No client is sent away for longer.
MOST_RETRY_SECONDS = 24 * 60 * 60

# Details that have a place of their own in the answer.
PLACED = tuple(
    kind.DESCRIPTOR for kind in (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.RetryInfo)
)


def rich_status(failure: grpc.aio.AioRpcError) -> Any:
    """The google.rpc.Status that a failure carries; an empty one where it carries none that can be read."""
    for key, value in failure.trailing_metadata() or ():
        if key == STATUS_DETAILS and isinstance(value, bytes):
            try:
                return status_pb2.Status.FromString(value)
            except DecodeError:
                break
    return status_pb2.Status()


def reason_of(status: Any) -> Any:
    """The ErrorInfo that a status carries; an empty one where it carries none."""
    return _unpack(status, error_details_pb2.ErrorInfo())


def details_of(status: Any, codec: Codec) -> dict[str, Any]:
    """What an answer tells of a status: metadata of its ErrorInfo, `fields` of its BadRequest, `others` in a list."""
    refused = _unpack(status, error_details_pb2.BadRequest())
    fields = [{"field": it.field, "description": it.description} for it in refused.field_violations]
    others = list(_others(status, codec))
    return {
        **metadata_of(reason_of(status)),
        **({"fields": fields} if fields else {}),
        **({"others": others} if others else {}),
    }


def retry_after(status: Any) -> dict[str, str]:
    """The header Retry-After of a status that carries RetryInfo."""
    if not any(detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR) for detail in status.details):
        return {}
    delay = _unpack(status, error_details_pb2.RetryInfo()).retry_delay
    seconds = math.ceil(delay.seconds + delay.nanos / 1e9)
    return {"Retry-After": str(min(max(0, seconds), MOST_RETRY_SECONDS))}


def _others(status: Any, codec: Codec) -> Iterator[Any]:
    for detail in status.details:
        if not any(detail.Is(placed) for placed in PLACED):
            yield _other(detail, codec)


def _other(detail: Any, codec: Codec) -> dict[str, Any]:
    """The JSON of a detail; of one too deep to be written (each level of an Any starts anew) its type and bytes."""
    try:
        told = any_value(detail, codec.pool, codec.dialect)
        orjson.dumps(told)
    except (RecursionError, orjson.JSONEncodeError):
        return {"@type": detail.type_url, "value": base64.b64encode(detail.value).decode()}
    return told


def _unpack(status: Any, into: Message) -> Any:
    """The detail of `into`'s type, if the status carries one that can be read; else `into` as it is."""
    for detail in status.details:
        if detail.Is(into.DESCRIPTOR):
            try:
                detail.Unpack(into)
            except DecodeError:
                into.Clear()
            break
    return into


def metadata_of(info: Any) -> dict[str, Any]:
    """An ErrorInfo's metadata, which has strings only. Sequence numbers and sizes of our own are numbers in JSON."""
    told = dict(sorted(info.metadata.items()))
    return _typed(told) if info.domain == DOMAIN else told


def _typed(metadata: Mapping[str, str]) -> dict[str, Any]:
    return {
        key: int(value) if key.endswith(("_sequence", "size")) and value.isdecimal() and len(value) < 20 else value
        for key, value in metadata.items()
    }
