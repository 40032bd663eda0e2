"""The two doors to the same server: gRPC and REST, behind one set of verbs.

A test that is written against `Door` runs through both. Answers come in the shape of the REST API's JSON; refusals as
`Refused`.
"""

import io
import json
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar
from urllib.parse import quote

import aiohttp
import grpc
from google.protobuf import json_format
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from google.rpc.status_pb2 import Status
from jobledger.v1 import job_service_pb2 as pb
from jobledger.v1.engine_service_pb2 import CollectGarbageRequest, EngineStatus, GetStatusRequest
from jobledger.v1.engine_service_pb2_grpc import EngineServiceStub
from jobledger.v1.job_service_pb2_grpc import JobServiceStub

SHORTENED = ("JOB_STATE_", "LOG_LEVEL_", "ARTIFACT_STATUS_", "ARTIFACT_TYPE_", "JOB_PRIORITY_")
ENGINE_REQUESTS: dict[str, type[Message]] = {"GetStatus": GetStatusRequest, "CollectGarbage": CollectGarbageRequest}
Json = dict[str, Any]


@dataclass
class Refused(Exception):  # noqa: N818 - reads as what happened
    """A call that was refused: `status` is HTTP's, or the gRPC code's name."""

    error_code: str
    message: str
    status: int | str
    details: Json = field(default_factory=dict)


class Door(ABC):
    """What clients do, through one of the doors."""

    name: str

    @abstractmethod
    async def call(self, verb: str, **request: Any) -> Json:
        """Calls an RPC by its name, with the fields of its request."""

    @abstractmethod
    def events(self, **request: Any) -> AsyncIterator[Json]:
        """Follows the events."""

    @abstractmethod
    async def receipt(self, job_id: str, form: str = "json") -> tuple[bytes, Mapping[str, str]]:
        """The bytes of a receipt, and what came with them as headers or metadata."""

    @abstractmethod
    async def download(self, job_id: str, artifact_id: int) -> bytes:
        """An artifact's bytes."""

    async def create(self, *command: str, key: str = "", **spec: Any) -> Json:
        return await self.call("CreateJob", spec={"command": list(command), **spec}, idempotency_key=key)

    async def get(self, job_id: str) -> Json:
        return await self.call("GetJob", job_id=job_id)

    async def cancel(self, job_id: str, **fields: Any) -> Json:
        return await self.call("CancelJob", job_id=job_id, **fields)

    async def ended(self, job_id: str) -> Json:
        """The job once it is terminal."""
        return await self.call("WaitJob", job_id=job_id, timeout="60s")


class GrpcDoor(Door):
    """gRPC, as grpcurl or the desktop app use it."""

    name = "grpc"

    def __init__(self, channel: grpc.aio.Channel, token: str | None) -> None:
        self.jobs = JobServiceStub(channel)
        self.engine = EngineServiceStub(channel)
        self.metadata = (("authorization", f"Bearer {token}"),) if token else ()

    async def call(self, verb: str, **request: Any) -> Json:
        stub = self.engine if verb in ENGINE_REQUESTS else self.jobs
        kind = ENGINE_REQUESTS.get(verb) or getattr(pb, f"{verb}Request")
        try:
            message = json_format.ParseDict(_long(request), kind())
        except json_format.ParseError as error:
            raise Refused("E_VALIDATION", str(error), "client") from None
        try:
            return _plain(await getattr(stub, verb)(message, metadata=self.metadata))
        except grpc.aio.AioRpcError as error:
            raise refused(error) from None

    async def events(self, **request: Any) -> AsyncIterator[Json]:
        try:
            async for event in self.jobs.WatchEvents(pb.WatchEventsRequest(**request), metadata=self.metadata):
                yield _flat(event)
        except grpc.aio.AioRpcError as error:
            raise refused(error) from None

    async def receipt(self, job_id: str, form: str = "json") -> tuple[bytes, Mapping[str, str]]:
        request = pb.GetReceiptRequest(job_id=job_id, format=pb.ReceiptFormat.Value(f"RECEIPT_FORMAT_{form.upper()}"))
        call = self.jobs.GetReceipt(request, metadata=self.metadata)
        try:
            body = await call
        except grpc.aio.AioRpcError as error:
            raise refused(error) from None
        return body.data, {str(key): str(value) for key, value in await call.initial_metadata()}

    async def download(self, job_id: str, artifact_id: int) -> bytes:
        request = pb.DownloadArtifactRequest(job_id=job_id, artifact_id=artifact_id)
        try:
            return b"".join([body.data async for body in self.jobs.DownloadArtifact(request, metadata=self.metadata)])
        except grpc.aio.AioRpcError as error:
            raise refused(error) from None


class RestDoor(Door):
    """REST, as curl or a dashboard use it."""

    name = "rest"
    paths: ClassVar[dict[str, tuple[str, str]]] = {
        "CreateJob": ("POST", "/v1/jobs"),
        "GetJob": ("GET", "/v1/jobs/{job_id}"),
        "ListJobs": ("GET", "/v1/jobs"),
        "ListJobTypes": ("GET", "/v1/job-types"),
        "CancelJob": ("POST", "/v1/jobs/{job_id}/cancel"),
        "CancelJobs": ("POST", "/v1/jobs:cancel"),
        "WaitJob": ("GET", "/v1/jobs/{job_id}/wait"),
        "SendInput": ("POST", "/v1/jobs/{job_id}/input"),
        "GetLogs": ("GET", "/v1/jobs/{job_id}/logs"),
        "GetArtifacts": ("GET", "/v1/jobs/{job_id}/artifacts"),
        "DeleteJob": ("DELETE", "/v1/jobs/{job_id}"),
        "GetStatus": ("GET", "/v1/engine/status"),
        "CollectGarbage": ("POST", "/v1/engine:gc"),
    }

    def __init__(self, session: aiohttp.ClientSession, url: str, token: str | None) -> None:
        self.session = session
        self.url = url
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}

    async def call(self, verb: str, **request: Any) -> Json:
        method, path = self.paths[verb]
        if "{job_id}" in path:
            path = path.replace("{job_id}", quote(request.pop("job_id"), safe=""))
        async with self.request(method, path, request) as response:
            return dict(await _read(response))

    def request(self, method: str, path: str, fields: Mapping[str, Any]) -> "aiohttp.client._RequestContextManager":
        if method == "POST":
            body = io.BytesIO(json.dumps(fields).encode())
            headers = {**self.headers, "Content-Type": "application/json"}
            return self.session.post(self.url + path, data=body, headers=headers)
        query = [(name, _text(item)) for name, value in fields.items() for item in _items(value)]
        return self.session.request(method, self.url + path, params=query, headers=self.headers)

    async def events(self, **request: Any) -> AsyncIterator[Json]:
        query = [(name, _text(item)) for name, value in request.items() for item in _items(value)]
        headers = {**self.headers, "Accept": "text/event-stream"}
        async with self.session.get(f"{self.url}/v1/stream", params=query, headers=headers) as response:
            if response.status != 200:
                await _read(response)
            async for event in server_sent(response.content):
                yield json.loads(event["data"])

    async def receipt(self, job_id: str, form: str = "json") -> tuple[bytes, Mapping[str, str]]:
        query = {} if form == "json" else {"format": form}
        path = f"{self.url}/v1/jobs/{job_id}/receipt"
        async with self.session.get(path, params=query, headers=self.headers) as response:
            if response.status != 200:
                await _read(response)
            return await response.read(), {name.lower(): value for name, value in response.headers.items()}

    async def download(self, job_id: str, artifact_id: int) -> bytes:
        path = f"{self.url}/v1/jobs/{job_id}/artifacts/{artifact_id}/content"
        async with self.session.get(path, headers=self.headers) as response:
            if response.status != 200:
                await _read(response)
            return await response.read()


async def server_sent(content: aiohttp.StreamReader) -> AsyncIterator[dict[str, str]]:
    """Server-sent events: their fields, `data` joined; comments are left out."""
    event: dict[str, str] = {}
    async for raw in content:
        line = raw.decode().rstrip("\n")
        if not line:
            if "data" in event:
                yield event
            event = {}
        elif not line.startswith(":"):
            name, _, value = line.partition(": ")
            event[name] = f"{event[name]}\n{value}" if name in event else value


def refused(error: grpc.aio.AioRpcError) -> Refused:
    """What a status says."""
    raw = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin")
    if raw is None:
        return Refused("", error.details() or "", error.code().name)
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in Status.FromString(raw).details:
        _ = detail.Unpack(info) or detail.Unpack(bad)
    details: Json = dict(info.metadata)
    if bad.field_violations:
        details["fields"] = [{"field": it.field, "description": it.description} for it in bad.field_violations]
    return Refused(f"E_{info.reason}", error.details() or "", error.code().name, details)


async def _read(response: aiohttp.ClientResponse) -> Any:
    body = await response.json()
    if response.status >= 300:
        raise Refused(body["error_code"], body["message"], response.status, body["details"])
    return body


def _items(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else [value]


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _long(request: Mapping[str, Any]) -> Json:
    """Short names of enums as ProtoJSON has them."""
    prefixes = {"state": "JOB_STATE_", "level": "LOG_LEVEL_", "order": "SORT_ORDER_", "priority": "JOB_PRIORITY_"}

    def long(name: str, value: Any) -> Any:
        if isinstance(value, dict) and name != "config":
            return {key: long(key, item) for key, item in value.items()}
        if name not in prefixes:
            return value
        if isinstance(value, list):
            return [f"{prefixes[name]}{item.upper()}" for item in value]
        return f"{prefixes[name]}{value.upper()}"

    return {name: long(name, value) for name, value in request.items()}


def _plain(message: Message) -> Json:
    """A message in the shape of the REST API, near enough for comparing what both tell."""
    values = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return dict(_short(values))


def _short(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _number(key, _short(item)) for key, item in value.items()}
    if isinstance(value, list):
        return [_short(item) for item in value]
    if isinstance(value, str):
        for prefix in SHORTENED:
            if value.startswith(prefix):
                return value.removeprefix(prefix).lower()
    return value


def _number(key: str, value: Any) -> Any:
    numeric = ("total", "offset", "id", "job_sequence", "size_bytes", "queue_position", "sequence_number")
    return int(value) if key in numeric and isinstance(value, str) and value.isdigit() else value


def _flat(event: Message) -> Json:
    values = _plain(event)
    values.update(values.pop("job", {}))
    details = ("state_changed", "progress", "artifact", "heartbeat", "shutting_down", "replay_complete", "bookmark")
    for detail in details:
        values.update(values.pop(detail, {}))
    return values


__all__ = ["Door", "EngineStatus", "GrpcDoor", "Refused", "RestDoor", "refused", "server_sent"]
