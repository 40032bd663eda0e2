"""Submitting jobs, finding them, waiting for them, cancelling them."""

import asyncio
import uuid
from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, TypedDict, Unpack

from jobledger.calls.base import Calls
from jobledger.errors import DeadlineError
from jobledger.spec import SpecFields, job_spec
from jobledger.v1.job_pb2 import Job, JobSpec, JobState, JobSummary
from jobledger.v1.job_service_pb2 import (
    CancelJobRequest,
    CancelJobResponse,
    CancelJobsRequest,
    CancelJobsResponse,
    CreateJobRequest,
    DeleteJobRequest,
    GetJobRequest,
    JobType,
    ListJobsRequest,
    ListJobsResponse,
    ListJobTypesRequest,
    SendInputRequest,
    WaitJobRequest,
)
from jobledger.values import duration, enum_number, is_terminal, short_name, timestamp

# The longest time for which one WaitJob is held open; short enough for proxies that cut idle calls after a minute.
LONG_POLL_SECONDS: Final = 50.0


class JobFilter(TypedDict, total=False):
    """Which jobs to list; all that is given must hold.

    `state`: any of these short names; `created_after` is inclusive, `created_before` exclusive; `search`: the beginning
    of the job_id.
    """

    state: Sequence[str]
    created_after: datetime
    created_before: datetime
    search: str
    labels: Mapping[str, str]
    workspace_id: str
    job_type: str


class CancelFilter(TypedDict, total=False):
    """Which jobs to cancel; at least one field is needed, and all that is given must hold."""

    state: Sequence[str]
    labels: Mapping[str, str]
    workspace_id: str
    job_type: str
    job_id: Sequence[str]


class JobCalls(Calls):
    """Verbs on jobs."""

    async def submit(
        self,
        command: Sequence[str] = (),
        *,
        spec: JobSpec | None = None,
        idempotency_key: str | None = None,
        **fields: Unpack[SpecFields],
    ) -> Job:
        """Submits a job: `spec`, with `command` and `fields` in place of what it has.

        The call is repeated while the server can't be reached; thanks to the key that makes one job, not several.

        Args:
            command: program and arguments.
            idempotency_key: the same key and specification give the same job again; a new one when None.

        Raises:
            ValidationError, PermissionDeniedError: the server does not take it.
            ConflictError: the key was used for another specification.
        """
        request = CreateJobRequest(
            spec=job_spec(command, base=spec, **fields), idempotency_key=idempotency_key or uuid.uuid4().hex
        )
        return await self._transport.call(self._jobs.CreateJob, request)

    async def get(self, job_id: str) -> Job:
        """A job, in full.

        Raises:
            NotFoundError: there is no such job, or the token may not see it.
        """
        return await self._transport.call(self._jobs.GetJob, GetJobRequest(job_id=job_id))

    async def job_types(self) -> Sequence[JobType]:
        """The kinds of job that the operator declares, by name. Needs the scope `jobs:create` or `jobs:read`."""
        return (await self._transport.call(self._jobs.ListJobTypes, ListJobTypesRequest())).job_types

    async def list(
        self,
        *,
        limit: int | None = None,
        offset: int | None = None,
        page_token: str | None = None,
        **where: Unpack[JobFilter],
    ) -> ListJobsResponse:
        """One page of jobs, newest first; `iterate` gives all of them."""
        request = ListJobsRequest(limit=limit, offset=offset, page_token=page_token, **_filter_fields(where))
        return await self._transport.call(self._jobs.ListJobs, request)

    async def iterate(self, *, page_size: int = 200, **where: Unpack[JobFilter]) -> AsyncGenerator[JobSummary, None]:
        """All jobs, newest first, a page at a time; jobs that are added meanwhile don't disturb it."""
        request = ListJobsRequest(limit=page_size, **_filter_fields(where))
        while True:
            page = await self._transport.call(self._jobs.ListJobs, request)
            for job in page.jobs:
                yield job
            if not page.HasField("next_page_token"):
                return
            request.page_token = page.next_page_token

    async def wait(self, job_id: str, *, timeout: float | None = None) -> Job:  # noqa: ASYNC109 - of the job, not the call
        """The job, once it is terminal. Lives through restarts of the server.

        Args:
            timeout: seconds to wait; None for as long as it takes.

        Raises:
            DeadlineError: the time is over and the job is not terminal, or the server out of reach.
            UnavailableError: the server was out of reach for longer than `reconnect_for`.
        """
        clock = asyncio.get_running_loop().time
        ends_at = None if timeout is None else clock() + timeout
        while True:
            try:
                job = await self._transport.wait_call(
                    self._jobs.WaitJob,
                    lambda held: WaitJobRequest(job_id=job_id, timeout=duration(held)),
                    longest=LONG_POLL_SECONDS,
                    ends_at=ends_at,
                )
            except DeadlineError as error:
                raise _too_late(f"Whether {job_id} has ended is not known: {error.message}") from error
            if is_terminal(job.state):
                return job
            if ends_at is not None and clock() >= ends_at:
                state = short_name(JobState, job.state)
                raise _too_late(f"{job_id} is still {state} after {timeout:g} s")

    async def cancel(
        self, job_id: str, *, reason: str | None = None, grace_period: float | timedelta | None = None
    ) -> CancelJobResponse:
        """Asks for the end of a job and returns at once; `wait` tells when it is there. Asking again changes nothing.

        Args:
            grace_period: seconds between SIGTERM and SIGKILL, in place of the job's own.

        Raises:
            ConflictError: the job has completed or failed.
        """
        request = CancelJobRequest(job_id=job_id, reason=reason, grace_period=_span(grace_period))
        return await self._transport.call(self._jobs.CancelJob, request)

    async def cancel_many(
        self,
        *,
        dry_run: bool = False,
        reason: str | None = None,
        grace_period: float | timedelta | None = None,
        **where: Unpack[CancelFilter],
    ) -> CancelJobsResponse:
        """Cancels every unfinished job that the filter finds, up to 1000 in a call; a result for each.

        Raises:
            ValidationError: the filter is empty.
        """
        request = CancelJobsRequest(
            dry_run=dry_run, reason=reason, grace_period=_span(grace_period), **_filter_fields(where)
        )
        return await self._transport.call(self._jobs.CancelJobs, request)

    async def send_input(self, job_id: str, text: str = "", *, close: bool = False) -> int:
        """Sends text to the standard input of a job that was submitted with `stdin="open"`; no newline is added.

        To a queued job too, for its start. Never repeated by itself: the text could arrive twice.

        Returns:
            How many follow-ups the job has not taken yet.

        Raises:
            ConflictError: the job takes no input.
        """
        request = SendInputRequest(job_id=job_id, text=text, close=close)
        answer = await self._transport.call(self._jobs.SendInput, request, repeatable=False)
        return answer.queued_followups

    async def delete(self, job_id: str) -> None:
        """Deletes a job that has ended, with its log and artifacts. Its receipt stays.

        Raises:
            ConflictError: the job has not ended.
        """
        await self._transport.call(self._jobs.DeleteJob, DeleteJobRequest(job_id=job_id), repeatable=False)


def _too_late(message: str) -> DeadlineError:
    return DeadlineError(message, error_code="E_DEADLINE")


def _span(span: float | timedelta | None) -> Any:
    return None if span is None else duration(span)


def _filter_fields(where: JobFilter | CancelFilter) -> dict[str, Any]:
    """Fields of a request from plain values."""
    fields: dict[str, Any] = dict(where)
    labels: Mapping[str, str] = fields.pop("labels", {})
    fields["label"] = [f"{key}={value}" for key, value in labels.items()]
    fields["state"] = [enum_number(JobState, name) for name in fields.get("state", ())]
    for name in ("created_after", "created_before"):
        if name in fields:
            fields[name] = timestamp(fields[name])
    return fields
