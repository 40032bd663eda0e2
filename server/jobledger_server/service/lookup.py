"""Finds the job that a caller names, if the caller may see it."""

from collections.abc import Iterable
from itertools import islice

from jobledger_server.core.audit import note_hidden
from jobledger_server.core.errors import Reason, ServiceError
from jobledger_server.core.ids import is_job_id
from jobledger_server.core.policy import Principal
from jobledger_server.core.ports import JobRecord, JobStore

# Of the jobs that one call names among others, the audit log is told of so many.
NOTED_HIDDEN = 16


async def find_job(store: JobStore, principal: Principal, job_id: str) -> JobRecord:
    """The record.

    Raises:
        ServiceError: JOB_NOT_FOUND, in the same words whether the job does not exist or the caller may not see it;
            BAD_REQUEST for an id with NUL.
    """
    if "\0" in job_id:
        raise ServiceError(Reason.ERROR_REASON_BAD_REQUEST, "job_id: must not contain NUL")
    record = await store.get_job(job_id) if is_job_id(job_id) else None
    if record is None or not principal.sees(record.job.workspace_id):
        raise ServiceError(Reason.ERROR_REASON_JOB_NOT_FOUND, hidden=record is not None)
    return record


async def note_hidden_jobs(store: JobStore, principal: Principal, job_ids: Iterable[str]) -> None:
    """Has the audit log told which of these are there, for others: each is looked for, whether it is or not."""
    if principal.workspaces is None:
        return
    for job_id in islice(job_ids, NOTED_HIDDEN):
        try:
            await find_job(store, principal, job_id)
        except ServiceError as error:
            if error.hidden:
                note_hidden(job_id)
