"""An installation that has come to rest, with all kinds of jobs that have ended."""

from pathlib import Path

import pytest
from jobledger.v1.job_service_pb2 import CancelJobRequest
from support.executors import CANCELLED, FAILURE
from support.installations import installation
from support.services import ANYBODY


@pytest.fixture
async def data_dir(tmp_path: Path) -> Path:
    """Three batches: a job each, with output; then one that failed and one that was cancelled."""
    directory = tmp_path / "data"
    async with installation(directory) as it:
        for number in range(2):
            await it.ended(outputs={"result": f"output {number}".encode()}, labels={"n": str(number)})
            await it.archiver.caught_up()
        failed = await it.started(workspace_id="other")
        cancelled = await it.started()
        await it.served.cancelling.cancel(CancelJobRequest(job_id=cancelled, reason="unwanted"), ANYBODY)
        await it.served.finisher.attempt_ended(failed, 1, FAILURE)
        await it.served.finisher.attempt_ended(cancelled, 1, CANCELLED)
    return directory
