"""A channel without a socket: the very same interceptors and servicers, called in this process.

It looks like a `grpc.aio.Channel` to whoever calls, so that the gateway can't tell the two apart. Messages are handed
over as they are, not serialized: neither side changes one that it was given.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc

from jobledger_server.api.inprocess_context import InProcessContext
from jobledger_server.api.patience import within
from jobledger_server.api.types import GenericHandler, Handler, Metadata, ServerInterceptor

END = object()
QUEUED_RESPONSES = 2
CallT = TypeVar("CallT", bound="Call")


@dataclass(slots=True)
class CallDetails:
    """What interceptors learn of a call before it begins."""

    method: str
    invocation_metadata: tuple[tuple[str, str | bytes], ...]


class InProcessChannel:
    """Takes services as a `grpc.aio.Server` does, and calls as a `grpc.aio.Channel` does."""

    def __init__(self, interceptors: Sequence[ServerInterceptor]) -> None:
        self._interceptors = tuple(interceptors)
        self._handlers: dict[str, Handler] = {}
        self._generic: list[GenericHandler] = []
        self._resolved: dict[str, Handler] = {}
        self._calls: set[Call] = set()

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Sequence[GenericHandler]) -> None:
        """As of a server: called by the generated registration."""
        self._generic.extend(generic_rpc_handlers)

    def add_registered_method_handlers(self, service_name: str, method_handlers: Mapping[str, Handler]) -> None:
        """As of a server: called by the generated registration."""
        for name, handler in method_handlers.items():
            self._handlers[f"/{service_name}/{name}"] = handler

    async def handler(self, method: str) -> Handler | None:
        """The behaviour of a method, wrapped by the interceptors; they wrap it once, so it is kept."""
        known = self._resolved.get(method)
        if known is None:
            known = await self._intercepted(CallDetails(method, ()), 0)
            if known is not None and method in self._handlers:
                self._resolved[method] = known
        return known

    async def _intercepted(self, details: CallDetails, index: int) -> Handler | None:
        if index < len(self._interceptors):

            async def following(_: object) -> Handler | None:
                return await self._intercepted(details, index + 1)

            return await self._interceptors[index].intercept_service(following, details)
        if details.method in self._handlers:
            return self._handlers[details.method]
        return next((found for generic in self._generic if (found := generic.service(details)) is not None), None)

    def unary_unary(self, method: str, *_: Any, **__: Any) -> Callable[..., "UnaryCall"]:
        """A callable for a method with one response. Serializers are of no use here."""

        def call(
            request: Any, *, timeout: float | None = None, metadata: Metadata | None = None, **_: Any
        ) -> UnaryCall:
            return self._track(UnaryCall(self, method, request, timeout, metadata or ()))

        return call

    def unary_stream(self, method: str, *_: Any, **__: Any) -> Callable[..., "StreamCall"]:
        """A callable for a method with a stream of responses. Serializers are of no use here."""

        def call(
            request: Any, *, timeout: float | None = None, metadata: Metadata | None = None, **_: Any
        ) -> StreamCall:
            return self._track(StreamCall(self, method, request, timeout, metadata or ()))

        return call

    def _track(self, call: CallT) -> CallT:
        self._calls.add(call)
        return call

    def forget(self, call: "Call") -> None:
        """A call is over."""
        self._calls.discard(call)

    async def close(self, grace: float | None = None) -> None:
        """Ends what is under way, after `grace` seconds."""
        calls = [*self._calls]
        ends = [call.ended for call in calls]
        if ends and grace:
            await asyncio.wait(ends, timeout=grace)
        for call in calls:
            call.cancel()
        await asyncio.gather(*ends)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class Call:
    """A client's side of a call. The behaviour runs in a task, so that it can be cancelled."""

    def __init__(
        self, channel: InProcessChannel, method: str, request: Any, timeout: float | None, metadata: Metadata
    ) -> None:
        self._channel = channel
        self._method = method
        self._request = request
        self._timeout = timeout
        self.context = InProcessContext(metadata, timeout)
        self._loop = asyncio.get_running_loop()
        self._is_over = False
        self._ended: asyncio.Future[None] | None = None
        self._task: asyncio.Task[Any] | None = None
        self._cancelled = False

    @property
    def ended(self) -> asyncio.Future[None]:
        """Done once the call is over, however that came."""
        if self._ended is None:
            self._ended = self._loop.create_future()
            if self._is_over:
                self._ended.set_result(None)
        return self._ended

    def _start(self) -> None:
        """Begins in a task of its own."""
        self._task = self._loop.create_task(self._run())
        self._task.add_done_callback(self._note_end)

    def _note_end(self, task: asyncio.Task[Any]) -> None:
        self._end(cancelled=task.cancelled())

    def _end(self, *, cancelled: bool) -> None:
        self._cancelled = cancelled
        self._channel.forget(self)
        self._is_over = True
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)

    async def _answer(self, handler: Handler) -> Any:
        raise NotImplementedError

    async def _run(self) -> Any:
        context = self.context
        try:
            answer = await within(self._timeout, self._handled())
            if context.status_code is not grpc.StatusCode.OK:
                raise self._failed()
            return answer
        except grpc.aio.AbortError:
            raise self._failed() from None
        except TimeoutError:
            context.status_code, context.status_details = grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"
            raise self._failed() from None
        finally:
            await context.send_initial_metadata(())

    async def _handled(self) -> Any:
        handler = await self._channel.handler(self._method)
        if handler is None:
            await self.context.abort(grpc.StatusCode.UNIMPLEMENTED, f"Method not found: {self._method}")
        return await self._answer(handler)

    def _failed(self) -> grpc.aio.AioRpcError:
        context = self.context
        return grpc.aio.AioRpcError(
            context.status_code,
            initial_metadata=grpc.aio.Metadata(*(context.initial or ())),
            trailing_metadata=grpc.aio.Metadata(*context.trailing),
            details=context.status_details,
        )

    async def initial_metadata(self) -> Metadata:
        """What the servicer sent when it accepted the call; empty where the call failed before."""
        return await self.context.initial_metadata()

    async def trailing_metadata(self) -> Metadata:
        await asyncio.wait([self.ended])
        return self.context.trailing

    async def code(self) -> grpc.StatusCode:
        await asyncio.wait([self.ended])
        return grpc.StatusCode.CANCELLED if self._cancelled else self.context.status_code

    async def details(self) -> str:
        await asyncio.wait([self.ended])
        return self.context.status_details

    def cancel(self) -> bool:
        """Cancels the task that it runs in. False: it is over."""
        return self._task is not None and self._task.cancel()

    def cancelled(self) -> bool:
        return self._cancelled

    def done(self) -> bool:
        # `ended` hears of a task of its own a turn later.
        return self._is_over or (self._task is not None and self._task.done())


class UnaryCall(Call):
    """Await it for the response.

    Awaited at once it runs in the task of its caller: one of its own costs two turns of the loop, which is more than
    all else that a quick call takes. Else it begins by itself.
    """

    _response: Any = None

    def __init__(
        self, channel: InProcessChannel, method: str, request: Any, timeout: float | None, metadata: Metadata
    ) -> None:
        super().__init__(channel, method, request, timeout, metadata)
        self._beginning = self._loop.call_soon(self._start)

    async def _answer(self, handler: Handler) -> Any:
        self._response = await handler.unary_unary(self._request, self.context)
        return self._response

    def __await__(self) -> Generator[Any, None, Any]:
        if self._task is None and not self._is_over:
            return (yield from self._run_here().__await__())
        try:
            yield from asyncio.wait([self.ended]).__await__()
        finally:
            self.cancel()
        if self._cancelled:
            raise asyncio.CancelledError
        if self._task is not None:
            return self._task.result()
        if self.context.status_code is not grpc.StatusCode.OK:
            raise self._failed()
        return self._response

    async def _run_here(self) -> Any:
        self._beginning.cancel()
        self._task = asyncio.current_task()
        cancelled = False
        try:
            return await self._run()
        except asyncio.CancelledError:
            cancelled = True
            raise
        finally:
            self._task = None
            self._end(cancelled=cancelled)

    def cancel(self) -> bool:
        if self._task is None and not self._is_over:
            self._beginning.cancel()
            self._end(cancelled=True)
            return True
        return super().cancel()


class StreamCall(Call):
    """Iterate over it for the responses. One that is not read stops the servicer; leaving the loop ends the call."""

    def __init__(
        self, channel: InProcessChannel, method: str, request: Any, timeout: float | None, metadata: Metadata
    ) -> None:
        super().__init__(channel, method, request, timeout, metadata)
        self._responses: asyncio.Queue[Any] = asyncio.Queue(QUEUED_RESPONSES)
        self.context.deliver = self._responses.put
        self._start()

    def forward(self, put: Callable[[Any], Awaitable[None]], push: Callable[[list[Any]], bool] | None = None) -> None:
        """Hands responses to `put` in the task of the call itself: one, or a list of those that are ready together.

        Iterating then gives none, and tells of the end. To be called before anything else is awaited. It saves a
        reader that queues what it reads a task and a queue of ours; while it is in `put`, the servicer waits.

        `push` may be called in between, with a list that it takes at once or not at all, by a servicer that has
        thousands of such calls to serve: such responses do not pass the interceptors.
        """
        self.context.deliver = put
        self.context.push = push

    async def _answer(self, handler: Handler) -> None:
        try:
            async with aclosing(handler.unary_stream(self._request, self.context)) as responses:
                async for response in responses:
                    await self.context.write(response)
        finally:
            # With no room for it, the reader finds the task done once it has read the rest.
            with suppress(asyncio.QueueFull):
                self._responses.put_nowait(END)

    async def __aiter__(self) -> AsyncIterator[Any]:
        try:
            while (responses_ready := await self._next()) is not END:
                for response in responses_ready if isinstance(responses_ready, list) else [responses_ready]:
                    yield response
            if self._task is not None:
                await self._task
        finally:
            self.cancel()

    async def _next(self) -> Any:
        if self.done() and self._responses.empty():
            return END
        return await self._responses.get()
