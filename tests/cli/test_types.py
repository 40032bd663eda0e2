"""`jobledger types`, and running one."""

import json

from cli.program import Run
from google.protobuf.json_format import ParseDict
from jobledger.v1.job_pb2 import Job, JobState
from jobledger.v1.job_service_pb2 import JobType, ListJobTypesResponse
from sdk.fake_server import FakeServer

TRAIN = ParseDict(
    {
        "name": "train",
        "description": "Trains a model",
        "config_schema": {"required": ["model"], "properties": {"model": {}, "epochs": {}, "seed": {}}},
        "defaults": {"config": {"epochs": 10}},
    },
    JobType(),
)


async def test_types_tells_what_config_each_takes(server: FakeServer, run: Run) -> None:
    server.on("ListJobTypes", ListJobTypesResponse(job_types=[JobType(name="nightly"), TRAIN]))
    lines = (await run("types")).out.splitlines()
    assert lines[0].split() == ["TYPE", "CONFIG", "DESCRIPTION"]
    assert lines[1].split() == ["nightly", "-"]
    assert lines[2].split(maxsplit=1) == ["train", "epochs=10, model, seed?  Trains a model"]
    told = json.loads((await run("types", "--json")).out)
    assert [it["name"] for it in told["job_types"]] == ["nightly", "train"]
    assert told["job_types"][1]["config_schema"]["required"] == ["model"]


async def test_types_says_so_where_there_are_none(server: FakeServer, run: Run) -> None:
    server.on("ListJobTypes", ListJobTypesResponse())
    outcome = await run("types")
    assert (outcome.code, outcome.out) == (0, "")
    assert "No job types are declared" in outcome.err


async def test_a_type_is_run_by_its_name_and_config(server: FakeServer, run: Run) -> None:
    server.on("CreateJob", Job(job_id="job_1", state=JobState.JOB_STATE_QUEUED))
    assert (await run("run", "--type", "train", "--config", '{"model": "m"}')).out == "job_1\n"
    spec = server.requests["CreateJob"][0].spec
    assert (spec.job_type, list(spec.command), spec.config["model"]) == ("train", [], "m")
