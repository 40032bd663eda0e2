"""A database that is lost comes back, and a copy of a running installation is one from which to go on."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import grpc
import pytest
from jobledger.receipts import LogProof, load_keys, verify
from jobledger.v1.receipt_service_pb2 import GetConsistencyProofRequest
from jobledger.v1.receipt_service_pb2_grpc import ReceiptServiceStub
from jobledger_server.offline.backup import BackedUp, back_up
from support.doors import Door, GrpcDoor, Refused
from support.eventually import eventually
from support.running import RunningServer, launch, output_file, run_cli, start

Kept = dict[str, Any]


@contextlib.asynccontextmanager
async def door_to(server: RunningServer) -> Any:
    async with grpc.aio.insecure_channel(server.target) as channel:
        yield GrpcDoor(channel, server.token)


async def a_job(door: Door, text: str, **spec: Any) -> str:
    created = await door.create("sh", "-c", f"echo said {text}; echo {text} > $JOBLEDGER_OUTPUT_DIR/result", **spec)
    return str(created["job_id"])


async def kept_of(door: Door, job_id: str) -> Kept:
    """All that is to be had of a job."""
    artifacts = (await door.call("GetArtifacts", job_id=job_id)).get("artifacts", [])
    return {
        "job": await door.get(job_id),
        "receipt": (await door.receipt(job_id))[0],
        "envelope": (await door.receipt(job_id, "dsse"))[0],
        "artifacts": artifacts,
        "bytes": [await door.download(job_id, int(artifact["id"])) for artifact in artifacts],
        "log": (await door.call("GetLogs", job_id=job_id)).get("logs", []),
    }


def runs(pid_file: Path) -> bool:
    """Whether the process that wrote its number there lives."""
    try:
        os.kill(int(pid_file.read_text()), 0)
    except ProcessLookupError:
        return False
    return True


async def a_running_job(door: Door, place: Path) -> tuple[str, Path]:
    """A job that goes on until it is killed, and where it has written its number."""
    pid_file = place / "pid"
    script = f"echo $$ > {pid_file}.new; mv {pid_file}.new {pid_file}; exec sleep 600"
    job_id = str((await door.create("sh", "-c", script))["job_id"])

    async def written() -> bool:
        return pid_file.exists()

    await eventually(written, until=bool)
    return job_id, pid_file


async def test_a_destroyed_database_stops_the_start_and_comes_back_by_recover(tmp_path: Path) -> None:
    """With every receipt at its place in the log; and what ran, and is unknown now, is named and does not go on."""
    server = start(tmp_path / "data", "--max-running", "4")
    async with door_to(server) as door:
        ended = [await a_job(door, text, labels={"of": text}) for text in ("one", "two")]
        for job_id in ended:
            await door.ended(job_id)
        before = {job_id: await kept_of(door, job_id) for job_id in ended}
        proof = (await door.receipt(ended[0], "proof"))[0]
        running, pid_file = await a_running_job(door, tmp_path)
    log_key, token = (server.data_dir / "keys" / "log.vkey").read_text(), server.token
    server.kill()
    for file in server.data_dir.glob("jobledger.db-*"):
        file.unlink()
    (server.data_dir / "jobledger.db").write_bytes(b"\0" * 100_000)
    refusal = launch(server.data_dir)
    assert refusal.wait(30) == 2
    assert "jobledger recover" in output_file(server.data_dir).read_text()
    assert runs(pid_file)
    told = run_cli(server, "recover", "--json", afresh=True)
    assert told.returncode == 0, told.stderr
    done = json.loads(told.stdout)
    assert (done["receipts"], done["jobs"], done["damaged_artifacts"]) == (2, 2, [])
    assert [(job["job_id"], job["running"], job["survived"]) for job in done["unfinished"]] == [(running, True, False)]
    assert not runs(pid_file)
    again = start(server.data_dir)
    assert again.token != token
    async with door_to(again) as door:
        assert {job_id: await kept_of(door, job_id) for job_id in ended} == before
        assert (await door.call("ListJobs", label=["of=two"]))["total"] == 1
        keys = load_keys(server.data_dir / "keys" / "keys.json")
        report = verify(
            before[ended[0]]["envelope"],
            keys=keys,
            log_proof=LogProof((await door.receipt(ended[0], "proof"))[0].decode(), log_key),
        )
        assert report.exit_code == 0, report
        assert (await door.receipt(ended[0], "proof"))[0] == proof
        with pytest.raises(Refused) as caught:
            await anext(door.events(resume_from=3))
        assert caught.value.error_code == "E_STREAM_GAP_TOO_LARGE"
        await door.ended(await a_job(door, "three"))
        stub = ReceiptServiceStub(grpc.aio.insecure_channel(again.target))
        consistency = await stub.GetConsistencyProof(GetConsistencyProofRequest(old_size=2), metadata=door.metadata)
        assert consistency.checkpoint.tree_size == 3
    async with grpc.aio.insecure_channel(again.target) as channel:
        with pytest.raises(Refused) as caught:
            await GrpcDoor(channel, token).get(ended[0])
        assert caught.value.error_code == "E_AUTH_INVALID"
    assert again.stop() == 0


async def test_an_older_database_stops_the_start_until_it_is_accepted_in_a_new_log(tmp_path: Path) -> None:
    server = start(tmp_path / "data")
    async with door_to(server) as door:
        await door.ended(await a_job(door, "one"))
    server.stop()
    shutil.copyfile(server.data_dir / "jobledger.db", tmp_path / "older.db")
    server = start(server.data_dir)
    async with door_to(server) as door:
        await door.ended(await a_job(door, "two"))
    server.stop()
    shutil.copyfile(tmp_path / "older.db", server.data_dir / "jobledger.db")
    old_key = (server.data_dir / "keys" / "log.vkey").read_text()
    assert launch(server.data_dir).wait(30) == 2
    assert "has 1 receipts, and the archive's checkpoint has 2" in output_file(server.data_dir).read_text()
    told = run_cli(server, "recover", "--new-log")
    assert told.returncode == 0, told.stderr
    again = start(server.data_dir)
    assert (again.data_dir / "keys" / "log.vkey").read_text() != old_key
    async with door_to(again) as door:
        assert (await door.call("ListJobs"))["total"] == 1
        with pytest.raises(Refused) as caught:
            await anext(door.events(resume_from=5))
        assert caught.value.error_code == "E_STREAM_GAP_TOO_LARGE"
    assert again.stop() == 0


async def test_a_copy_taken_under_load_has_all_that_had_ended_and_leaves_the_original_alone(tmp_path: Path) -> None:
    server, copy = start(tmp_path / "data", "--max-running", "4"), tmp_path / "copy"
    async with door_to(server) as door:
        running, pid_file = await a_running_job(door, tmp_path)
        first = await a_job(door, "first")
        await door.ended(first)
        done = await backup_while_jobs_end(door, server.data_dir, copy)
        assert done.receipts >= 1
        assert (done.missing, done.damaged) == ((), ())
        restored = start(copy)
        async with door_to(restored) as other:
            jobs = (await other.call("ListJobs", limit=1000))["jobs"]
            assert all(job["state"] in ("completed", "failed") for job in jobs)
            lost = {job["job_id"] for job in jobs if job.get("error_code") == "E_JOB_LOST"}
            assert running in lost
            ended = [job["job_id"] for job in jobs if job["job_id"] not in lost]
            assert first in ended
            assert len(ended) == done.receipts
            keys = load_keys(copy / "keys" / "keys.json")
            for job_id in ended:
                kept = await kept_of(other, job_id)
                assert kept["log"][0]["message"].startswith("said ")
                assert kept["bytes"] == [kept["log"][0]["message"].removeprefix("said ").encode() + b"\n"]
                assert verify(kept["envelope"], keys=keys, job_id=job_id).exit_code == 0
                assert not Path((await other.get(job_id)).get("job_dir") or copy).is_relative_to(server.data_dir)
                original = await kept_of(door, job_id)
                assert (kept["receipt"], kept["envelope"]) == (original["receipt"], original["envelope"])
        assert restored.stop() == 0
        assert (await door.get(running))["state"] == "running"
        assert runs(pid_file)
        await door.cancel(running)
        await door.ended(running)
    assert server.stop(number=signal.SIGTERM) == 0


async def backup_while_jobs_end(door: Door, data_dir: Path, copy: Path) -> BackedUp:
    """Jobs are made and end from before the backup until after it."""
    taken = asyncio.Event()

    async def load(worker: int) -> None:
        number = 0
        while not taken.is_set():
            await door.ended(await a_job(door, f"{worker}-{(number := number + 1)}"))

    workers = [asyncio.create_task(load(worker)) for worker in range(2)]
    await eventually(lambda: door.call("ListJobs", state=["completed"]), until=lambda page: page["total"] >= 3)
    try:
        return await asyncio.to_thread(back_up, data_dir, copy)
    finally:
        taken.set()
        await asyncio.gather(*workers)
