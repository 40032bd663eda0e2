"""The server's own life: what it announces, what it refuses, how it stops, and that a crash loses nothing."""

import json
import shutil
import signal
import socket
import stat
from pathlib import Path

import aiohttp
import grpc
import pytest
from support.doors import GrpcDoor, RestDoor
from support.eventually import eventually
from support.running import STOP_SECONDS, launch, output_file, start

# Less than the 60 s that the job below is given.
SOON = 30.0


def test_it_says_where_it_listens_to_its_owner_alone(tmp_path: Path) -> None:
    server = start(tmp_path / "data", afresh=True)
    endpoints = json.loads((server.data_dir / "endpoints.json").read_text())
    assert set(endpoints) == {*("pid", "started_at", "grpc", "http", "unix", "http_unix", "token_file", "cert_sha256")}
    assert endpoints["pid"] == server.process.pid
    for path in ("endpoints.json", "token"):
        assert stat.S_IMODE((server.data_dir / path).stat().st_mode) == 0o600
    assert stat.S_IMODE(server.data_dir.stat().st_mode) == 0o700
    told = output_file(server.data_dir).read_text()
    assert server.url in told
    assert server.target in told
    assert server.token not in told
    assert server.stop() == 0
    assert not (server.data_dir / "endpoints.json").exists()


def test_a_second_server_on_the_same_directory_ends_with_the_reason(tmp_path: Path) -> None:
    server = start(tmp_path / "data")
    second = launch(server.data_dir)
    assert second.wait(STOP_SECONDS) != 0
    assert f"another server (process {server.process.pid})" in output_file(server.data_dir).read_text()
    assert server.stop() == 0


@pytest.mark.parametrize(("flag", "door"), [("--grpc-port", "gRPC"), ("--http-port", "HTTP")])
def test_a_taken_port_ends_the_start_with_the_reason(tmp_path: Path, flag: str, door: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ports = {"--grpc-port": "0", "--http-port": "0", flag: str(port)}
        process = launch(tmp_path / "data", *[part for pair in ports.items() for part in pair])
        assert process.wait(STOP_SECONDS) != 0
    assert f"the {door} address 127.0.0.1:{port} is taken" in output_file(tmp_path / "data").read_text()


def test_it_refuses_to_listen_to_the_world(tmp_path: Path) -> None:
    process = launch(tmp_path / "data", "--host", "0.0.0.0", afresh=True)
    assert process.wait(STOP_SECONDS) != 0
    assert "not loopback" in output_file(tmp_path / "data").read_text()


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data directory that a server has left."""
    server = start(tmp_path_factory.mktemp("stopped") / "data")
    assert server.stop() == 0
    return server.data_dir


@pytest.mark.parametrize("harm", ["link", "mode", "foreign"])
def test_a_token_file_that_can_not_be_trusted_stops_the_start(tmp_path: Path, stopped: Path, harm: str) -> None:
    data_dir = tmp_path / "data"
    shutil.copytree(stopped, data_dir, ignore=shutil.ignore_patterns("wake"))  # a FIFO can't be copied
    token = data_dir / "token"
    if harm == "link":
        token.rename(token.with_name("elsewhere"))
        token.symlink_to(token.with_name("elsewhere"))
    elif harm == "mode":
        token.chmod(0o644)
    else:
        token.write_text("jl_aaaaaaaa_" + "x" * 43)
    assert launch(data_dir).wait(STOP_SECONDS) != 0
    assert str(token) in output_file(data_dir).read_text()


async def test_a_killed_server_loses_nothing_and_adopts_what_runs(tmp_path: Path) -> None:
    """Killed without warning: finished jobs, their receipts, the running job and its log are all there afterwards."""
    server = start(tmp_path / "data", "--max-running", "2")
    ticking = "i=0; while :; do i=$((i+1)); echo tick $i; sleep 0.05; done"
    async with grpc.aio.insecure_channel(server.target) as channel:
        door = GrpcDoor(channel, server.token)
        done = (await door.create("sh", "-c", "echo done; echo x > $JOBLEDGER_OUTPUT_DIR/x"))["job_id"]
        finished = await door.ended(done)
        receipt, _ = await door.receipt(done)
        runs = (await door.create("sh", "-c", ticking))["job_id"]
        await eventually(lambda: door.call("GetLogs", job_id=runs), until=lambda page: page["total"] >= 3)
        blocks = (await door.create("sleep", "600"))["job_id"]
        waits = (await door.create("true"))["job_id"]
        await eventually(lambda: door.get(blocks), until=lambda job: job["state"] == "running")
        before = await door.get(runs)
    server.kill()
    again = start(server.data_dir, "--max-running", "2")
    async with grpc.aio.insecure_channel(again.target) as channel:
        door = GrpcDoor(channel, again.token)
        assert await door.get(done) == finished
        assert (await door.receipt(done))[0] == receipt
        adopted = await door.get(runs)
        assert (adopted["state"], adopted["attempt"], adopted["started_at"]) == ("running", 1, before["started_at"])
        count = (await door.call("GetLogs", job_id=runs))["total"]
        await eventually(lambda: door.call("GetLogs", job_id=runs), until=lambda page: page["total"] > count + 3)
        for job_id in (runs, blocks):
            await door.cancel(job_id)
            assert (await door.ended(job_id))["state"] == "cancelled"
        assert (await door.ended(waits))["state"] == "completed"
        logs = await door.call("GetLogs", job_id=runs, limit=10000)
        assert [entry["message"] for entry in logs["logs"]] == [f"tick {n}" for n in range(1, logs["total"] + 1)]
    assert again.stop() == 0


async def test_a_job_that_ends_while_the_server_is_down_keeps_its_outcome(tmp_path: Path) -> None:
    server = start(tmp_path / "data")
    go = tmp_path / "go"
    script = f"while [ ! -e {go} ]; do sleep 0.02; done; echo late; exit 7"
    async with grpc.aio.insecure_channel(server.target) as channel:
        door = GrpcDoor(channel, server.token)
        job_id = (await door.create("sh", "-c", script))["job_id"]
        await eventually(lambda: door.get(job_id), until=lambda job: job["state"] == "running")
    server.kill()
    go.touch()
    again = start(server.data_dir)
    async with grpc.aio.insecure_channel(again.target) as channel:
        door = GrpcDoor(channel, again.token)
        job = await door.ended(job_id)
        assert (job["state"], job["exit_code"], job["attempt"]) == ("failed", 7, 1)
        assert [it["message"] for it in (await door.call("GetLogs", job_id=job_id))["logs"]] == ["late"]
    again.stop()


async def test_sigterm_ends_streams_with_a_marker_and_leaves_jobs_running(tmp_path: Path) -> None:
    server = start(tmp_path / "data", afresh=True)
    async with aiohttp.ClientSession() as session:
        door = RestDoor(session, server.url, server.token)
        job_id = (await door.create("sleep", "600"))["job_id"]
        await eventually(lambda: door.get(job_id), until=lambda job: job["state"] == "running")
        headers = {**door.headers, "Accept": "application/x-ndjson"}
        async with session.get(f"{door.url}/v1/stream?resume_from=0", headers=headers) as stream:
            await stream.content.readline()
            server.process.send_signal(signal.SIGTERM)
            lines = [json.loads(line) async for line in stream.content]
    assert lines[-1] == {"end": {}}
    assert lines[-2]["result"]["event_type"] == "engine.shutting_down"
    assert server.process.wait(STOP_SECONDS) == 0
    again = start(server.data_dir)
    async with aiohttp.ClientSession() as session:
        door = RestDoor(session, again.url, again.token)
        assert (await door.get(job_id))["state"] == "running"
        await door.cancel(job_id)
        assert (await door.ended(job_id))["state"] == "cancelled"
    again.stop()


async def test_stop_jobs_ends_what_runs_first(tmp_path: Path) -> None:
    server = start(tmp_path / "data", "--stop-jobs")
    async with aiohttp.ClientSession() as session:
        door = RestDoor(session, server.url, server.token)
        job_id = (await door.create("sleep", "600"))["job_id"]
        await eventually(lambda: door.get(job_id), until=lambda job: job["state"] == "running")
    assert server.stop() == 0
    again = start(server.data_dir)
    async with aiohttp.ClientSession() as session:
        door = RestDoor(session, again.url, again.token)
        assert (await door.get(job_id))["state"] == "cancelled"
    again.stop()


async def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    """Here the first one waits for a job that ignores SIGTERM."""
    server = start(tmp_path / "data", "--stop-jobs", afresh=True)
    stubborn = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
    async with aiohttp.ClientSession() as session:
        door = RestDoor(session, server.url, server.token)
        job_id = (await door.create("python3", "-c", stubborn, grace_period="60s"))["job_id"]
        await eventually(lambda: door.call("GetLogs", job_id=job_id), until=lambda page: page["total"] == 1)
        server.process.send_signal(signal.SIGTERM)
        await eventually(lambda: _cancel_request(server.data_dir, job_id))
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(SOON) == 128 + signal.SIGTERM
    again = start(server.data_dir)
    async with aiohttp.ClientSession() as session:
        door = RestDoor(session, again.url, again.token)
        assert (await door.cancel(job_id, grace_period="0s"))["state"] == "cancelling"
        assert (await door.ended(job_id))["state"] == "cancelled"
    again.stop()


async def _cancel_request(data_dir: Path, job_id: str) -> list[Path]:
    """What asks the job's supervisor to end it."""
    return list(data_dir.glob(f"control/{job_id}.*/cancel.json"))
