"""What is kept for a time only, as clients see it, on a server that keeps almost nothing."""

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
from support.doors import Door, GrpcDoor, Refused, RestDoor
from support.eventually import eventually
from support.running import RunningServer, pause, run_cli, start

OUT_OF_RANGE = {"grpc": "OUT_OF_RANGE", "rest": 410}
UNAVAILABLE = {"grpc": "UNAVAILABLE", "rest": 503}
RULES = """
[retention]
events = "0s"
jobs = "0s"
logs.info = "0s"
logs.warn = "never"
job_dirs.completed = "0s"
job_dirs.failed = "never"
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    place = tmp_path_factory.mktemp("jobledger")
    (place / "jobledger.toml").write_text(RULES)
    running = start(place / "data", "--config", str(place / "jobledger.toml"))
    try:
        wait_for_first_sweep(running)
        yield running
    finally:
        running.stop()


def wait_for_first_sweep(server: RunningServer) -> None:
    """The next one is minutes away: from here on nothing goes but what a test collects."""
    deadline = time.monotonic() + 30
    while not json.loads(run_cli(server, "status", "--json").stdout)["swept_at"]:
        assert time.monotonic() < deadline
        pause()


async def collect(door: Door, **fields: Any) -> dict[str, int]:
    answer = await door.call("CollectGarbage", **fields)
    return {item["name"]: int(item["count"]) for item in answer["garbage"]}


async def test_what_is_old_goes_and_the_receipt_stays(door: Door, server: RunningServer) -> None:
    job = await door.ended((await door.create("sh", "-c", 'echo out; echo x > "$JOBLEDGER_OUTPUT_DIR/x"'))["job_id"])
    job_id = job["job_id"]
    receipt, _ = await door.receipt(job_id)
    await collect(door)
    with pytest.raises(Refused) as refused:
        await door.get(job_id)
    assert refused.value.error_code == "E_JOB_NOT_FOUND"
    assert (await door.receipt(job_id))[0] == receipt
    left = [server.data_dir / name / job_id for name in ("jobs", "logs")]
    assert [path.exists() for path in left] == [False, False]


async def test_what_another_rule_keeps_stays_and_the_job_with_it(door: Door, server: RunningServer) -> None:
    job_id = (await door.create("sh", "-c", "echo warned >&2; exit 3"))["job_id"]
    await door.ended(job_id)
    await collect(door)
    assert (await door.get(job_id))["exit_code"] == 3
    assert (await door.call("GetLogs", job_id=job_id))["total"] == 1
    assert (server.data_dir / "jobs" / job_id / "output").is_dir()


async def test_a_log_that_is_gone_reads_as_an_empty_one(door: Door, rest: RestDoor) -> None:
    """It says since when, and the receipt still tells what was in it."""
    job_id = (await door.create("sh", "-c", "echo info; exit 3"))["job_id"]
    assert (await door.ended(job_id)).get("log_removed_at") is None
    assert (await door.call("GetLogs", job_id=job_id)).get("log_removed_at") is None
    await collect(door)
    page, job = await door.call("GetLogs", job_id=job_id), await door.get(job_id)
    assert (page["total"], page["log_removed_at"]) == (0, job["log_removed_at"])
    assert job["log_removed_at"] > job["completed_at"]
    listed = (await door.call("ListJobs", search=job_id))["jobs"]
    assert ["log_removed_at" in it for it in listed] == [False]
    for path in ("logs/content", "logs/tail"):
        async with rest.request("GET", f"/v1/jobs/{job_id}/{path}", {}) as response:
            assert (response.status, b"info" in await response.read()) == (200, False)
    assert json.loads((await door.receipt(job_id))[0])["log"]["entries"] == 1


async def test_artifacts_outlive_the_directory_that_they_come_from(door: Door, server: RunningServer) -> None:
    script = 'echo warned >&2; echo kept > "$JOBLEDGER_OUTPUT_DIR/a"'
    job = await door.ended((await door.create("sh", "-c", script))["job_id"])
    await collect(door)
    assert not Path(job["job_dir"]).exists()
    assert (await door.get(job["job_id"])).get("job_dir") is None
    assert await door.download(job["job_id"], int(job["artifacts"][0]["id"])) == b"kept\n"


async def test_a_dry_run_removes_nothing_and_what_it_tells_goes_next(door: Door) -> None:
    await collect(door)
    job_id = (await door.create("sh", "-c", "echo kept >&2"))["job_id"]
    await door.ended(job_id)
    told = await collect(door, dry_run=True)
    assert told["job_dirs.completed"] == 1
    assert await collect(door, dry_run=True) == told
    assert (await collect(door))["job_dirs.completed"] == 1
    assert "job_dirs.completed" not in await collect(door)


async def test_a_stream_from_before_the_first_kept_event_is_told_where_to_go_on(door: Door) -> None:
    await door.ended((await door.create("true"))["job_id"])
    last = int((await door.call("GetStatus"))["last_sequence_number"])
    await collect(door)
    with pytest.raises(Refused) as refused:
        await anext(aiter(door.events(resume_from=0)))
    assert (refused.value.error_code, refused.value.status) == ("E_STREAM_GAP_TOO_LARGE", OUT_OF_RANGE[door.name])
    first = int(refused.value.details["first_available_sequence"])
    assert first == last + 1, "numbers never go back"
    job_id = (await door.create("sh", "-c", "echo later >&2"))["job_id"]
    async for event in door.events(resume_from=first - 1):
        if event.get("job_id") == job_id:
            assert event["sequence_number"] >= first
            break
    # Else it ends in the middle of the next test, and counts there.
    await door.ended(job_id)


async def test_numbers_go_on_after_a_restart_without_events(tmp_path: Path) -> None:
    config = tmp_path / "jobledger.toml"
    config.write_text(RULES)
    server = start(tmp_path / "data", "--config", str(config))
    last = await last_after(server)
    assert server.stop() == 0
    server = start(tmp_path / "data", "--config", str(config))
    try:
        async with aiohttp.ClientSession() as session:
            rest = RestDoor(session, server.url, server.token)
            await rest.create("true")
            assert (await rest.call("GetStatus"))["last_sequence_number"] > last
    finally:
        server.stop()


async def last_after(server: RunningServer) -> int:
    """The last number, when all events are gone."""
    async with aiohttp.ClientSession() as session:
        rest = RestDoor(session, server.url, server.token)
        await rest.ended((await rest.create("true"))["job_id"])
        await collect(rest)
        status = await rest.call("GetStatus")
        assert status["first_sequence_number"] == 0
        return int(status["last_sequence_number"])


async def test_the_sweep_measures_by_itself(rest: RestDoor) -> None:
    status = await eventually(lambda: rest.call("GetStatus"), until=lambda status: status["swept_at"])
    assert set(status["storage_bytes"]) == {"database", "logs", "blobs", "job_dirs"}
    assert status["storage_bytes"]["database"] > 0
    assert status["free_bytes"] > 0


async def test_a_caller_that_is_bound_to_workspaces_learns_of_them_alone(server: RunningServer, rest: RestDoor) -> None:
    asked = {"name": "bound", "scopes": ["admin"], "workspaces": ["blue"]}
    async with rest.request("POST", "/v1/tokens", asked) as response:
        bound = RestDoor(rest.session, server.url, (await response.json())["token"])
    status = await bound.call("GetStatus")
    assert (status["storage_bytes"], status["collected"]) == ({}, {})
    with pytest.raises(Refused) as refused:
        await collect(bound, dry_run=True)
    assert refused.value.error_code == "E_FORBIDDEN"


async def test_gc_is_a_verb_of_the_command_line(server: RunningServer, rest: RestDoor) -> None:
    await collect(rest)
    await rest.ended((await rest.create("sh", "-c", "echo kept >&2"))["job_id"])
    told = await asyncio.to_thread(run_cli, server, "gc", "--dry-run")
    assert (told.returncode, "job_dirs.completed  1" in told.stdout) == (0, True)


async def test_too_little_room_refuses_new_jobs_and_nothing_else(tmp_path: Path, door: Door) -> None:
    """As on a full disk: what is there is read, waits, is cancelled."""
    config = tmp_path / "jobledger.toml"
    server = start(tmp_path / "data")
    async with grpc.aio.insecure_channel(server.target) as channel:
        wide = GrpcDoor(channel, server.token)
        job_id = (await wide.create("sleep", "600", stdin="open", grace_period="1s"))["job_id"]
    assert server.stop() == 0
    config.write_text(f"min_free_bytes = {2**60}\n")
    server = start(tmp_path / "data", "--config", str(config), "--stop-jobs")
    try:
        async with grpc.aio.insecure_channel(server.target) as channel, aiohttp.ClientSession() as session:
            narrow = {
                "grpc": GrpcDoor(channel, server.token),
                "rest": RestDoor(session, server.url, server.token),
            }[door.name]
            for refused_call in (narrow.create("true"), narrow.call("SendInput", job_id=job_id, text="x")):
                with pytest.raises(Refused) as refused:
                    await refused_call
                told = (refused.value.error_code, refused.value.status)
                assert told == ("E_ENGINE_SAFE_MODE", UNAVAILABLE[door.name])
                assert "min_free_bytes" in refused.value.message
            await narrow.call("SendInput", job_id=job_id, text="", close=True)
            assert (await narrow.call("GetStatus"))["health"].startswith("low disk: ")
            assert (await narrow.call("ListJobs"))["total"] == 1
            await narrow.cancel(job_id)
            assert (await narrow.ended(job_id))["state"] == "cancelled"
    finally:
        assert server.stop() == 0
