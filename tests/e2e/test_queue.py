"""The queue as clients see it, on a server that runs one job at a time."""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from jobledger_server.config import Settings
from jobledger_server.wiring import supervision
from jobledger_server.wiring.embedded import embedded
from support.doors import Door, Json, Refused, RestDoor, server_sent
from support.eventually import eventually
from support.running import RunningServer, start
from support.tokens import issue, with_token


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    running = start(tmp_path_factory.mktemp("jobledger") / "data", "--max-running", "1")
    yield running
    running.stop()


@asynccontextmanager
async def busy(door: Door) -> AsyncIterator[str]:
    """The only slot is taken, until the block is left."""
    job_id = (await door.create("cat", stdin="open"))["job_id"]
    await eventually(lambda: door.get(job_id), until=lambda job: job["state"] == "running")
    try:
        yield job_id
    finally:
        await door.call("SendInput", job_id=job_id, text="", close=True)


async def test_jobs_run_by_priority_then_by_age(door: Door) -> None:
    async with busy(door):
        jobs = [
            (await door.create("true", priority=priority))["job_id"] for priority in ("low", "normal", "high", "normal")
        ]
        assert [(await door.get(job_id))["queue_position"] for job_id in jobs] == [4, 2, 1, 3]
    ended = [await door.ended(job_id) for job_id in jobs]
    order = sorted(jobs, key=lambda job_id: str(ended[jobs.index(job_id)]["started_at"]))
    assert [jobs.index(job_id) for job_id in order] == [2, 1, 3, 0]


async def test_a_job_that_leaves_the_queue_moves_the_others_up(door: Door, rest: RestDoor) -> None:
    """Its place tells how many wait, and so is not told to who may not see them all."""
    _, token = await issue(rest, scopes=["jobs:read"], workspaces=["default"])
    async with busy(door):
        first, second = [(await door.create("true"))["job_id"] for _ in range(2)]
        assert (await door.get(second))["queue_position"] == 2
        assert not (await with_token(door, token).get(second)).get("queue_position")
        assert (await door.cancel(first))["state"] == "cancelled"
        assert (await door.get(second))["queue_position"] == 1
    assert not (await door.ended(second)).get("queue_position")


async def test_a_job_that_waits_too_long_fails_with_a_receipt(door: Door) -> None:
    async with busy(door):
        job = await door.ended((await door.create("true", queue_timeout="0.2s"))["job_id"])
    assert (job["state"], job["error_code"]) == ("failed", "E_JOB_QUEUE_TIMEOUT")
    body, _ = await door.receipt(job["job_id"])
    assert json.loads(body)["summary"]["error_code"] == "E_JOB_QUEUE_TIMEOUT"
    assert not job.get("started_at")


async def test_a_failed_attempt_is_tried_again_as_the_same_job(door: Door, scratch: Path) -> None:
    """A marker file makes the first attempt fail and the second one succeed."""
    script = f"test -e {scratch}/marker && exit 0; touch {scratch}/marker; exit 1"
    job_id = (await door.create("sh", "-c", script, max_attempts=2, retry_backoff="0.1s"))["job_id"]
    job = await door.ended(job_id)
    assert (job["state"], job["attempt"]) == ("completed", 2)


async def test_input_that_comes_while_the_job_waits_is_there_when_it_starts(door: Door) -> None:
    """Every attempt that starts later begins with it; what comes when it runs follows."""
    script = 'read one; read two; echo "$JOBLEDGER_ATTEMPT $one $two"; [ "$JOBLEDGER_ATTEMPT" = 2 ] && exec cat; exit 1'
    async with busy(door):
        job = await door.create("sh", "-c", script, stdin="open", max_attempts=2, retry_backoff="0s")
        job_id = job["job_id"]
        for number, text in enumerate(("first\n", "second\n"), 1):
            sent = await door.call("SendInput", job_id=job_id, text=text)
            assert (sent["queued_followups"], (await door.get(job_id))["queued_followups"]) == (number, number)
    await eventually(lambda: door.get(job_id), until=lambda job: (job["state"], job["attempt"]) == ("running", 2))
    await door.call("SendInput", job_id=job_id, text="live\n", close=True)
    assert (await door.ended(job_id))["state"] == "completed"
    said = [entry["message"] for entry in (await door.call("GetLogs", job_id=job_id))["logs"]]
    assert said == ["1 first second", "2 first second", "live"]


async def test_input_that_was_closed_before_the_start_ends_there(door: Door) -> None:
    async with busy(door):
        job_id = (await door.create("cat", stdin="open"))["job_id"]
        await door.call("SendInput", job_id=job_id, text="all\n", close=True)
        with pytest.raises(Refused) as refused:
            await door.call("SendInput", job_id=job_id, text="more\n")
    assert (refused.value.error_code, refused.value.message) == (
        "E_JOB_INPUT_CLOSED",
        "The job's standard input was closed",
    )
    assert (await door.ended(job_id))["state"] == "completed"
    assert [entry["message"] for entry in (await door.call("GetLogs", job_id=job_id))["logs"]] == ["all"]


async def test_the_dashboard_counts_input_that_waits_for_the_start(rest: RestDoor) -> None:
    async with busy(rest):
        job_id = (await rest.create("cat", stdin="open"))["job_id"]
        await rest.call("SendInput", job_id=job_id, text="all\n", close=True)
        async with rest.session.get(f"{rest.url}/gateway/jobs", headers=rest.headers) as response:
            live = {job["job_id"]: job["queued_followups"] for job in (await response.json())["jobs"]}
    assert live[job_id] == 1
    assert (await rest.ended(job_id))["state"] == "completed"


async def test_more_input_than_is_kept_for_the_start_is_refused_until_the_job_runs(door: Door) -> None:
    async with busy(door):
        job_id = (await door.create("cat", stdin="open"))["job_id"]
        await door.call("SendInput", job_id=job_id, text="x" * 600_000)
        with pytest.raises(Refused) as refused:
            await door.call("SendInput", job_id=job_id, text="x" * 600_000)
        await door.cancel(job_id)
    assert refused.value.error_code == "E_JOB_INPUT_CLOSED"
    assert refused.value.message.endswith("send the rest when it runs")


async def test_input_that_nobody_reads_is_refused_past_a_mebibyte(door: Door) -> None:
    job_id = (await door.create("sleep", "600", stdin="open"))["job_id"]
    await eventually(lambda: door.get(job_id), until=lambda job: job["state"] == "running")
    await door.call("SendInput", job_id=job_id, text="x" * 600_000)
    with pytest.raises(Refused) as refused:
        await door.call("SendInput", job_id=job_id, text="x" * 600_000)
    assert refused.value.error_code == "E_JOB_INPUT_CLOSED"
    assert "send it again when it has read more" in refused.value.message
    assert (await door.get(job_id))["queued_followups"] == 1
    await door.cancel(job_id)
    await door.ended(job_id)


async def test_a_job_that_waits_is_told_to_those_who_watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a server within this process, whose queue has a quick heart."""
    monkeypatch.setattr(supervision, "QUEUE_BEAT_SECONDS", 0.05)
    data_dir = tmp_path / "data"
    data_dir.mkdir(mode=0o700)
    settings = Settings(data_dir=data_dir, grpc_port=0, http_port=0, unix_socket=False, max_running=1)
    async with embedded(settings) as running, aiohttp.ClientSession() as session:
        rest = RestDoor(session, running.http_url, running.token_file.read_text().strip())
        async with busy(rest):
            job_id = (await rest.create("true"))["job_id"]
            told = await anext(aiter(queue_heartbeats(rest)))
            await rest.cancel(job_id)
        await running.cancelling.stop_all()
    assert list(told) == [
        "event_type", "sequence_number", "timestamp_utc", "job_id", "run_id", "workspace_id",
        "queue_position", "queued_ms", "reason",
    ]  # fmt: skip
    assert (told["job_id"], told["queue_position"], told["reason"]) == (job_id, 1, "waiting for a slot")


async def queue_heartbeats(rest: RestDoor) -> AsyncIterator[Json]:
    path = f"{rest.url}/v1/stream?type=job.queue_heartbeat"
    async with rest.session.get(path, headers=rest.headers) as response:
        async for event in server_sent(response.content):
            if event["event"] == "job.queue_heartbeat":
                yield json.loads(event["data"])
