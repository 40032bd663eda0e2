"""Short names for what grpc leaves generic: our doors carry messages of every kind."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
ServerInterceptor: TypeAlias = grpc.aio.ServerInterceptor

# grpc's types of handlers speak of its synchronous API alone.
Handler: TypeAlias = Any
GenericHandler: TypeAlias = Any
Metadata: TypeAlias = Sequence[tuple[str, str | bytes]]
Unary: TypeAlias = Callable[[Any, Context], Awaitable[Any]]
Stream: TypeAlias = Callable[[Any, Context], AsyncIterator[Any]]


@dataclass(frozen=True, slots=True)
class PlainJson:
    """In place of a response, for who takes it: its JSON, as the gateway would make it of the message."""

    plain_json: bytes


@dataclass(frozen=True, slots=True)
class Body:
    """In place of an HttpBody, within this process: a message would copy the bytes in, and again at each look."""

    content_type: str
    data: bytes
