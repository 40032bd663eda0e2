"""A scripted engine behind a real gRPC server: it records what it is asked, and answers as a test says."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any

import grpc
from gateway import channels
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2
from jobledger_gateway.app import SERVICES
from jobledger_gateway.errors import RULES
from jobledger_gateway.metadata import PEER

TOKEN = "Bearer jl_test_secret"
HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"]


@dataclass(frozen=True)
class Refusal(Exception):  # noqa: N818 - a script's step, not an error of the test
    """The call fails with a reason of the registry."""

    reason: str
    message: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    fields: Sequence[tuple[str, str]] = ()
    retry_after: float | None = None
    code: grpc.StatusCode | None = None


@dataclass(frozen=True)
class Bare:
    """The call fails with a status that carries no details."""

    code: grpc.StatusCode
    details: str = ""


@dataclass(frozen=True)
class Call:
    """What the engine was asked."""

    method: str
    request: Any
    metadata: Sequence[tuple[str, str]]
    time_remaining: float | None
    peer: str

    def values(self, key: str) -> list[str]:
        return [value for name, value in self.metadata if name == key]


class Engine:
    """Scripts by method name: a message, a Refusal or Bare; for streams a list of those, or an async generator."""

    def __init__(self) -> None:
        self.scripts: dict[str, Any] = {}
        self.initial_metadata: dict[str, Sequence[tuple[str, str]]] = {}
        self.calls: list[Call] = []
        self.open_calls = 0

    def on(self, method: str, script: Any, *, metadata: Sequence[tuple[str, str]] = ()) -> None:
        self.scripts[method] = script
        self.initial_metadata[method] = metadata

    def requests(self, method: str) -> list[Any]:
        return [call.request for call in self.calls if call.method == method]

    def call(self, method: str) -> Call:
        return next(call for call in self.calls if call.method == method)

    async def _admit(self, method: MethodDescriptor, request: Message, context: Any) -> Any:
        metadata = tuple(context.invocation_metadata())
        if method.containing_service is not HEALTH:
            self.calls.append(Call(method.name, request, metadata, context.time_remaining(), peer_of(context)))
            tokens = [value for key, value in metadata if key == "authorization"]
            if tokens != [TOKEN]:
                await refuse(context, Refusal("AUTH_INVALID" if tokens else "AUTH_MISSING"))
        script = self.scripts.get(method.name, GetMessageClass(method.output_type)())
        return script(request) if callable(script) else script

    async def unary(self, method: MethodDescriptor, request: Message, context: Any) -> Any:
        script = await self._admit(method, request, context)
        await context.send_initial_metadata(self.initial_metadata.get(method.name, ()))
        return await step(script, context)

    async def stream(self, method: MethodDescriptor, request: Message, context: Any) -> AsyncIterator[Any]:
        script = await self._admit(method, request, context)
        if isinstance(script, Refusal | Bare):
            await step(script, context)
        await context.send_initial_metadata(self.initial_metadata.get(method.name, ()))
        self.open_calls += 1
        try:
            async for item in each(script):
                yield await step(item, context)
        finally:
            self.open_calls -= 1


def peer_of(context: Any) -> str:
    """The address that the gateway named: in metadata over a socket, as the call's peer within a process."""
    named = dict(context.invocation_metadata()).get(PEER)
    return str(named or context.peer())


async def each(script: Any) -> AsyncIterator[Any]:
    if hasattr(script, "__aiter__"):
        async for item in script:
            yield item
    else:
        for item in script if isinstance(script, list) else []:
            yield item


async def step(script: Any, context: Any) -> Any:
    if isinstance(script, Refusal):
        await refuse(context, script)
    if isinstance(script, Bare):
        await context.abort(script.code, script.details)
    return script


async def refuse(context: Any, refusal: Refusal) -> None:
    rule = RULES.get(refusal.reason)
    number = rule.grpc_code if rule else (refusal.code or grpc.StatusCode.UNKNOWN).value[0]
    message = refusal.message or (rule.message if rule else "")
    status = status_pb2.Status(code=number, message=message)
    details = [error_details_pb2.ErrorInfo(reason=refusal.reason, domain="jobledger", metadata=refusal.metadata)]
    if refusal.fields:
        violations = [{"field": name, "description": text} for name, text in refusal.fields]
        details.append(error_details_pb2.BadRequest(field_violations=violations))
    if refusal.retry_after is not None:
        nanos = round(refusal.retry_after * 1e9)
        delay = Duration(seconds=nanos // 10**9, nanos=nanos % 10**9)
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    for detail in details:
        packed = AnyMessage()
        packed.Pack(detail)
        status.details.append(packed)
    codes = {code.value[0]: code for code in grpc.StatusCode}
    await context.abort(codes[number], message, (("grpc-status-details-bin", status.SerializeToString()),))


def handlers_of(engine: Engine) -> list[Any]:
    return [
        grpc.method_handlers_generic_handler(
            service.full_name, {method.name: handler(engine, method) for method in service.methods}
        )
        for service in (*SERVICES, HEALTH)
    ]


def running(engine: Engine) -> AbstractAsyncContextManager[str]:
    """The engine on a port of its own; yields its address."""
    return channels.listening(handlers_of(engine))


def connected(engine: Engine, kind: str) -> AbstractAsyncContextManager[Any]:
    """A channel to the engine: over a `socket`, or `in process`."""
    return channels.reached(handlers_of(engine), kind)


def handler(engine: Engine, method: MethodDescriptor) -> Any:
    make: Callable[..., Any] = (
        grpc.unary_stream_rpc_method_handler if method.server_streaming else grpc.unary_unary_rpc_method_handler
    )

    async def unary(request: Message, context: Any) -> Any:
        return await engine.unary(method, request, context)

    async def stream(request: Message, context: Any) -> AsyncIterator[Any]:
        async for item in engine.stream(method, request, context):
            yield item

    return make(
        stream if method.server_streaming else unary,
        request_deserializer=GetMessageClass(method.input_type).FromString,
        response_serializer=GetMessageClass(method.output_type).SerializeToString,
    )
