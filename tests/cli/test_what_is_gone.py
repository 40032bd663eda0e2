"""The verbs on what is gone, or goes: deleted jobs, removed logs, artifacts that can't be had."""

import hashlib
import io
import json
import sys
from pathlib import Path

import click
import pytest
from cli.program import Run
from google.api.httpbody_pb2 import HttpBody
from google.protobuf.timestamp_pb2 import Timestamp
from jobledger.cli import delete
from jobledger.v1.engine_service_pb2 import CollectGarbageResponse, Garbage
from jobledger.v1.job_pb2 import Artifact, ArtifactStatus
from jobledger.v1.job_service_pb2 import (
    DeleteJobResponse,
    GetArtifactsResponse,
    GetLogsResponse,
    TailEnd,
    TailLogsResponse,
)
from sdk.fake_server import FakeServer, Refusal

AT = Timestamp(seconds=1_767_323_045)


async def test_an_artifact_that_can_not_be_had_is_named_and_the_exit_code_tells(
    server: FakeServer, run: Run, tmp_path: Path
) -> None:
    digest = hashlib.sha256(b"x").hexdigest()
    found = [
        Artifact(id=1, name="f", path="f", sha256=digest, size_bytes=1, status=ArtifactStatus.ARTIFACT_STATUS_COMPLETE),
        Artifact(id=2, name="g", path="g", sha256=digest, status=ArtifactStatus.ARTIFACT_STATUS_QUARANTINED),
    ]
    server.on("GetArtifacts", GetArtifactsResponse(artifacts=found))
    server.on("DownloadArtifact", [HttpBody(data=b"x")])
    outcome = await run("artifacts", "get", "job_1", "-o", str(tmp_path))
    assert (outcome.code, [path.name for path in tmp_path.iterdir()]) == (4, ["f"])
    assert "g is left out: it is quarantined" in outcome.err


async def test_jobs_are_deleted_each_for_itself_and_their_receipts_are_named(server: FakeServer, run: Run) -> None:
    refusals = {"job_2": Refusal(reason="JOB_NOT_FINISHED"), "job_3": Refusal(reason="JOB_NOT_FOUND")}
    server.on("DeleteJob", lambda request: refusals.get(request.job_id, DeleteJobResponse()))
    outcome = await run("delete", "job_1", "job_2", "job_3", "job_4", "job_1", "--yes")
    assert outcome.code == 4
    assert outcome.out.splitlines() == [
        f"job_{number}: deleted; its receipt stays: jobledger receipt job_{number}" for number in (1, 4)
    ]
    assert [line.split(":")[0] for line in outcome.err.splitlines()] == ["job_2", "job_3"]
    assert "jobledger cancel job_2 --wait" in outcome.err
    assert [request.job_id for request in server.requests["DeleteJob"]] == ["job_1", "job_2", "job_3", "job_4"]
    assert (await run("delete", "job_1", "-y")).code == 0
    outcome = await run("delete", "job_1", "job_2", "-y", "--json")
    told = [json.loads(line) for line in outcome.out.splitlines()]
    assert [(it["job_id"], it["deleted"], it["error_code"]) for it in told] == [
        *(("job_1", True, None), ("job_2", False, "E_JOB_NOT_FINISHED"))
    ]


async def test_nothing_is_deleted_where_nobody_can_be_asked(server: FakeServer, run: Run) -> None:
    server.on("DeleteJob", DeleteJobResponse())
    outcome = await run("delete", "job_1")
    assert (outcome.code, "say --yes" in outcome.err) == (2, True)
    server.on("DeleteJob", Refusal(reason="FORBIDDEN", message="needs the scope admin"))
    assert (await run("delete", "job_1", "job_2", "--yes")).code == 3
    assert len(server.requests["DeleteJob"]) == 1


async def test_an_empty_log_and_one_that_was_removed_are_told_apart(server: FakeServer, run: Run) -> None:
    server.on("TailLogs", [TailLogsResponse(end=TailEnd())])
    server.on("GetLogContent", [HttpBody(content_type="text/plain")])
    for said, answer in (
        ("", GetLogsResponse()),
        ("removed by retention at 2026-01-02T", GetLogsResponse(log_removed_at=AT)),
    ):
        server.on("GetLogs", answer)
        for flags in ((), ("--tail", "3"), ("--follow",), ("--raw",)):
            outcome = await run("logs", "job_1", *flags)
            assert (outcome.code, outcome.out) == (0, "")
            assert said in outcome.err if said else outcome.err == ""


async def test_gc_says_what_goes_and_what_would(server: FakeServer, run: Run) -> None:
    garbage = [Garbage(name="events", count=12, bytes=2048), Garbage(name="jobs", count=3)]
    server.on("CollectGarbage", CollectGarbageResponse(garbage=garbage))
    assert (await run("gc")).out.splitlines() == [
        "CLASS   REMOVED  SIZE",
        "events  12       2.0 KiB",
        "jobs    3        0 B",
    ]
    assert "WOULD GO" in (await run("gc", "--dry-run")).out
    assert [request.dry_run for request in server.requests["CollectGarbage"]] == [False, True]
    assert json.loads((await run("gc", "--json")).out)["garbage"][0] == {"name": "events", "count": 12, "bytes": 2048}


async def test_gc_without_garbage_says_so(server: FakeServer, run: Run) -> None:
    server.on("CollectGarbage", CollectGarbageResponse())
    outcome = await run("gc")
    assert (outcome.code, outcome.out) == (0, "")
    assert "nothing to remove" in outcome.err


class Terminal(io.StringIO):
    """A person who types this."""

    def isatty(self) -> bool:
        return True


def test_a_person_is_asked_before_anything_is_deleted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal("y\nn\n\n"))
    delete.ask(["job_1"])
    for _ in range(2):
        with pytest.raises(click.Abort):
            delete.ask(["job_1", "job_2"])
    told = capsys.readouterr()
    assert told.out == "", "that is for what was done"
    assert "Delete job_1 for good" in told.err
    assert "Delete 2 jobs for good" in told.err
