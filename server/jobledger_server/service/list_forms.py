"""Lists of jobs as bytes: a job is coded once for all pages that show it as it is, and a page is put together of those.

A job's bytes, as they are stored, are what its coded ones are found by: a job that has changed is another key.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache

from jobledger.v1.job_pb2 import Job, JobSummary
from jobledger.v1.job_service_pb2 import ListJobsResponse

# What is kept is bounded by this product, for each form; a job as most are takes half a kilobyte.
MOST_KEPT, MOST_BYTES_KEPT = 4096, 8 * 1024


class ListForm:
    """One way of coding lists.

    Args:
        code: codes a job.
        join: puts a page together, of jobs that are coded and a message with all the rest.
    """

    def __init__(
        self,
        *,
        code: Callable[[JobSummary], bytes],
        join: Callable[[Sequence[bytes], ListJobsResponse], bytes],
    ) -> None:
        self._code = code
        self._join = join
        self._kept = lru_cache(MOST_KEPT)(self._coded)

    def page(self, jobs: Sequence[bytes], rest: ListJobsResponse) -> bytes:
        """A page of jobs, each given as the bytes of its `Job`; `rest` has all of the answer but these."""
        coded = [self._kept(job) if len(job) <= MOST_BYTES_KEPT else self._coded(job) for job in jobs]
        return self._join(coded, rest)

    def _coded(self, job: bytes) -> bytes:
        return self._code(summary(Job.FromString(job)))


def wire_form() -> ListForm:
    """The message itself. Of a message, fields may be serialized apart, and their bytes put in a row."""
    return ListForm(
        code=lambda job: ListJobsResponse(jobs=[job]).SerializeToString(),
        join=lambda jobs, rest: b"".join((*jobs, rest.SerializeToString())),
    )


def json_form(encode: Callable[[JobSummary | ListJobsResponse], bytes]) -> ListForm:
    """JSON, as `encode` makes it of a message, keys in the order of the .proto: the jobs come first."""

    def join(jobs: Sequence[bytes], rest: ListJobsResponse) -> bytes:
        head, empty, tail = encode(rest).partition(b"[]")
        if head != b'{"jobs":' or not empty:
            raise ValueError("the JSON of a list does not begin with its jobs")
        return b"".join((head, b"[", b",".join(jobs), b"]", tail))

    return ListForm(code=encode, join=join)


def summary(job: Job) -> JobSummary:
    """A job as lists show it. All of it is stored: nothing depends on the clock."""
    short = JobSummary(
        job_id=job.job_id,
        state=job.state,
        job_type=job.job_type,
        created_at=job.created_at,
        workspace_id=job.workspace_id,
        labels=job.labels,
    )
    if job.HasField("started_at"):
        short.started_at.CopyFrom(job.started_at)
    if job.HasField("completed_at"):
        short.completed_at.CopyFrom(job.completed_at)
    if job.HasField("progress_percent"):
        short.progress_percent = job.progress_percent
    if job.HasField("progress_phase"):
        short.progress_phase = job.progress_phase
    if job.HasField("error_code"):
        short.error_code = job.error_code
    return short
