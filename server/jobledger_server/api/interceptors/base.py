"""What the interceptors share: a method's behaviour is wrapped once, and the result kept."""

import abc
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import grpc

from jobledger_server.api.types import Context, Handler, Stream, Unary


class Interceptor(grpc.aio.ServerInterceptor, abc.ABC):
    """Wraps the handler of each method."""

    def __init__(self) -> None:
        self._wrapped: dict[int, tuple[Handler, Handler]] = {}

    @abc.abstractmethod
    def wrap(self, method: str, handler: Handler) -> Handler:
        """The handler in whose place it stands."""

    def unknown(self) -> Handler | None:
        """What handles a method that nobody knows, always the same; None: grpc's own answer."""
        return None

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        handler = await continuation(handler_call_details)
        if handler is None:
            handler = self.unknown()
            return None if handler is None else self._kept("", handler)
        return self._kept(handler_call_details.method, handler)

    def _kept(self, method: str, handler: Handler) -> Handler:
        # By handler: doors have handlers of their own, while callers choose the names of methods, which would pile up.
        wrapped = self._wrapped.get(id(handler))
        if wrapped is None:
            wrapped = self._wrapped[id(handler)] = (handler, self.wrap(method, handler))
        return wrapped[1]


class Chain(Interceptor):
    """Interceptors as one, outermost first. Each that grpc knows of it asks anew for every call, which takes time."""

    def __init__(self, interceptors: Sequence[Interceptor]) -> None:
        super().__init__()
        self._inward = tuple(interceptors)

    def wrap(self, method: str, handler: Handler) -> Handler:
        for interceptor in reversed(self._inward):
            handler = interceptor.wrap(method, handler)
        return handler

    def unknown(self) -> Handler | None:
        known = (interceptor.unknown() for interceptor in reversed(self._inward))
        return next((handler for handler in known if handler is not None), None)


class Wrapping(Interceptor):
    """An interceptor that wraps the behaviour of each method, and leaves the rest of its handler."""

    @abc.abstractmethod
    def unary(self, method: str, call: Unary) -> Unary:
        """A call with one response, wrapped."""

    @abc.abstractmethod
    def stream(self, method: str, call: Stream) -> Stream:
        """A call with a stream of responses, wrapped."""

    def wrap(self, method: str, handler: Handler) -> Handler:
        coding = {
            "request_deserializer": handler.request_deserializer,
            "response_serializer": handler.response_serializer,
        }
        if handler.unary_unary:
            return grpc.unary_unary_rpc_method_handler(self.unary(method, handler.unary_unary), **coding)
        if handler.stream_unary:
            return grpc.stream_unary_rpc_method_handler(self.unary(method, handler.stream_unary), **coding)
        if handler.unary_stream:
            call = self.stream(method, _iterating(handler.unary_stream))
            return grpc.unary_stream_rpc_method_handler(call, **coding)
        call = self.stream(method, _iterating(handler.stream_stream))
        return grpc.stream_stream_rpc_method_handler(call, **coding)


def _iterating(call: Callable[[Any, Context], Any]) -> Stream:
    """A behaviour as an iterator, also where it is a coroutine that writes to the context instead."""
    if inspect.isasyncgenfunction(call):
        return call

    async def iterated(request: Any, context: Context) -> AsyncIterator[Any]:
        nothing: tuple[Any, ...] = ()
        await call(request, context)
        for response in nothing:
            yield response

    return iterated
