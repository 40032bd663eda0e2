"""Job types from declaration to receipt, and that a token without `jobs:exec` runs nothing else, through both doors."""

import json
import os
import re
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
from support import forking
from support.doors import Door, GrpcDoor, Refused, RestDoor
from support.eventually import eventually
from support.running import RunningServer, start

PAGE = Path(__file__).parents[2] / "server" / "docs" / "job-types.md"
EXAMPLE = re.search(r"```toml\n(.*?)```", PAGE.read_text(), re.DOTALL)
MORE = """
[job_types.cat]
command = ["cat"]
[job_types.cat.defaults]
stdin = "open"

[job_types.show]
command = ["printf", "<%s>", "{config.text}", "--at={config.file}"]
schema = { properties = { text = { type = "string" }, file = { type = "string", format = "path" } } }
[job_types.show.defaults]
config = { file = "ROOT/x" }
queue = "held"
"""
LIMIT = ("--queue-limit", "held=1")


@dataclass
class Keys:
    """Tokens, by what they are for."""

    creator: str
    create_only: str


@pytest.fixture(scope="module")
def declared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    assert EXAMPLE is not None
    file = tmp_path_factory.mktemp("declared") / "jobledger.toml"
    file.write_text(f'roots = ["{file.parent}"]\n{EXAMPLE[1]}{MORE.replace("ROOT", str(file.parent))}')
    return file


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, declared: Path) -> Iterator[RunningServer]:
    data_dir = tmp_path_factory.mktemp("jobledger") / "data"
    running = start(data_dir, "--max-running", "4", "--config", str(declared), *LIMIT)
    yield running
    running.stop()


@pytest.fixture(scope="module")
def keys(server: RunningServer) -> Keys:
    def token(*scopes: str) -> str:
        options = [option for scope in scopes for option in ("--scope", scope)]
        return cli(server, "token", "create", "--name", "t", *options).stdout.strip()

    return Keys(creator=token("jobs:create", "jobs:read", "jobs:cancel"), create_only=token("jobs:create"))


@pytest.fixture(params=["grpc", "rest"])
async def creator(request: pytest.FixtureRequest, server: RunningServer, keys: Keys) -> AsyncIterator[Door]:
    """May create and read, and not execute."""
    if request.param == "grpc":
        async with grpc.aio.insecure_channel(server.target) as channel:
            yield GrpcDoor(channel, keys.creator)
    else:
        async with aiohttp.ClientSession() as session:
            yield RestDoor(session, server.url, keys.creator)


def cli(server: RunningServer, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("JOBLEDGER_")}
    return forking.run(arguments, {**clean, "JOBLEDGER_DATA_DIR": str(server.data_dir), **settings})


async def refusal(door: Door, verb: str = "CreateJob", **request: Any) -> Refused:
    with pytest.raises(Refused) as caught:
        await door.call(verb, **request)
    return caught.value


def fields_of(refused: Refused) -> list[str]:
    assert refused.error_code == "E_VALIDATION"
    return [it["field"] for it in refused.details["fields"]]


async def test_a_declared_type_runs_without_the_right_to_execute(creator: Door) -> None:
    text = "to be; $(touch /tmp/x) `id`"
    job = await creator.create(job_type="word-count", config={"text": text}, labels={"mine": "1"})
    job = await creator.ended(job["job_id"])
    assert (job["state"], job["job_type"]) == ("completed", "word-count")
    assert job["spec"]["command"][-3:] == ["sh", text, "-w"]
    assert job["spec"]["config"] == {"text": text, "unit": "w"}
    assert job["labels"] == {"team": "text", "mine": "1"}
    [entry] = (await creator.call("GetLogs", job_id=job["job_id"]))["logs"]
    assert entry["message"].split() == [str(len(text.split()))]
    [artifact] = job["artifacts"]
    assert await creator.download(job["job_id"], artifact["id"]) == f"{text}\n".encode()
    receipt = json.loads((await creator.receipt(job["job_id"]))[0])
    assert receipt["source_pins"] == {"job_type": "word-count"}
    assert receipt["config_snapshot"] == job["spec"]["config"]
    assert receipt["command"] == job["spec"]["command"]


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"command": ["id"]}, "spec.command"),
        ({"env": {"LD_PRELOAD": "/tmp/x.so"}}, "spec.env[LD_PRELOAD]"),
        ({"env": {"PATH": "/tmp"}}, "spec.env[PATH]"),
        ({"env": {"PYTHONPATH": "/tmp"}}, "spec.env[PYTHONPATH]"),
        ({"env": {"LC_ALL": "secret:env:HOME"}}, "spec.env[LC_ALL]"),
        ({"working_dir": "/tmp"}, "spec.working_dir"),
        ({"stdin": "open"}, "spec.stdin"),
        ({"inputs": [{"type": "INPUT_TYPE_FILE", "file_path": "/etc/passwd"}]}, "spec.inputs"),
        ({"limits": {"open_files": 16}}, "spec.limits"),
        ({"queue": "other"}, "spec.queue"),
        ({"artifacts": ["**"]}, "spec.artifacts"),
        ({"tools": ["sh"]}, "spec.tools"),
        ({"timeout": "601s"}, "spec.timeout"),
        ({"labels": {"team": "other"}}, "spec.labels[team]"),
        ({"config": {"text": "x", "unit": "w --files0-from=/etc/passwd"}}, "spec.config.unit"),
        ({"config": {"text": "x", "command": ["id"]}}, "spec.config"),
        ({"config": {}}, "spec.config"),
        ({"job_type": "show", "config": {"text": "--help"}}, "spec.config.text"),
        ({"job_type": "no-such-type"}, "spec.job_type"),
    ],
)
async def test_nothing_else_runs_by_any_field(creator: Door, spec: dict[str, Any], field: str) -> None:
    refused = await refusal(creator, spec={"job_type": "word-count", "config": {"text": "x"}, **spec})
    assert fields_of(refused) == [field]
    if field == "spec.job_type":
        assert "known: command, cat, show, word-count" in refused.message


async def test_a_command_takes_the_right_to_execute_however_it_is_come_by(creator: Door, rest: RestDoor) -> None:
    others = await rest.create("sh", stdin="open")
    for spec in (
        {"command": ["id"]},
        {"command": ["id"], "job_type": "command"},
        {"rerun_of": others["job_id"]},
        {"rerun_of": others["job_id"], "job_type": "command"},
    ):
        assert (await refusal(creator, spec=spec)).error_code == "E_FORBIDDEN"
    claimed = {"rerun_of": others["job_id"], "job_type": "word-count", "config": {"text": "x"}}
    assert fields_of(await refusal(creator, spec=claimed)) == ["spec.job_type"]
    refused = await refusal(creator, "SendInput", job_id=others["job_id"], text="id\n", close=True)
    assert (refused.error_code, refused.details["scope"]) == ("E_FORBIDDEN", "jobs:exec")
    await rest.call("SendInput", job_id=others["job_id"], text="echo mine\n", close=True)
    assert (await rest.ended(others["job_id"]))["state"] == "completed"


async def test_input_goes_where_the_declaration_opens_it(creator: Door) -> None:
    job = await creator.create(job_type="cat")
    await creator.call("SendInput", job_id=job["job_id"], text="hello\n", close=True)
    assert (await creator.ended(job["job_id"]))["state"] == "completed"
    assert [it["message"] for it in (await creator.call("GetLogs", job_id=job["job_id"]))["logs"]] == ["hello"]


async def test_a_path_in_config_lies_within_the_roots(creator: Door) -> None:
    refused = await refusal(creator, spec={"job_type": "show", "config": {"text": "x", "file": "/etc/passwd"}})
    assert (refused.error_code, "spec.config.file" in refused.message) == ("E_PATH_NOT_ALLOWED", True)


async def test_a_rerun_shows_what_it_repeats_and_takes_the_right_to_read(
    creator: Door, server: RunningServer, keys: Keys
) -> None:
    job = await creator.create(job_type="word-count", config={"text": "a b", "unit": "c"})
    again = await creator.create(rerun_of=job["job_id"], config={"text": "a b c"})
    assert again["spec"]["command"][-2:] == ["a b c", "-w"], "a field that is given replaces that job's as a whole"
    same = await creator.create(rerun_of=job["job_id"])
    assert same["spec"]["command"] == job["spec"]["command"]
    async with aiohttp.ClientSession() as session:
        blind = RestDoor(session, server.url, keys.create_only)
        refused = await refusal(blind, spec={"rerun_of": job["job_id"]})
        assert (refused.error_code, refused.details["scope"]) == ("E_FORBIDDEN", "jobs:read")
        assert (await blind.create(job_type="word-count", config={"text": "x"}))["state"] == "queued"


async def test_types_are_listed_with_their_schemas(creator: Door) -> None:
    answer = await creator.call("ListJobTypes")
    assert [it["name"] for it in answer["job_types"]] == ["cat", "show", "word-count"]
    listed = answer["job_types"][2]
    assert (listed["description"], listed["allow"]) == ("Counts the words of a text", ["env.LC_ALL"])
    assert (listed["config_schema"]["required"], listed["command"][0]) == (["text"], "sh")
    assert (listed["defaults"]["max_attempts"], listed["defaults"]["config"]) == (2, {"unit": "w"})


def test_the_page_works_as_pasted(server: RunningServer, keys: Keys) -> None:
    listed = cli(server, "types", JOBLEDGER_TOKEN=keys.creator)
    assert [line.split()[0] for line in listed.stdout.splitlines()] == ["TYPE", "cat", "show", "word-count"]
    assert 'text, unit="w"' in listed.stdout
    run = re.search(r"--config '(\{.*\})' --follow", PAGE.read_text())
    assert run is not None
    given = ("run", "--type", "word-count", "--config", run[1], "--follow")
    ran = cli(server, *given, JOBLEDGER_TOKEN=keys.creator)
    assert (ran.returncode, ran.stdout.split()) == (0, ["6"])
    assert "'jobs:exec'" in cli(server, "run", "--", "id", JOBLEDGER_TOKEN=keys.creator).stderr


async def test_a_queued_job_runs_as_it_was_resolved_whatever_is_declared_by_then(
    server: RunningServer, declared: Path, keys: Keys, rest: RestDoor
) -> None:
    """Its type is gone after the restart: new ones are refused, reruns too, and what was accepted runs."""
    holder = await rest.create("sleep", "600", queue="held")
    await eventually(lambda: rest.get(holder["job_id"]), until=lambda job: job["state"] == "running")
    waiting = await rest.create(job_type="show", config={"text": "a b"})
    assert waiting["state"] == "queued"
    declared.write_text(declared.read_text().replace("[job_types.show", "[job_types.other"))
    server.kill()
    (server.data_dir / "endpoints.json").unlink()
    again = start(server.data_dir, "--max-running", "4", "--config", str(declared), *LIMIT)
    server.process, server.endpoints = again.process, again.endpoints
    door = RestDoor(rest.session, server.url, keys.creator)
    for spec in ({"job_type": "show"}, {"rerun_of": waiting["job_id"]}):
        assert fields_of(await refusal(door, spec=spec)) == ["spec.job_type"]
    await door.cancel(holder["job_id"])
    assert (await door.ended(waiting["job_id"]))["state"] == "completed"
    [entry] = (await door.call("GetLogs", job_id=waiting["job_id"]))["logs"]
    assert entry["message"] == f"<a b><--at={declared.parent}/x>"
    repeated = await RestDoor(rest.session, server.url, server.token).create(
        rerun_of=waiting["job_id"], job_type="command", queue="default"
    )
    assert repeated["spec"]["command"] == waiting["spec"]["command"]
