"""Waits for the end of a job."""

import asyncio

from jobledger_server.core.policy import Principal
from jobledger_server.core.ports import JobRecord, JobStore
from jobledger_server.core.states import is_terminal
from jobledger_server.service.lookup import find_job
from jobledger_server.service.signals import JobSignals, wait_at_most

# A signal is a hint; this is how long one that was lost can cost.
LONGEST_BLIND_WAIT = 5.0


async def wait_for_end(
    store: JobStore, signals: JobSignals, principal: Principal, job_id: str, patience: float
) -> JobRecord:
    """The record once it is terminal, or as it is after `patience` seconds.

    Raises:
        ServiceError: JOB_NOT_FOUND, where it is not there, or deleted meanwhile.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + patience
    while True:
        changed = signals.waiter(job_id)
        try:
            record = await find_job(store, principal, job_id)
            left = until - loop.time()
            if is_terminal(record.job.state) or left <= 0:
                return record
            await wait_at_most(changed, min(left, LONGEST_BLIND_WAIT))
        finally:
            changed.cancel()
