"""A gRPC server that answers as a test tells it to, for the SDK and the command line."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, Self

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status
from jobledger.v1 import engine_service_pb2, job_service_pb2, receipt_service_pb2
from jobledger.v1.errors_pb2 import ErrorReason, error
from jobledger.values import duration

TOKEN = "jl_test_secret"
METHODS: Mapping[str, MethodDescriptor] = {
    method.name: method
    for file in (job_service_pb2, engine_service_pb2, receipt_service_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """An error of the registry, as the server sends it; with `bare`, a status that says nothing but its code."""

    reason: str
    message: str = "as the test wants it"
    metadata: Mapping[str, str] = field(default_factory=dict)
    fields: Sequence[tuple[str, str]] = ()
    retry_after: float | None = None
    bare: bool = False

    def status(self) -> Status:
        value = ErrorReason.DESCRIPTOR.values_by_name[f"ERROR_REASON_{self.reason}"]
        details: list[Message] = []
        if not self.bare:
            details.append(ErrorInfo(reason=self.reason, domain="jobledger", metadata=self.metadata))
        if self.fields:
            violations = [BadRequest.FieldViolation(field=name, description=text) for name, text in self.fields]
            details.append(BadRequest(field_violations=violations))
        if self.retry_after is not None:
            details.append(RetryInfo(retry_delay=duration(self.retry_after)))
        status = Status(code=value.GetOptions().Extensions[error].grpc_code, message=self.message)
        for detail in details:
            packed = AnyMessage()
            packed.Pack(detail)
            status.details.append(packed)
        return status


Answer = Message | Refusal | Callable[[Any], Any] | Sequence[Message | Refusal]


class FakeServer(grpc.GenericRpcHandler):
    """Answers each call of a method with the next of the answers given for it; the last one stays.

    A sequence answers a stream: its messages, and a refusal that cuts it short.

    Args:
        credentials: for TLS.
    """

    def __init__(self, credentials: grpc.ServerCredentials | None = None) -> None:
        self._credentials = credentials
        self.requests: dict[str, list[Any]] = {}
        self.metadata: list[dict[str, Any]] = []
        self.target = ""
        self._answers: dict[str, list[Answer]] = {}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((self,))
        place, credentials = "127.0.0.1:0", self._credentials
        port = server.add_secure_port(place, credentials) if credentials else server.add_insecure_port(place)
        await server.start()
        self._stack.push_async_callback(server.stop, None)
        self.target = f"127.0.0.1:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def on(self, method: str, *answers: Answer) -> None:
        """Sets the answers of a method, such as `GetJob`."""
        self._answers[method] = list(answers)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        name = handler_call_details.method.rpartition("/")[2]
        if name not in self._answers:
            return None
        method = METHODS[name]
        make = grpc.unary_stream_rpc_method_handler if method.server_streaming else grpc.unary_unary_rpc_method_handler
        return make(
            self._stream(name) if method.server_streaming else self._unary(name),
            request_deserializer=GetMessageClass(method.input_type).FromString,
            response_serializer=GetMessageClass(method.output_type).SerializeToString,
        )

    async def _next(self, name: str, request: Any, context: Any) -> Any:
        self.requests.setdefault(name, []).append(request)
        self.metadata.append(dict(context.invocation_metadata()))
        answers = self._answers[name]
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        result = answer(request) if callable(answer) else answer
        return await result if inspect.isawaitable(result) else result

    def _unary(self, name: str) -> Any:
        async def handle(request: Any, context: Any) -> Any:
            answer = await self._next(name, request, context)
            return await _abort(context, answer) if isinstance(answer, Refusal) else answer

        return handle

    def _stream(self, name: str) -> Any:
        async def handle(request: Any, context: Any) -> Any:
            answer = await self._next(name, request, context)
            if isinstance(answer, Refusal):
                await _abort(context, answer)
            if hasattr(answer, "__aiter__"):
                async for item in answer:
                    yield item
                return
            for item in answer:
                if isinstance(item, Refusal):
                    await _abort(context, item)
                yield item

        return handle


async def _abort(context: Any, refusal: Refusal) -> None:
    await context.abort_with_status(rpc_status.to_status(refusal.status()))
