"""Bytes of a log or an artifact, as a stream that survives cuts."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TypeVar

import grpc
from google.api.httpbody_pb2 import HttpBody

from jobledger.calls.transport import Transport
from jobledger.errors import OutOfRangeError
from jobledger.v1.job_service_pb2 import DownloadArtifactRequest, GetLogContentRequest

Request = TypeVar("Request", GetLogContentRequest, DownloadArtifactRequest)


async def content(
    transport: Transport,
    method: grpc.aio.UnaryStreamMultiCallable[Request, HttpBody],
    request: Request,
    *,
    size: int | None = None,
) -> AsyncGenerator[bytes, None]:
    """The bytes that a request asks for, in chunks. It is moved on with them, to where the stream is opened anew.

    Args:
        size: bytes of the whole, where that is known.

    Raises:
        OutOfRangeError: the content ends before the request's offset.
        JobledgerError: another kind that fits.
    """
    first = request.offset

    def whole(asked: Request) -> bool:
        return asked.offset > first and asked.HasField("length") and asked.length <= 0

    try:
        async with aclosing(transport.follow(method, request, _after, is_whole=whole)) as bodies:
            async for body in bodies:
                yield body.data
    except OutOfRangeError as error:
        # All of it came, and then the connection broke before the end was told.
        told = error.details.get("size") if request.offset > first else None
        if str(request.offset) != (told if size is None else str(size)):
            raise


def _after(request: Request, body: HttpBody) -> None:
    request.offset += len(body.data)
    if request.HasField("length"):
        request.length -= len(body.data)
