"""The client's verbs: what they send, and when they send it again."""

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jobledger
import pytest
from google.api.httpbody_pb2 import HttpBody
from jobledger import Client
from jobledger.v1.job_pb2 import Artifact, Job, JobPriority, JobSpec, JobState, JobSummary, LogEntry
from jobledger.v1.job_service_pb2 import (
    CancelJobsResponse,
    GetArtifactsResponse,
    GetLogsResponse,
    ListJobsResponse,
    SendInputResponse,
)
from sdk.fake_server import TOKEN, FakeServer, Refusal

DOWN = Refusal(reason="ENGINE_STARTING", retry_after=0.001)


async def test_every_call_carries_the_token(server: FakeServer, client: Client) -> None:
    server.on("GetJob", Job(job_id="job_1"))
    await client.get("job_1")
    assert server.metadata[0]["authorization"] == f"Bearer {TOKEN}"


async def test_plain_values_become_a_specification(server: FakeServer, client: Client) -> None:
    server.on("CreateJob", Job(job_id="job_1"))
    await client.submit(
        ["echo", "hi"],
        timeout=1.5,
        grace_period=timedelta(minutes=1),
        priority="high",
        config={"b": [1, None], "a": {"c": True}},
        labels={"k": "v"},
        env={"A": "B"},
    )
    spec = server.requests["CreateJob"][0].spec
    assert list(spec.command) == ["echo", "hi"]
    assert (spec.timeout.seconds, spec.timeout.nanos, spec.grace_period.seconds) == (1, 500_000_000, 60)
    assert spec.priority == JobPriority.JOB_PRIORITY_HIGH
    assert spec.config["b"][0] == 1
    assert dict(spec.labels) == {"k": "v"}
    assert not spec.HasField("queue_timeout")


async def test_fields_replace_those_of_a_given_specification(server: FakeServer, client: Client) -> None:
    server.on("CreateJob", Job(job_id="job_1"))
    given = JobSpec(command=["a", "b"], labels={"x": "1"}, workspace_id="w")
    await client.submit(["c"], spec=given, labels={"y": "2"})
    spec = server.requests["CreateJob"][0].spec
    assert (list(spec.command), dict(spec.labels), spec.workspace_id) == (["c"], {"y": "2"}, "w")
    assert list(given.command) == ["a", "b"], "what was given is the caller's"


async def test_a_command_is_never_one_string(client: Client) -> None:
    with pytest.raises(TypeError, match="list of strings"):
        await client.submit("rm -rf /")


async def test_an_unknown_field_is_refused_before_anything_is_sent(server: FakeServer, client: Client) -> None:
    with pytest.raises(TypeError, match="colour"):
        await client.submit(["true"], colour="red")  # type: ignore[call-arg]
    assert not server.requests


async def test_a_repeated_submission_has_the_same_key(server: FakeServer, client: Client) -> None:
    """The first try may have made the job: only the key keeps the second from making another."""
    server.on("CreateJob", DOWN, DOWN, Job(job_id="job_1"))
    assert (await client.submit(["true"])).job_id == "job_1"
    keys = [request.idempotency_key for request in server.requests["CreateJob"]]
    assert len(keys) == 3
    assert len(set(keys)) == 1
    assert keys[0]


async def test_what_would_happen_twice_is_never_repeated(server: FakeServer, client: Client) -> None:
    server.on("SendInput", DOWN, SendInputResponse())
    with pytest.raises(jobledger.UnavailableError):
        await client.send_input("job_1", "x")
    assert len(server.requests["SendInput"]) == 1


async def test_a_wait_that_the_server_asks_for_is_kept(server: FakeServer, client: Client) -> None:
    server.on("GetJob", Refusal(reason="RATE_LIMITED", retry_after=0.2), Job(job_id="job_1"))
    started = datetime.now(UTC)
    await client.get("job_1")
    assert datetime.now(UTC) - started >= timedelta(seconds=0.2)


async def test_a_wait_beyond_the_patience_of_the_client_is_not_begun(server: FakeServer, client: Client) -> None:
    server.on("GetJob", Refusal(reason="OVERLOADED", retry_after=60.0))
    with pytest.raises(jobledger.RateLimitedError) as failure:
        await client.get("job_1")
    assert failure.value.retry_after == 60.0
    assert len(server.requests["GetJob"]) == 1


async def test_a_refusal_is_not_repeated(server: FakeServer, client: Client) -> None:
    server.on("GetJob", Refusal(reason="JOB_NOT_FOUND"))
    with pytest.raises(jobledger.NotFoundError):
        await client.get("job_1")
    assert len(server.requests["GetJob"]) == 1


async def test_a_server_that_is_not_there_is_said_to_be_not_there() -> None:
    async with Client.connect("127.0.0.1:1", token=TOKEN, retry_for=0.1) as client:
        with pytest.raises(jobledger.UnavailableError, match=r"127\.0\.0\.1:1.*jobledger up") as failure:
            await client.status()
    assert failure.value.error_code == "E_ENGINE_UNREACHABLE"


async def test_iterating_follows_the_page_tokens(server: FakeServer, client: Client) -> None:
    server.on(
        "ListJobs",
        ListJobsResponse(jobs=[JobSummary(job_id="a"), JobSummary(job_id="b")], next_page_token="t"),
        DOWN,
        ListJobsResponse(jobs=[JobSummary(job_id="c")]),
    )
    found = [job.job_id async for job in client.iterate(state=["running"], labels={"k": "v"}, page_size=2)]
    assert found == ["a", "b", "c"]
    first, _, last = server.requests["ListJobs"]
    assert (list(first.state), list(first.label), first.limit) == ([JobState.JOB_STATE_RUNNING], ["k=v"], 2)
    assert (last.page_token, list(last.state), last.HasField("offset")) == ("t", list(first.state), False)


async def test_an_unknown_state_is_answered_with_those_that_exist(client: Client) -> None:
    with pytest.raises(ValueError, match="queued, running, cancelling"):
        await client.list(state=["sleeping"])


async def test_iterating_logs_pages_by_sequence(server: FakeServer, client: Client) -> None:
    """By offset, entries that a filter finds meanwhile would shift the pages."""
    server.on(
        "GetLogs",
        GetLogsResponse(logs=[LogEntry(job_sequence=3), LogEntry(job_sequence=7)], has_more=True),
        GetLogsResponse(logs=[LogEntry(job_sequence=9)], has_more=False),
    )
    found = [entry.job_sequence async for entry in client.iter_logs("job_1", level=["warn"])]
    assert found == [3, 7, 9]
    assert [request.after_sequence for request in server.requests["GetLogs"]] == [0, 7]


async def test_many_are_cancelled_by_a_filter(server: FakeServer, client: Client) -> None:
    server.on("CancelJobs", CancelJobsResponse(dry_run=True))
    assert (await client.cancel_many(labels={"team": "a"}, dry_run=True, grace_period=2)).dry_run
    request = server.requests["CancelJobs"][0]
    assert (list(request.label), request.dry_run, request.grace_period.seconds) == (["team=a"], True, 2)


def _artifact(content: bytes) -> Artifact:
    return Artifact(id=4, name="a.txt", path="sub/a.txt", sha256=hashlib.sha256(content).hexdigest())


async def test_a_download_goes_on_where_it_was_cut(server: FakeServer, client: Client, tmp_path: Path) -> None:
    server.on("GetArtifacts", GetArtifactsResponse(artifacts=[_artifact(b"one two")]))
    server.on("DownloadArtifact", [HttpBody(data=b"one "), DOWN], [HttpBody(data=b"two")])
    written = await client.download_artifact("job_1", "sub/a.txt", tmp_path)
    assert (written, written.read_bytes()) == (tmp_path / "a.txt", b"one two")
    assert [request.offset for request in server.requests["DownloadArtifact"]] == [0, 4]


async def test_a_download_that_does_not_match_its_hash_leaves_no_file(
    server: FakeServer, client: Client, tmp_path: Path
) -> None:
    server.on("DownloadArtifact", [HttpBody(data=b"other")])
    with pytest.raises(jobledger.DataLossError, match="SHA-256"):
        await client.download_artifact("job_1", _artifact(b"one two"), tmp_path / "f")
    assert not list(tmp_path.iterdir())


async def test_an_artifact_that_does_not_exist_is_not_found(server: FakeServer, client: Client, tmp_path: Path) -> None:
    server.on("GetArtifacts", GetArtifactsResponse())
    with pytest.raises(jobledger.NotFoundError, match=r"no artifact 'x'"):
        await client.download_artifact("job_1", "x", tmp_path)


async def test_log_content_asks_for_what_is_left_after_a_cut(server: FakeServer, client: Client) -> None:
    server.on("GetLogContent", [HttpBody(data=b"abc"), DOWN], [HttpBody(data=b"de")])
    content = b"".join([chunk async for chunk in client.log_content("job_1", offset=10, length=5)])
    assert content == b"abcde"
    assert [(request.offset, request.length) for request in server.requests["GetLogContent"]] == [(10, 5), (13, 2)]


@pytest.mark.parametrize("length", [None, 5])
async def test_a_cut_after_the_last_byte_of_log_content_is_no_failure(
    server: FakeServer, client: Client, length: int | None
) -> None:
    outside = Refusal(reason="RANGE_NOT_SATISFIABLE", metadata={"size": "15"})
    server.on("GetLogContent", [HttpBody(data=b"abc"), HttpBody(data=b"de"), DOWN], outside)
    assert [chunk async for chunk in client.log_content("job_1", offset=10, length=length)] == [b"abc", b"de"]
    asked = [(request.offset, request.length) for request in server.requests["GetLogContent"]]
    assert asked == ([(10, 5)] if length else [(10, 0), (15, 0)])


@pytest.mark.parametrize("size", ["15", "13", "11"])
async def test_log_content_that_is_not_there_is_a_failure(server: FakeServer, client: Client, size: str) -> None:
    """Nor is the end of a log that has become shorter meanwhile taken for that of all that there was."""
    outside = Refusal(reason="RANGE_NOT_SATISFIABLE", metadata={"size": size})
    server.on("GetLogContent", [HttpBody(data=b"abcd"), DOWN], outside)
    with pytest.raises(jobledger.OutOfRangeError):
        [chunk async for chunk in client.log_content("job_1", offset=10)]
    with pytest.raises(jobledger.OutOfRangeError):
        [chunk async for chunk in client.log_content("job_1", offset=int(size))]
