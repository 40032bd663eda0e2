"""The verbs, as a person or a script runs them."""

import base64
import hashlib
import json
import time
from pathlib import Path

import pytest
from cli.program import Run
from google.api.httpbody_pb2 import HttpBody
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from jobledger.v1.engine_service_pb2 import (
    EngineStatus,
    IssuedToken,
    TokenInfo,
)
from jobledger.v1.events_pb2 import Event, EventJob, ReplayComplete, StateChanged
from jobledger.v1.job_pb2 import Artifact, ArtifactStatus, Job, JobLimits, JobState, JobSummary, LogEntry, LogLevel
from jobledger.v1.job_service_pb2 import (
    CancelJobResponse,
    CancelJobsResponse,
    CancelResult,
    GetArtifactsResponse,
    GetLogsResponse,
    ListJobsResponse,
    SendInputResponse,
    TailEnd,
    TailLogsResponse,
)
from sdk.fake_server import TOKEN, FakeServer, Refusal

AT = Timestamp(seconds=1_767_323_045, nanos=678_901_000)
QUEUED = Job(job_id="job_1", state=JobState.JOB_STATE_QUEUED, created_at=AT)
COMPLETED = Job(job_id="job_1", state=JobState.JOB_STATE_COMPLETED, exit_code=0)
FAILED = Job(job_id="job_1", state=JobState.JOB_STATE_FAILED, exit_code=7, error_code="E_JOB_EXIT_NONZERO")
KILLED = Job(job_id="job_1", state=JobState.JOB_STATE_FAILED, signal=9, error_code="E_JOB_KILLED")
CANCELLED = Job(job_id="job_1", state=JobState.JOB_STATE_CANCELLED)


def _entry(number: int, message: str, subsystem: str = "stdout") -> LogEntry:
    level = LogLevel.LOG_LEVEL_INFO if subsystem == "stdout" else LogLevel.LOG_LEVEL_WARN
    return LogEntry(job_sequence=number, timestamp_utc=AT, level=level, subsystem=subsystem, message=message)


async def test_run_prints_the_id_and_nothing_else(server: FakeServer, run: Run) -> None:
    server.on("CreateJob", QUEUED)
    outcome = await run("run", "--label", "a=b", "--timeout", "2m", "--name", "n", "--", "echo", "--wait")
    assert (outcome.code, outcome.out, outcome.err) == (0, "job_1\n", "")
    spec = server.requests["CreateJob"][0].spec
    assert (list(spec.command), dict(spec.labels), spec.timeout.seconds) == (
        ["echo", "--wait"],
        {"a": "b", "name": "n"},
        120,
    )


async def test_run_takes_environment_config_and_input(server: FakeServer, run: Run, tmp_path: Path) -> None:
    server.on("CreateJob", QUEUED)
    (tmp_path / "c.json").write_text('{"k": [1]}')
    config = f"@{tmp_path / 'c.json'}"
    arguments = ("run", "-e", "A=1", "-e", "MINE", "--config", config, "--stdin", "-", "--input-ref", "r", "--", "cat")
    assert (await run(*arguments, stdin=b"hello", MINE="2")).code == 0
    spec = server.requests["CreateJob"][0].spec
    assert (dict(spec.env), spec.stdin, spec.inputs[0].reference) == ({"A": "1", "MINE": "2"}, "hello", "r")
    assert spec.config["k"][0] == 1


async def test_run_takes_limits_as_people_write_them(server: FakeServer, run: Run) -> None:
    server.on("CreateJob", QUEUED)
    limits = ("--cpu-time", "1.5m", "--memory", "512M", "--open-files", "64", "--file-size", "0", "--disk", "1.5GiB")
    assert (await run("run", *limits, "--log-size", "64k", "--tool", "sh", "--tool", "cc", "--", "true")).code == 0
    assert server.requests["CreateJob"][0].spec.tools == ["sh", "cc"]
    assert server.requests["CreateJob"][0].spec.limits == JobLimits(
        cpu_time=Duration(seconds=90),
        memory_bytes=512 * 1024**2,
        open_files=64,
        file_size_bytes=0,
        disk_bytes=1536 * 1024**2,
        log_bytes=65536,
    )
    assert (await run("run", "--", "true")).code == 0
    assert not server.requests["CreateJob"][1].spec.HasField("limits")
    wrong = await run("run", "--memory", "much", "--", "true")
    assert (wrong.code, "'much' is no size: write 65536, 64K, 512M or 1.5G" in wrong.err) == (2, True)


@pytest.mark.parametrize(("job", "code"), [(COMPLETED, 0), (FAILED, 7), (KILLED, 1), (CANCELLED, 130)])
async def test_waiting_exits_as_the_job_did(server: FakeServer, run: Run, job: Job, code: int) -> None:
    server.on("WaitJob", job)
    assert (await run("wait", "job_1")).code == code


async def test_run_wait_json_is_one_document(server: FakeServer, run: Run) -> None:
    server.on("CreateJob", QUEUED)
    server.on("WaitJob", FAILED)
    outcome = await run("run", "--wait", "--json", "--", "false")
    assert outcome.code == 7
    assert json.loads(outcome.out)["state"] == "failed"


async def test_run_follow_puts_each_line_where_the_job_wrote_it(server: FakeServer, run: Run) -> None:
    server.on("CreateJob", QUEUED)
    lines = [TailLogsResponse(log=_entry(1, "out")), TailLogsResponse(log=_entry(2, "oops", "stderr"))]
    server.on("TailLogs", [*lines, TailLogsResponse(end=TailEnd())])
    server.on("WaitJob", COMPLETED)
    outcome = await run("run", "--follow", "--", "x")
    assert (outcome.code, outcome.out) == (0, "out\n")
    assert outcome.err.splitlines() == ["job_1", "oops", "job_1 completed"]


async def test_wait_that_runs_out_of_time_exits_like_timeout(server: FakeServer, run: Run) -> None:
    server.on("WaitJob", QUEUED)
    outcome = await run("wait", "job_1", "--timeout", "10ms")
    assert (outcome.code, outcome.err) == (124, "job_1 is still queued after 0.01 s\n")
    outcome = await run("wait", "job_1", "--timeout", "10ms", "--target", "127.0.0.1:1")
    assert (outcome.code, "not known: No server answers" in outcome.err) == (124, True)


async def test_ls_aligns_its_columns_and_uses_no_colour_in_a_pipe(server: FakeServer, run: Run) -> None:
    jobs = [
        JobSummary(job_id="job_1", state=JobState.JOB_STATE_RUNNING, created_at=AT, started_at=AT, progress_percent=42),
        JobSummary(job_id="job_22", state=JobState.JOB_STATE_QUEUED, created_at=AT, labels={"b": "2", "a": "1"}),
    ]
    server.on("ListJobs", ListJobsResponse(jobs=jobs, total=5, next_page_token="t"))
    outcome = await run("ls", "--state", "queued,running")
    header, first, second = outcome.out.splitlines()
    assert header.index("STATE") == first.index("running") == second.index("queued")
    assert "42%" in first
    assert second.endswith("a=1 b=2")
    assert "\x1b" not in outcome.out
    assert "2 of 5 jobs" in outcome.err


async def test_what_a_job_wrote_cannot_steer_the_terminal(server: FakeServer, run: Run) -> None:
    server.on("GetLogs", GetLogsResponse(logs=[_entry(1, "a\x1b[2Jb\rc\x9bd")], total=1))
    outcome = await run("logs", "job_1")
    assert outcome.out.endswith("info  a\\x1b[2Jb\\rc\\x9bd\n")


async def test_ls_all_json_is_one_document_a_line(server: FakeServer, run: Run) -> None:
    pages = [ListJobsResponse(jobs=[JobSummary(job_id=f"job_{n}", created_at=AT)]) for n in (1, 2)]
    pages[0].next_page_token = "t"
    server.on("ListJobs", *pages)
    outcome = await run("ls", "--all", "--json")
    assert [json.loads(line)["job_id"] for line in outcome.out.splitlines()] == ["job_1", "job_2"]


async def test_get_shows_what_is_set(server: FakeServer, run: Run) -> None:
    server.on("GetJob", FAILED)
    plain = await run("get", "job_1")
    assert "E_JOB_EXIT_NONZERO" in plain.out
    assert "signal" not in plain.out
    document = json.loads((await run("get", "job_1", "--json")).out)
    assert (document["signal"], document["artifacts"], document["exit_code"]) == (None, [], 7)


async def test_logs_tail_and_follow_join_without_a_gap(server: FakeServer, run: Run) -> None:
    server.on("GetLogs", GetLogsResponse(logs=[_entry(9, "nine"), _entry(8, "eight")], total=9))
    server.on("TailLogs", [TailLogsResponse(log=_entry(10, "ten")), TailLogsResponse(end=TailEnd())])
    outcome = await run("logs", "job_1", "-f", "--tail", "2", "--level", "warn,error", "--json")
    assert [json.loads(line)["message"] for line in outcome.out.splitlines()] == ["eight", "nine", "ten"]
    assert server.requests["TailLogs"][0].after_sequence == 9
    assert len(server.requests["TailLogs"][0].level) == 2


async def test_logs_tail_goes_on_where_a_page_has_fewer_than_it_is_asked_for(server: FakeServer, run: Run) -> None:
    """Entry 8 comes again, since one was written meanwhile; it is shown once."""
    server.on(
        "GetLogs",
        GetLogsResponse(logs=[_entry(9, "nine"), _entry(8, "eight")], total=9, has_more=True),
        GetLogsResponse(logs=[_entry(8, "eight"), _entry(7, "seven")], total=10, has_more=True),
    )
    outcome = await run("logs", "job_1", "--tail", "3", "--json")
    assert [json.loads(line)["message"] for line in outcome.out.splitlines()] == ["seven", "eight", "nine"]
    assert [(asked.offset, asked.limit) for asked in server.requests["GetLogs"]] == [(0, 3), (2, 1)]


async def test_logs_raw_are_the_very_bytes(server: FakeServer, run: Run) -> None:
    server.on("GetLogContent", [HttpBody(data=b"a\r\n"), HttpBody(data=b"\x1b[1m")])
    assert (await run("logs", "job_1", "--raw")).out == "a\r\n\x1b[1m"


async def test_cancel_says_what_happened_to_each(server: FakeServer, run: Run) -> None:
    server.on("CancelJob", CancelJobResponse(job_id="job_1", message="Cancellation requested"))
    assert (await run("cancel", "job_1", "--reason", "r")).out == "job_1: Cancellation requested\n"
    results = [CancelResult(job_id="job_2", message="no", error_code="E_JOB_ALREADY_FINISHED")]
    server.on("CancelJobs", CancelJobsResponse(results=results))
    outcome = await run("cancel", "job_1", "job_2")
    assert (outcome.code, outcome.out) == (4, "job_2: no\n")


@pytest.mark.parametrize(("job", "code"), [(CANCELLED, 0), (COMPLETED, 4), (FAILED, 4)])
async def test_cancel_can_wait_and_its_exit_code_says_whether_the_job_was_cancelled(
    server: FakeServer, run: Run, job: Job, code: int
) -> None:
    server.on("CancelJob", CancelJobResponse(job_id="job_1", message="Cancellation requested"))
    server.on("WaitJob", Job(job_id="job_1", state=JobState.JOB_STATE_CANCELLING), job)
    outcome = await run("cancel", "job_1", "--wait")
    assert (outcome.code, outcome.out.split()[0]) == (code, "job_1")
    assert len(server.requests["WaitJob"]) == 2
    assert json.loads((await run("cancel", "job_1", "--wait", "--json")).out)["job_id"] == "job_1"


async def test_cancel_of_many_waits_for_those_that_it_cancelled(server: FakeServer, run: Run) -> None:
    refused = CancelResult(job_id="job_2", message="no", error_code="E_JOB_ALREADY_FINISHED")
    server.on("CancelJobs", CancelJobsResponse(results=[CancelResult(job_id="job_1"), refused]))
    server.on("WaitJob", CANCELLED)
    outcome = await run("cancel", "job_1", "job_2", "--wait")
    assert (outcome.code, outcome.out, outcome.err) == (4, "job_1 cancelled\n", "job_2: no\n")
    assert [request.job_id for request in server.requests["WaitJob"]] == ["job_1"]
    server.on("CancelJobs", CancelJobsResponse())
    nothing = await run("cancel", "--state", "queued", "--wait")
    assert (nothing.code, nothing.out, nothing.err) == (0, "", "No unfinished job fits\n")
    assert (await run("cancel", "job_1", "--wait", "--dry-run")).code == 2


async def test_input_sends_a_line(server: FakeServer, run: Run) -> None:
    server.on("SendInput", SendInputResponse(queued_followups=1))
    assert json.loads((await run("input", "job_1", "go on", "--json")).out) == {"queued_followups": 1}
    assert (await run("input", "job_1", "--close", stdin=b"raw")).code == 0
    assert [(item.text, item.close) for item in server.requests["SendInput"]] == [("go on\n", False), ("raw", True)]


async def test_artifacts_are_listed_and_fetched(server: FakeServer, run: Run, tmp_path: Path) -> None:
    complete = ArtifactStatus.ARTIFACT_STATUS_COMPLETE
    digest = hashlib.sha256(b"x").hexdigest()
    found = Artifact(id=1, name="f", path="d/f", sha256=digest, size_bytes=1, status=complete)
    server.on("GetArtifacts", GetArtifactsResponse(artifacts=[found]))
    server.on("DownloadArtifact", [HttpBody(data=b"x")])
    assert digest in (await run("artifacts", "job_1")).out
    outcome = await run("artifacts", "get", "job_1", "-o", str(tmp_path))
    assert (outcome.code, (tmp_path / "d" / "f").read_bytes()) == (0, b"x")


@pytest.mark.parametrize("path", ["../f", "/etc/f", "a/../../f", "a\\..\\f", "a\0f", "", ".", "away/f"])
async def test_an_artifacts_path_never_leaves_the_directory(
    server: FakeServer, run: Run, tmp_path: Path, path: str
) -> None:
    """A server that is not to be trusted could otherwise write anywhere; nor is a link of ours followed out."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "away").symlink_to(tmp_path)
    bad = Artifact(id=1, name="f", path=path, status=ArtifactStatus.ARTIFACT_STATUS_COMPLETE)
    server.on("GetArtifacts", GetArtifactsResponse(artifacts=[bad]))
    outcome = await run("artifacts", "get", "job_1", "-o", str(tmp_path / "in"))
    assert outcome.code == 1
    assert "DownloadArtifact" not in server.requests


async def test_events_show_states_by_their_names(server: FakeServer, run: Run) -> None:
    change = StateChanged(old_state=JobState.JOB_STATE_QUEUED, new_state=JobState.JOB_STATE_RUNNING, attempt=1)
    job = EventJob(job_id="job_1", run_id="run_1", workspace_id="default")
    stored = Event(event_type="job.state_changed", sequence_number=3, timestamp_utc=AT, job=job, state_changed=change)
    end = Event(event_type="replay.complete", replay_complete=ReplayComplete(replayed_count=1))
    server.on("WatchEvents", [stored, end, stored])
    outcome = await run("events", "--from", "0", "--until-live")
    assert outcome.out.endswith("job.state_changed job_1 queued -> running\n")
    assert outcome.out.count("\n") == 1
    first = json.loads((await run("events", "--from", "0", "--until-live", "--json")).out.splitlines()[0])
    assert list(first) == [
        *("event_type", "sequence_number", "timestamp_utc", "job_id", "run_id", "workspace_id"),
        *("old_state", "new_state", "attempt", "error_code"),
    ]
    assert (first["timestamp_utc"], first["new_state"]) == ("2026-01-02T03:04:05.678901Z", "running")


async def test_status_is_readable(server: FakeServer, run: Run) -> None:
    server.on("GetStatus", EngineStatus(name="jobledger", version="1", health="ok", jobs_by_state={"running": 2}))
    assert "2 running" in (await run("status")).out


@pytest.mark.parametrize(
    ("first", "last", "told"),
    [(0, 0, "events     none yet"), (5, 20, "events     5 to 20"), (0, 20, "events     none kept of 1 to 20")],
)
async def test_status_tells_which_events_are_kept(
    server: FakeServer, run: Run, first: int, last: int, told: str
) -> None:
    server.on("GetStatus", EngineStatus(health="ok", first_sequence_number=first, last_sequence_number=last))
    out = (await run("status")).out
    assert told in out
    assert "swept      not yet" in out


async def test_status_tells_of_the_sweep(server: FakeServer, run: Run) -> None:
    swept = Timestamp(seconds=int(time.time()) - 65)
    collected = {"jobs": 3, "events": 12, "blobs": 0}
    server.on("GetStatus", EngineStatus(health="ok", swept_at=swept, collected=collected))
    assert "ago; removed since the start: 12 events, 3 jobs\n" in (await run("status")).out


async def test_status_tells_of_the_disk(server: FakeServer, run: Run) -> None:
    server.on("GetStatus", EngineStatus(health="ok", free_bytes=2**31, storage_bytes={"logs": 1024, "blobs": 5}))
    assert "2.0 GiB free; blobs 5 B, logs 1.0 KiB" in (await run("status")).out


async def test_a_new_token_can_go_to_a_private_file(server: FakeServer, run: Run, tmp_path: Path) -> None:
    server.on("CreateToken", IssuedToken(info=TokenInfo(token_id="abc"), token="jl_abc_secret"))
    arguments = ("token", "create", "--name", "ci", "--scope", "jobs:read", "--expires-in", "1d")
    assert (await run(*arguments)).out == "jl_abc_secret\n"
    path = tmp_path / "t"
    outcome = await run(*arguments, "-o", str(path), "--json")
    assert "secret" not in outcome.out
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("jl_abc_secret\n", 0o600)
    assert server.requests["CreateToken"][0].expires_in.seconds == 86400


async def test_token_show_never_shows_the_token(server: FakeServer, run: Run) -> None:
    server.on("WhoAmI", TokenInfo(token_id="test", name="me", scopes=["jobs:read"]))
    outcome = await run("token", "show")
    assert "JOBLEDGER_TOKEN" in outcome.out
    assert TOKEN not in outcome.out


async def test_a_receipt_is_printed_byte_for_byte(server: FakeServer, run: Run) -> None:
    server.on("GetReceipt", HttpBody(data=b'{"a":1}'))
    assert (await run("receipt", "job_1")).out == '{"a":1}'


async def test_an_envelope_without_keys_is_not_called_valid(run: Run, tmp_path: Path) -> None:
    envelope = {"payload": base64.b64encode(b"{}").decode(), "payloadType": "x", "signatures": []}
    (tmp_path / "e.json").write_text(json.dumps(envelope))
    outcome = await run("receipt", "verify", str(tmp_path / "e.json"), "--json")
    report = json.loads(outcome.out)
    assert report["valid"] is False
    assert outcome.code == report["exit_code"] != 0


async def test_receipt_verify_tells_wrong_usage_from_not_checked(run: Run, tmp_path: Path) -> None:
    (tmp_path / "e.json").write_text("{}")
    assert (await run("receipt", "verify")).code == 3
    assert (await run("receipt", "verify", str(tmp_path / "e.json"), "--keys", str(tmp_path / "no"))).code == 2


async def test_a_refusal_is_one_line_and_its_own_code(server: FakeServer, run: Run) -> None:
    server.on("GetJob", Refusal(reason="JOB_NOT_FOUND", message="There is no such job"))
    outcome = await run("get", "job_1")
    assert (outcome.code, outcome.out, outcome.err) == (4, "", "Error: There is no such job\n")
    outcome = await run("get", "job_1", "--json")
    told = {"error_code": "E_JOB_NOT_FOUND", "message": "There is no such job", "details": {}}
    assert (outcome.code, outcome.out, json.loads(outcome.err)) == (4, "", told)
    server.on("GetJob", Refusal(reason="VALIDATION", message="no", fields=[("job_id", "is odd")]))
    outcome = await run("get", "job_1")
    assert (outcome.code, outcome.err) == (2, "Error: no; job_id: is odd\n")
    server.on("GetJob", Refusal(reason="AUTH_INVALID", message="no"))
    assert (await run("get", "job_1")).code == 3
