"""Lists of jobs: for programs by filter and page, for operators what runs and waits."""

import asyncio
from collections.abc import Mapping, Sequence

from jobledger.v1.job_pb2 import JOB_STATE_QUEUED, Job
from jobledger.v1.job_service_pb2 import (
    LIVE_SCOPE_ALL,
    ListJobsRequest,
    ListJobsResponse,
    ListLiveJobsRequest,
    ListLiveJobsResponse,
    LiveJob,
)

from jobledger_server.core.errors import invalid
from jobledger_server.core.labels import parse_labels
from jobledger_server.core.pages import PageTokens
from jobledger_server.core.policy import Principal
from jobledger_server.core.ports import Executor, JobFilter, JobOrder, JobPage, JobRecord, Store
from jobledger_server.core.states import ACTIVE, LIVE
from jobledger_server.core.times import micros, timestamp
from jobledger_server.service.current_answers import Answer, CurrentAnswers
from jobledger_server.service.list_forms import ListForm
from jobledger_server.service.workspace import STDIN_OPEN, Workspaces

DEFAULT_LIMIT = 50
MOST_LIVE = 1000


class Listing:
    """ListJobs and ListLiveJobs."""

    def __init__(self, *, store: Store, executor: Executor, workspaces: Workspaces, pages: PageTokens) -> None:
        self._store = store
        self._executor = executor
        self._workspaces = workspaces
        self._pages = pages
        self._answers = CurrentAnswers()

    async def list(self, request: ListJobsRequest, principal: Principal, form: ListForm) -> Answer:
        """A page of jobs, newest first, in this form. It is as of an instant within the call, however often asked."""
        key = (form, principal.token_id, principal.workspaces, request.SerializeToString(deterministic=True))
        # Before anything is read: what is read later may be newer than the revision says, never older.
        revision = self._store.revision
        answer = self._answers.get(key, revision)
        if answer is None:
            answer = Answer(await self._page(request, principal, form))
            self._answers.put(key, revision, answer)
        return answer

    async def _page(self, request: ListJobsRequest, principal: Principal, form: ListForm) -> bytes:
        where = _filter(request, principal)
        limit = request.limit or DEFAULT_LIMIT
        binding = _binding(request, principal)
        after = self._pages.open(request.page_token, binding) if request.page_token else None
        page = await self._store.list_serialized(where, limit=limit + 1, offset=request.offset, after=after)
        rest = ListJobsResponse(total=page.total, offset=request.offset, limit=limit)
        if len(page.jobs) > limit:
            rest.next_page_token = self._pages.seal(_place(Job.FromString(page.jobs[limit - 1])), binding)
        return form.page(page.jobs[:limit], rest)

    async def list_live(self, request: ListLiveJobsRequest, principal: Principal) -> ListLiveJobsResponse:
        """What runs and waits now; with scope `all` every job, newest first."""
        everything = request.scope == LIVE_SCOPE_ALL
        if not everything and (request.HasField("limit") or request.HasField("page_token")):
            raise invalid("scope", "limit and page_token go with scope=all")
        binding = ["live", *_visible(principal)]
        where = JobFilter(states=() if everything else tuple(sorted(LIVE)), workspaces=_workspaces(principal))
        limit = request.limit or MOST_LIVE
        after = self._pages.open(request.page_token, binding) if request.page_token else None
        order = JobOrder.NEWEST if everything else JobOrder.LIVE
        page = await self._store.list_jobs(where, limit=limit + 1, after=after, order=order)
        records = page.records[:limit]
        kept = await self._kept_for_start([record.job for record in records])
        jobs = [self._live(record, kept) for record in records]
        response = ListLiveJobsResponse(jobs=jobs, total=page.total)
        if everything and (following := self._next(page, limit, binding)) is not None:
            response.next_page_token = following
        return response

    def _next(self, page: JobPage, limit: int, binding: Sequence[object]) -> str | None:
        if len(page.records) <= limit:
            return None
        return self._pages.seal(_place(page.records[limit - 1].job), binding)

    async def _kept_for_start(self, jobs: Sequence[Job]) -> Mapping[str, int]:
        """How many follow-ups wait for the start of each of the jobs that take any before."""
        waiting = [job for job in jobs if job.state == JOB_STATE_QUEUED and job.spec.stdin == STDIN_OPEN]
        # Each is a file: all of them in one thread, that nobody else waits for it.
        return await asyncio.to_thread(self._count_kept, waiting) if waiting else {}

    def _count_kept(self, jobs: Sequence[Job]) -> Mapping[str, int]:
        return {job.job_id: self._workspaces.count_early_input(job) for job in jobs}

    def _live(self, record: JobRecord, kept: Mapping[str, int]) -> LiveJob:
        job = record.job
        live = LiveJob(
            job_id=job.job_id,
            workspace_id=job.workspace_id,
            state=job.state,
            last_activity_at=timestamp(record.last_activity_at),
        )
        if job.state in ACTIVE:
            live.queued_followups = self._executor.queued_inputs(job.job_id, job.attempt)
        else:
            live.queued_followups = kept.get(job.job_id, 0)
        if job.HasField("started_at"):
            live.started_at.CopyFrom(job.started_at)
        if job.HasField("error_code"):
            live.error_code = job.error_code
        return live


def _place(job: Job) -> tuple[int, str]:
    return micros(job.created_at), job.job_id


def _filter(request: ListJobsRequest, principal: Principal) -> JobFilter:
    return JobFilter(
        states=tuple(sorted(set(request.state))),
        created_after=micros(request.created_after) if request.HasField("created_after") else None,
        created_before=micros(request.created_before) if request.HasField("created_before") else None,
        id_prefix=request.search,
        labels=parse_labels(request.label),
        workspace_id=request.workspace_id if request.HasField("workspace_id") else None,
        job_type=request.job_type if request.HasField("job_type") else None,
        workspaces=_workspaces(principal),
    )


def _workspaces(principal: Principal) -> tuple[str, ...] | None:
    return None if principal.workspaces is None else tuple(sorted(principal.workspaces))


def _visible(principal: Principal) -> list[str]:
    return [principal.line, *(_workspaces(principal) or ())]


def _binding(request: ListJobsRequest, principal: Principal) -> list[str]:
    """What a page token of this list holds on to: everything but the page itself, however the filter is written."""
    bare = ListJobsRequest()
    bare.CopyFrom(request)
    for field in ("limit", "offset", "page_token"):
        bare.ClearField(field)
    bare.state[:] = sorted(set(request.state))
    bare.label[:] = sorted(set(request.label))
    return ["jobs", bare.SerializeToString(deterministic=True).hex(), *_visible(principal)]
