"""Isolation as an operator chooses it: what jobs find, what receipts say, and that nothing weaker takes its place."""

import json
import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from functools import cache
from pathlib import Path
from typing import TypeAlias

import grpc
import pytest
from faults.serving import not_possible
from jobledger_server.executors.local.isolation import LEVELS, NONE
from support.doors import GrpcDoor, Refused
from support.isolation import isolation_for
from support.running import STOP_SECONDS, RunningServer, launch, output_file, start

# Whatever the server's environment holds beside them.
DOCUMENTED = {"PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR"}
ServerAt: TypeAlias = Callable[[str], RunningServer]
# Without what root may do to the processes of all: as a server of another user is.
AS_OTHERS = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
IS_ROOT, CAN_BE_AS_OTHERS = os.geteuid() == 0, shutil.which("setpriv") is not None
LOOKS = """
look() { true < "$1" && echo "saw $2"; }
for file in environ maps mem fd/0; do look "/proc/$SERVER/$file" "$file"; look "/proc/$$/$file" "own $file"; done
for file in "$DATA"/keys/*.key "$DATA/jobledger.db" "$DATA/token"; do look "$file" "${file##*/}"; done
"""


def started(data_dir: Path, level: str, by: Sequence[str] = ()) -> RunningServer:
    isolation_for(level, data_dir)
    return start(data_dir, "--isolation", level, afresh=True, by=by)


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerAt]:
    """The server of a level, started when it is first asked for, with secrets in its environment."""
    with ExitStack() as stack:

        @cache
        def server_at(level: str) -> RunningServer:
            with pytest.MonkeyPatch.context() as environment:
                for name in ("API_TOKEN", "LD_PRELOAD_OF_OURS", "PYTHONPATH_OF_OURS", "SSH_AUTH_SOCK"):
                    environment.setenv(name, "secret")
                by = AS_OTHERS if level == NONE and IS_ROOT and CAN_BE_AS_OTHERS else ()
                server = started(tmp_path_factory.mktemp(level) / "data", level, by)
            stack.callback(server.stop)
            return server

        yield server_at


@asynccontextmanager
async def door_of(server: RunningServer) -> AsyncIterator[GrpcDoor]:
    async with grpc.aio.insecure_channel(server.target) as channel:
        yield GrpcDoor(channel, server.token)


@asynccontextmanager
async def serving(data_dir: Path, level: str) -> AsyncIterator[GrpcDoor]:
    """A server of its own."""
    server = started(data_dir, level)
    try:
        async with door_of(server) as door:
            yield door
    finally:
        server.stop()


async def isolation_in_receipt(door: GrpcDoor, job_id: str) -> object:
    receipt, _ = await door.receipt(job_id)
    return json.loads(receipt)["environment"]["isolation"]


async def messages(door: GrpcDoor, job_id: str) -> list[str]:
    return [entry["message"] for entry in (await door.call("GetLogs", job_id=job_id))["logs"]]


@pytest.mark.parametrize("level", LEVELS)
async def test_the_level_is_told_by_status_and_receipt_and_keeps_the_token(at: ServerAt, level: str) -> None:
    server = at(level)
    async with door_of(server) as door:
        assert (await door.call("GetStatus"))["isolation"] == level
        script = 'cat "$TOKEN"; echo kept > "$JOBLEDGER_OUTPUT_DIR/result"'
        job = await door.create("sh", "-c", script, env={"TOKEN": server.endpoints["token_file"]})
        ended = await door.ended(job["job_id"])
        assert (ended["state"], [it["path"] for it in ended["artifacts"]]) == ("completed", ["result"])
        assert (server.token in await messages(door, job["job_id"])) == (level == NONE)
        assert await isolation_in_receipt(door, job["job_id"]) == level


async def test_a_job_keeps_the_level_that_it_was_started_under(tmp_path: Path) -> None:
    """Whatever the server that adopts it would start others under."""
    async with serving(tmp_path / "data", "landlock") as door:
        job_id = (await door.create("cat", stdin="open"))["job_id"]
        while (await door.get(job_id))["state"] == "queued":
            await door.call("WaitJob", job_id=job_id, timeout="0.1s")
    async with serving(tmp_path / "data", NONE) as door:
        assert (await door.call("GetStatus"))["isolation"] == NONE
        await door.call("SendInput", job_id=job_id, text="", close=True)
        assert (await door.ended(job_id))["state"] == "completed"
        assert await isolation_in_receipt(door, job_id) == "landlock"


@pytest.mark.parametrize(("level", "place"), [("landlock", "."), ("landlock", "data/logs"), ("bwrap", "data/logs")])
async def test_a_working_directory_that_isolation_can_not_allow_is_refused_at_once(
    at: ServerAt, level: str, place: str
) -> None:
    server = at(level)
    async with door_of(server) as door:
        before = (await door.call("ListJobs"))["total"]
        with pytest.raises(Refused) as refused:
            await door.create("true", working_dir=str(server.data_dir.parent / place))
        assert (await door.call("ListJobs"))["total"] == before
    assert refused.value.error_code == "E_PATH_NOT_ALLOWED"
    assert "the server's data directory" in refused.value.message


@pytest.mark.parametrize("level", LEVELS)
async def test_the_token_is_no_input_of_a_job(at: ServerAt, tmp_path: Path, level: str) -> None:
    """It would be copied by the server, which may read it, whatever the job may."""
    server = at(level)
    async with door_of(server) as door:
        (tmp_path / "link").symlink_to(server.data_dir)
        for path in (server.endpoints["token_file"], str(tmp_path / "link" / "token")):
            with pytest.raises(Refused) as refused:
                await door.create("true", inputs=[{"type": "INPUT_TYPE_FILE", "file_path": path}])
            assert refused.value.error_code == "E_PATH_NOT_ALLOWED"


async def test_a_job_that_never_ran_was_under_none_of_the_levels(at: ServerAt) -> None:
    async with door_of(at("landlock")) as door:
        job_id = (await door.create("/no/such/program"))["job_id"]
        assert (await door.ended(job_id))["error_code"] == "E_JOB_SPAWN_FAILED"
        assert await isolation_in_receipt(door, job_id) is None


@pytest.mark.parametrize("level", LEVELS)
async def test_nothing_of_the_servers_environment_reaches_a_job_but_a_few_names(at: ServerAt, level: str) -> None:
    async with door_of(at(level)) as door:
        job_id = (await door.create("/usr/bin/env", "-0", env={"GIVEN": "x"}))["job_id"]
        assert (await door.ended(job_id))["state"] == "completed"
        (listing,) = await messages(door, job_id)
        names = {pair.partition("=")[0] for pair in listing.rstrip("\0").split("\0")}
    own = {name for name in names if name.startswith("JOBLEDGER_")}
    assert names - own - DOCUMENTED == {"GIVEN"}
    assert "secret" not in listing


@pytest.mark.parametrize("level", LEVELS)
async def test_no_job_looks_into_the_server(at: ServerAt, level: str) -> None:
    """Where nothing isolates it that is so of environment and memory alone, as the page of threats says."""
    if IS_ROOT and not CAN_BE_AS_OTHERS:
        not_possible("setpriv", "there is no such program")
    server = at(level)
    env = {"SERVER": str(server.process.pid), "DATA": str(server.data_dir)}
    async with door_of(server) as door:
        job_id = (await door.create("sh", "-c", LOOKS, env=env))["job_id"]
        assert (await door.ended(job_id))["exit_code"] is not None
        saw = {line.removeprefix("saw ") for line in await messages(door, job_id) if line.startswith("saw ")}
    files = {"jobledger.db", "token", *(path.name for path in (server.data_dir / "keys").glob("*.key"))}
    assert len(files) > 2
    own = {"own environ", "own maps", "own mem", "own fd/0"}
    assert saw == (own | files if level == NONE else own)


def test_a_server_that_cannot_isolate_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never something weaker instead."""
    monkeypatch.setenv("PATH", str(tmp_path))
    server = launch(tmp_path / "data", "--isolation", "bwrap")
    assert server.wait(STOP_SECONDS) == 2
    told = output_file(tmp_path / "data").read_text()
    assert "jobs can't be isolated by bwrap here: there is no program bwrap in PATH" in told
    assert "Traceback" not in told
    assert not (tmp_path / "data" / "endpoints.json").exists()
