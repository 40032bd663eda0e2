"""Calls over a channel, whether it is a socket or the same process."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from jobledger_gateway.metadata import MAX_DEADLINE, Metadata

OWN = "jobledger.v1"


def is_own(method: MethodDescriptor) -> bool:
    """Whether a method is one of Jobledger's own, of which more is known than what every service keeps to."""
    package: str = method.containing_service.file.package
    return package == OWN


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer of a unary call, and the metadata that came before it."""

    message: Any
    initial_metadata: Any


def read(message: Any) -> Any:
    """A message as a call gives it: grpc.aio has None for one that it could not read.

    Raises:
        DecodeError: it is none.
    """
    if message is None:
        raise DecodeError("the server sent a message that is not of the type that the descriptors give the method")
    return message


class Rpc:
    """One method at the other end of a channel."""

    def __init__(self, channel: grpc.aio.Channel, method: MethodDescriptor) -> None:
        self.method = method
        service = method.containing_service.full_name
        opener: Callable[..., Any] = channel.unary_stream if method.server_streaming else channel.unary_unary
        self._start = opener(
            f"/{service}/{method.name}",
            request_serializer=GetMessageClass(method.input_type).SerializeToString,
            response_deserializer=GetMessageClass(method.output_type).FromString,
        )

    async def __call__(self, request: Message, *, metadata: Metadata, deadline: float | None = None) -> Reply:
        """Calls a unary method; it is given 330 s where there is no deadline (in seconds).

        Raises:
            grpc.aio.AioRpcError: the call failed.
            DecodeError: the answer is not of the method's type.
        """
        call = self._start(request, timeout=deadline or MAX_DEADLINE, metadata=metadata)
        message = read(await call)
        return Reply(message, await call.initial_metadata())

    def open(self, request: Message, *, metadata: Metadata, deadline: float | None = None) -> Any:
        """Starts a call of a server stream; whoever opens it cancels it in the end."""
        return self._start(request, timeout=deadline, metadata=metadata)
