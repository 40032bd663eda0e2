"""Accepting a job: what is answered is the caller's to see, whatever the store found."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from jobledger.v1.job_pb2 import JobSpec
from jobledger.v1.job_service_pb2 import CreateJobRequest
from jobledger_server.core.concurrency import NO_LIMITS
from jobledger_server.core.errors import Reason, ServiceError
from jobledger_server.core.job_types import NO_JOB_TYPES
from jobledger_server.core.policy import Principal
from jobledger_server.service.creating import Creating
from jobledger_server.service.workspace import Workspaces
from support.clock import ManualClock
from support.records import a_record

REQUEST = CreateJobRequest(spec=JobSpec(command=["true"]), idempotency_key="once")


async def test_a_job_that_its_caller_may_not_see_is_absent_also_where_a_key_has_found_it(tmp_path: Path) -> None:
    kept: list[Any] = []

    async def create_job(record: Any, events: Any, key: Any) -> Any:
        kept.append((record.job.workspace_id, key.principal, key.workspaces))
        return a_record(workspace_id="blue")

    async def require_room() -> None:
        return None

    store: Any = SimpleNamespace(create_job=create_job)
    creating = Creating(
        store=store,
        clock=ManualClock(),
        finisher=SimpleNamespace(),  # type: ignore[arg-type]  # told of no job
        workspaces=Workspaces(data_dir=tmp_path),
        limits=NO_LIMITS,
        storage=SimpleNamespace(require_room=require_room),  # type: ignore[arg-type]
        roots=(),
        job_types=NO_JOB_TYPES,
        objection=lambda job_dir, working_dir: None,
    )
    bound = Principal(token_id="bound", scopes=frozenset({"jobs:create", "jobs:exec"}), workspaces=frozenset({"red"}))
    with pytest.raises(ServiceError) as refused:
        await creating.create(REQUEST, bound)
    assert (refused.value.reason, refused.value.hidden) == (Reason.ERROR_REASON_JOB_NOT_FOUND, True)
    assert kept == [("red", "bound", ("red",))]
