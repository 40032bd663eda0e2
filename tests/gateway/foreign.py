"""A gRPC service that is not Jobledger's: compiled for the test, served by a recorder, in process or on a socket."""

import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

import aiohttp
import grpc
from gateway import channels
from gateway.client import Client
from gateway.engine import peer_of
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass
from google.rpc import status_pb2
from grpc_tools import protoc
from jobledger_gateway.descriptors import services_in
from jobledger_gateway.transcoder import TranscoderOptions, serve, transcode

VECTORS = Path(__file__).with_name("vectors")
PROTOS = Path(__file__).parents[2] / "protos"
CODES = {code.value[0]: code for code in grpc.StatusCode}


def compile_protos(out: Path, *files: Path, imports: bool = True, more: Sequence[str] = ()) -> Path:
    """Writes the descriptor set of .proto files, as a user does, with `more` options of protoc's."""
    google = next(Path(entry) for entry in sys.path if (Path(entry) / "google/api/annotations.proto").exists())
    arguments = [
        "protoc",
        f"--proto_path={files[0].parent}",
        f"--proto_path={google}",
        f"--proto_path={PROTOS}",
        f"--proto_path={Path(protoc.__file__).parent / '_proto'}",
        f"--descriptor_set_out={out}",
        *(["--include_imports"] if imports else []),
        *more,
        *map(str, files),
    ]
    assert protoc.main(arguments) == 0
    return out


@cache
def vectors_set() -> bytes:
    """The descriptor set of vectors.proto."""
    with tempfile.TemporaryDirectory() as directory:
        return compile_protos(Path(directory) / "set.binpb", VECTORS / "vectors.proto").read_bytes()


@cache
def vectors_service() -> ServiceDescriptor:
    """The service of vectors.proto, in a pool of its own."""
    (service,) = services_in(vectors_set(), name="vectors.proto")
    return service


def message_class(full_name: str) -> Any:
    """The class of a message type that vectors.proto has or imports."""
    return GetMessageClass(vectors_service().file.pool.FindMessageTypeByName(full_name))


class Failure(Exception):  # noqa: N818 - a script's step, not an error of the test
    """A step of a script: the call fails with this status."""

    def __init__(self, code: int, message: str = "", details: Sequence[Any] = ()) -> None:
        self.code, self.message, self.details = code, message, details


class Recorder:
    """Records calls, and answers as `answers` says by method: a message, a Failure; for streams an iterable of them."""

    def __init__(self, service: ServiceDescriptor) -> None:
        self.service = service
        self.answers: dict[str, Any] = {}
        self.initial_metadata: Sequence[tuple[str, str | bytes]] = ()
        self.calls: list[tuple[str, Any]] = []
        self.metadata: list[Any] = []
        self.peers: list[str] = []
        self.seconds: list[float | None] = []
        self.ended = 0

    def forget(self) -> None:
        """Forgets the calls, and what they were to be answered with."""
        for told in (self.calls, self.metadata, self.peers, self.seconds):
            told.clear()
        self.answers, self.initial_metadata = {}, ()

    async def unary(self, method: MethodDescriptor, request: Any, context: Any) -> Any:
        self._record(method, request, context)
        await context.send_initial_metadata(self.initial_metadata)
        return await _step(self.answers.get(method.name, GetMessageClass(method.output_type)()), context)

    async def stream(self, method: MethodDescriptor, request: Any, context: Any) -> AsyncIterator[Any]:
        self._record(method, request, context)
        if self.initial_metadata:
            await context.send_initial_metadata(self.initial_metadata)
        try:
            script = self.answers.get(method.name, ())
            if hasattr(script, "__aiter__"):
                async for item in script:
                    yield item
                return
            for item in script:
                yield await _step(item, context)
        finally:
            self.ended += 1

    def _record(self, method: MethodDescriptor, request: Any, context: Any) -> None:
        self.calls.append((method.name, request))
        self.metadata.append(tuple(context.invocation_metadata()))
        self.peers.append(peer_of(context))
        self.seconds.append(context.time_remaining())

    def handler(self) -> Any:
        methods = {method.name: self._handler(method) for method in self.service.methods}
        return grpc.method_handlers_generic_handler(self.service.full_name, methods)

    def _handler(self, method: MethodDescriptor) -> Any:
        async def unary(request: Any, context: Any) -> Any:
            return await self.unary(method, request, context)

        async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
            async for item in self.stream(method, request, context):
                yield item

        async def collect(requests: AsyncIterator[Any], context: Any) -> Any:
            return await self.unary(method, [request async for request in requests], context)

        kinds: dict[tuple[bool, bool], tuple[Any, Any]] = {
            (False, False): (grpc.unary_unary_rpc_method_handler, unary),
            (False, True): (grpc.unary_stream_rpc_method_handler, stream),
            (True, False): (grpc.stream_unary_rpc_method_handler, collect),
            (True, True): (grpc.stream_stream_rpc_method_handler, stream),
        }
        make, behaviour = kinds[method.client_streaming, method.server_streaming]
        return make(
            behaviour,
            request_deserializer=GetMessageClass(method.input_type).FromString,
            response_serializer=GetMessageClass(method.output_type).SerializeToString,
        )


async def _step(script: Any, context: Any) -> Any:
    if not isinstance(script, Failure):
        return script
    status = status_pb2.Status(code=script.code, message=script.message, details=script.details)
    trailing = (("grpc-status-details-bin", status.SerializeToString()),) if script.details else ()
    return await context.abort(CODES[script.code], script.message, trailing)


def listening(
    recorder: Recorder, credentials: grpc.ServerCredentials | None = None, at: int = 0
) -> AbstractAsyncContextManager[str]:
    """The service on a port of its own, or `at` one; yields its address."""
    return channels.listening([recorder.handler()], credentials, at)


def reached(recorder: Recorder, kind: str) -> AbstractAsyncContextManager[Any]:
    """A channel to the service: over a `socket`, or `in process`."""
    return channels.reached([recorder.handler()], kind)


@asynccontextmanager
async def transcoded(service: ServiceDescriptor, channel: Any, **options: Any) -> AsyncIterator[Client]:
    """A client of the service as JSON, on a port of its own."""
    app = transcode([service], channel, options=TranscoderOptions(**options))
    async with serve(app, host="127.0.0.1", port=0, drain_seconds=1) as at, aiohttp.ClientSession() as session:
        yield Client(session, at.host, at.port)
