"""What a job has declared and kept survives the server, once."""

import contextlib
import sqlite3
import sys
from pathlib import Path
from typing import Any

import grpc
from faults.ledger import broken_promises
from support.doors import GrpcDoor, Json
from support.eventually import eventually
from support.running import RunningServer, start

JOB = """
import json, os, time, zlib
from jobledger import job
def forge(name, content):
    # In the directory by which server and supervisor talk about it, as it can where nothing isolates it.
    control = "../../control/{JOBLEDGER_JOB_ID}.{JOBLEDGER_ATTEMPT}".format_map(os.environ)
    path = os.path.join(os.environ["JOBLEDGER_JOB_DIR"], control, name)
    with open(path + ".new", "wb") as file:
        file.write(content)
    os.replace(path + ".new", path)
def wait_for(name):
    while not os.path.exists(os.path.join(os.environ["GATES"], name)):
        time.sleep(0.02)
job.artifact("early.bin")
wait_for("down")
job.artifact("early.bin")
job.artifact("late.bin")
job.output("early.bin").write_text("early")
wait_for("end")
forge("artifacts.json", json.dumps({"paths": ["early.bin", "twice.bin", "late.bin", "twice.bin"]}).encode())
senseless = b'{"reason": "won"}'
forge("started.json", b"{}".ljust(1024) + b"%08x %s" % (zlib.crc32(senseless), senseless))
"""


async def artifacts(server: RunningServer, job_id: str) -> dict[str, Json]:
    async with opened(server) as door:
        return {found["path"]: found for found in (await door.call("GetArtifacts", job_id=job_id))["artifacts"]}


@contextlib.asynccontextmanager
async def opened(server: RunningServer) -> Any:
    async with grpc.aio.insecure_channel(server.target) as channel:
        yield GrpcDoor(channel, server.token)


async def test_declarations_survive_a_killed_server_and_are_there_once(tmp_path: Path) -> None:
    """One made while a server lives, one while none does; killed again between both and the end of the job.

    That says one of them twice, in a list that the job forges, as it does its record; the server starts all the same.
    """
    data_dir = tmp_path / "data"
    server = start(data_dir)
    try:
        async with opened(server) as door:
            created = await door.create(sys.executable, "-c", JOB, env={"GATES": str(tmp_path)})
        job_id = created["job_id"]
        early = await eventually(lambda: artifacts(server, job_id), until=bool)
        server.kill()
        (tmp_path / "down").touch()
        await eventually(lambda: declared(data_dir, "late.bin"))
        server = start(data_dir)
        both = await eventually(lambda: artifacts(server, job_id), until=lambda found: len(found) == 2)
        assert {found["status"] for found in both.values()} == {"pending"}
        assert both["early.bin"] == early["early.bin"]
        server.kill()
        (tmp_path / "end").touch()
        server = start(data_dir)
        async with opened(server) as door:
            assert (await door.ended(job_id))["state"] == "completed"
        settled = await artifacts(server, job_id)
        assert {path: (found["id"], found["status"]) for path, found in settled.items()} == {
            "early.bin": (both["early.bin"]["id"], "complete"),
            "late.bin": (both["late.bin"]["id"], "failed"),
            "twice.bin": (settled["twice.bin"]["id"], "failed"),
        }
        assert server.stop() == 0
    finally:
        for gate in ("down", "end"):
            (tmp_path / gate).touch()
        server.kill()
    assert broken_promises(data_dir / "jobledger.db") == []
    assert events(data_dir) == 6


async def declared(data_dir: Path, path: str) -> bool:
    """Whether the job's supervisor has written it down."""
    return any(path in file.read_text() for file in data_dir.glob("control/*/artifacts.json"))


def events(data_dir: Path) -> int:
    """How many events tell of artifacts: of each that it is pending, and what became of it."""
    with contextlib.closing(sqlite3.connect(data_dir / "jobledger.db")) as database:
        return sum(b"job.artifact" in event for (event,) in database.execute("SELECT event FROM events"))
