"""Reads the request only once the caller is known, and says in our own words where it can't be read."""

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message

from jobledger_server.api.interceptors.base import Interceptor
from jobledger_server.api.types import Context, Handler, Stream, Unary
from jobledger_server.core.errors import Reason, ServiceError


class Decoding(Interceptor):
    """Takes the request as bytes, so that grpc does not parse it before anybody was asked for a token.

    Within the process requests come as messages already. Streams of requests are parsed by grpc as they come.
    A response may be bytes, too: those of the message.
    """

    def wrap(self, method: str, handler: Handler) -> Handler:
        if handler.request_streaming or handler.request_deserializer is None:
            return handler
        parse, serializer = handler.request_deserializer, _unless_coded(handler.response_serializer)
        if handler.response_streaming:
            call = _parsed_stream(handler.unary_stream, parse)
            return grpc.unary_stream_rpc_method_handler(call, response_serializer=serializer)
        return grpc.unary_unary_rpc_method_handler(
            _parsed_unary(handler.unary_unary, parse), response_serializer=serializer
        )


def _parsed_unary(call: Unary, parse: Callable[[bytes], Message]) -> Unary:
    async def parsed(request: Any, context: Context) -> Any:
        return await call(_message(request, parse), context)

    return parsed


def _parsed_stream(call: Stream, parse: Callable[[bytes], Message]) -> Stream:
    async def parsed(request: Any, context: Context) -> AsyncIterator[Any]:
        async with aclosing(call(_message(request, parse), context)) as responses:  # type: ignore[type-var]
            async for response in responses:
                yield response

    return parsed


def _unless_coded(serialize: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
    return lambda response: response if isinstance(response, bytes) else serialize(response)


def _message(request: Message | bytes, parse: Callable[[bytes], Message]) -> Message:
    if not isinstance(request, bytes):
        return request
    try:
        return parse(request)
    except DecodeError:
        raise ServiceError(
            Reason.ERROR_REASON_BAD_REQUEST, "The request is not a message of the kind that this method takes"
        ) from None
