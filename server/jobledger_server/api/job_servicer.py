"""JobService: each method reads the request, calls a use case, and answers."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from google.api.httpbody_pb2 import HttpBody
from google.protobuf.message import Message
from jobledger.v1 import job_service_pb2 as pb
from jobledger.v1.events_pb2 import Event
from jobledger.v1.job_pb2 import Job
from jobledger.v1.job_service_pb2_grpc import JobServiceServicer

from jobledger_server.api.bursts import singly
from jobledger_server.api.downloads import attachment, bodies
from jobledger_server.api.interceptors.access import current_principal
from jobledger_server.api.types import Context, PlainJson
from jobledger_server.core.job_types import JobTypes
from jobledger_server.joblog.plain_json import json_answer, json_items
from jobledger_server.joblog.wire import wire_answer, wire_batch, wire_entries
from jobledger_server.service.artifacts import Artifacts
from jobledger_server.service.cancelling import Cancelling
from jobledger_server.service.creating import Creating
from jobledger_server.service.events import EventHub
from jobledger_server.service.job_types import list_job_types
from jobledger_server.service.jobs import Jobs
from jobledger_server.service.list_forms import json_form, wire_form
from jobledger_server.service.listing import Listing
from jobledger_server.service.logs import Logs, TailForm
from jobledger_server.service.receipts import Receipts

JSON = "application/json"
DSSE = "application/vnd.dsse.envelope.v1+json"
TEXT = "text/plain; charset=utf-8"
BYTES = "application/octet-stream"
# The number after which a stream of events starts: a point to resume from for who is cut off before the first event.
RESUME_FROM = "jobledger-resume-from"
RECEIPT_FORMS = {
    pb.RECEIPT_FORMAT_UNSPECIFIED: (JSON, "receipt-{}.json"),
    pb.RECEIPT_FORMAT_JSON: (JSON, "receipt-{}.json"),
    pb.RECEIPT_FORMAT_DSSE: (DSSE, "receipt-{}.dsse.json"),
    pb.RECEIPT_FORMAT_PROOF: (TEXT, "receipt-{}.tlog-proof"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class JobUseCases:
    """What the servicer calls."""

    creating: Creating
    job_types: JobTypes
    jobs: Jobs
    listing: Listing
    cancelling: Cancelling
    logs: Logs
    artifacts: Artifacts
    receipts: Receipts
    events: EventHub


class JobServicer(JobServiceServicer):
    """Jobs over gRPC, and within the process."""

    def __init__(self, use_cases: JobUseCases, *, to_json: Callable[[Message], bytes]) -> None:
        """`to_json` makes JSON of messages, as the gateway does, for calls that take an answer in that form."""
        self._do = use_cases
        self._wire_lists, self._json_lists = wire_form(), json_form(to_json)

    async def CreateJob(self, request: pb.CreateJobRequest, context: Context) -> Job:
        record = await self._do.creating.create(request, current_principal())
        await context.send_initial_metadata((("location", f"/v1/jobs/{record.job.job_id}"),))
        return await self._do.jobs.full(record, current_principal())

    async def GetJob(self, request: pb.GetJobRequest, context: Context) -> Job:
        return await self._do.jobs.get(request.job_id, current_principal())

    async def ListJobTypes(self, request: pb.ListJobTypesRequest, context: Context) -> pb.ListJobTypesResponse:
        return list_job_types(self._do.job_types, current_principal())

    async def ListJobs(self, request: pb.ListJobsRequest, context: Context) -> Any:
        """Coded already: as the message, or as JSON."""
        if not getattr(context, "takes_json", False):
            return (await self._do.listing.list(request, current_principal(), self._wire_lists)).body
        answer = await self._do.listing.list(request, current_principal(), self._json_lists)
        await context.send_initial_metadata((("etag", answer.etag),))
        return PlainJson(answer.body)

    async def ListLiveJobs(self, request: pb.ListLiveJobsRequest, context: Context) -> pb.ListLiveJobsResponse:
        return await self._do.listing.list_live(request, current_principal())

    async def CancelJob(self, request: pb.CancelJobRequest, context: Context) -> pb.CancelJobResponse:
        remaining = context.time_remaining()
        return await self._do.cancelling.cancel(request, current_principal(), deadline=remaining)

    async def CancelJobs(self, request: pb.CancelJobsRequest, context: Context) -> pb.CancelJobsResponse:
        return await self._do.cancelling.cancel_many(request, current_principal())

    async def WaitJob(self, request: pb.WaitJobRequest, context: Context) -> Job:
        return await self._do.jobs.wait(request, current_principal())

    async def SendInput(self, request: pb.SendInputRequest, context: Context) -> pb.SendInputResponse:
        return pb.SendInputResponse(queued_followups=await self._do.jobs.send_input(request, current_principal()))

    async def GetLogs(self, request: pb.GetLogsRequest, context: Context) -> Any:
        """Coded already: as the message, or as JSON."""
        takes_json = getattr(context, "takes_json", False)
        form = json_answer if takes_json else wire_answer
        page = await self._do.logs.page(request, current_principal(), form)
        if page.etag is not None:
            await context.send_initial_metadata((("etag", page.etag),))
        return PlainJson(page.body) if takes_json else page.body

    async def GetLogContent(self, request: pb.GetLogContentRequest, context: Context) -> AsyncIterator[Any]:
        content = await self._do.logs.content(request, current_principal())
        await context.send_initial_metadata(
            (
                ("x-content-length", str(content.part.size)),
                ("jobledger-log-dropped-bytes", str(content.dropped)),
                ("jobledger-log-redacted", "true" if content.redacted else "false"),
            )
        )
        async for body in bodies(content.chunks, TEXT, context):
            yield body

    async def TailLogs(self, request: pb.TailLogsRequest, context: Context) -> AsyncIterator[Any]:
        """Coded already, but for the end: as messages, or as JSON."""
        if getattr(context, "takes_json", False):
            form: TailForm = json_items
        else:
            form = wire_batch if request.max_batch > 1 else wire_entries
        entries = await self._do.logs.tail(request, current_principal(), form)
        await context.send_initial_metadata(())
        async for responses in singly(entries, context):
            yield responses

    async def GetArtifacts(self, request: pb.GetArtifactsRequest, context: Context) -> pb.GetArtifactsResponse:
        return pb.GetArtifactsResponse(artifacts=await self._do.artifacts.list(request.job_id, current_principal()))

    async def DownloadArtifact(self, request: pb.DownloadArtifactRequest, context: Context) -> AsyncIterator[Any]:
        download = await self._do.artifacts.download(request, current_principal())
        await context.send_initial_metadata(
            (
                ("x-content-length", str(download.part.size)),
                ("etag", f'"{download.artifact.sha256}"'),
                ("content-disposition", attachment(download.artifact.name)),
            )
        )
        async for body in bodies(download.chunks, BYTES, context):
            yield body

    async def GetReceipt(self, request: pb.GetReceiptRequest, context: Context) -> HttpBody:
        data = await self._do.receipts.get(request.job_id, current_principal(), request.format)
        content_type, name = RECEIPT_FORMS[request.format]
        await context.send_initial_metadata((("content-disposition", attachment(name.format(request.job_id))),))
        return HttpBody(content_type=content_type, data=data)

    async def DeleteJob(self, request: pb.DeleteJobRequest, context: Context) -> pb.DeleteJobResponse:
        await self._do.jobs.delete(request.job_id, current_principal())
        return pb.DeleteJobResponse()

    async def WatchEvents(self, request: pb.WatchEventsRequest, context: Context) -> AsyncIterator[Event]:
        await self._do.jobs.note_hidden(request.job_id, current_principal())
        watch = await self._do.events.watch(request, current_principal(), push=getattr(context, "push", None))
        await context.send_initial_metadata(((RESUME_FROM, str(watch.starts_after)),))
        async for events in singly(watch, context):
            yield events
