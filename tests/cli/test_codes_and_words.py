"""What scripts go by: exit codes and JSON; and what a person is told where there is nothing."""

import json
import shutil
from pathlib import Path

import pytest
from cli.program import Run
from jobledger.v1.job_service_pb2 import ListJobsResponse
from jobledger.v1.receipt_service_pb2 import Checkpoint
from receipt_documents import EXAMPLE
from sdk.fake_server import FakeServer, Refusal


@pytest.mark.parametrize(
    ("refusal", "code"),
    [
        (Refusal(reason="PATH_NOT_ALLOWED"), 4),
        (Refusal(reason="PATH_TRAVERSAL"), 4),
        (Refusal(reason="FORBIDDEN", metadata={"variable": "HOME"}), 4),
        (Refusal(reason="FORBIDDEN", metadata={"scope": "jobs:exec"}), 3),
    ],
)
async def test_a_path_or_secret_that_nobody_gets_is_no_want_of_access(
    server: FakeServer, run: Run, refusal: Refusal, code: int
) -> None:
    server.on("CreateJob", refusal)
    assert (await run("run", "--", "true")).code == code


async def test_where_no_job_fits_nobody_is_told_that_there_are_none(server: FakeServer, run: Run) -> None:
    server.on("ListJobs", ListJobsResponse())
    assert "submits one" in (await run("ls")).err
    for asked in (["--state", "failed"], ["--label", "a=b"], ["--since", "1h", "--all"]):
        assert (await run("ls", *asked)).err == "No job fits\n"


async def test_checkpoint_and_consistency_have_json_too(server: FakeServer, run: Run, tmp_path: Path) -> None:
    shutil.copy(EXAMPLE / "checkpoint.txt", tmp_path)
    server.on("GetCheckpoint", Checkpoint(note="origin\n1\nroot\n"))
    assert (await run("receipt", "checkpoint")).out == "origin\n1\nroot\n"
    assert json.loads((await run("receipt", "checkpoint", "--json")).out)["note"] == "origin\n1\nroot\n"
    server.on("GetConsistencyProof", Refusal(reason="VALIDATION", message="no"))
    refused = await run("receipt", "consistency", "--checkpoint", str(tmp_path / "checkpoint.txt"), "--json")
    assert json.loads(refused.err)["error_code"] == "E_VALIDATION"
