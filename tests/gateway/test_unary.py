"""Unary calls from end to end."""

from gateway.client import Client
from gateway.engine import Engine, Refusal
from jobledger.v1 import job_pb2, job_service_pb2


async def test_a_path_variable_sets_its_field(client: Client, engine: Engine) -> None:
    engine.on("GetJob", job_pb2.Job(job_id="job_1", state=job_pb2.JOB_STATE_RUNNING))
    answer = await client.get("/v1/jobs/job_1")
    assert answer.status == 200
    assert answer.json["state"] == "running"
    assert engine.requests("GetJob") == [job_service_pb2.GetJobRequest(job_id="job_1")]


async def test_creating_answers_201_with_the_location_that_the_call_gave(client: Client, engine: Engine) -> None:
    engine.on("CreateJob", job_pb2.Job(job_id="job_1"), metadata=[("location", "/v1/jobs/job_1"), ("x-secret", "no")])
    answer = await client.post("/v1/jobs", json={"spec": {"command": ["true"]}, "idempotency_key": "k"})
    assert answer.status == 201
    assert answer.headers["Location"] == "/v1/jobs/job_1"
    assert "x-secret" not in answer.headers
    assert list(engine.requests("CreateJob")[0].spec.command) == ["true"]
    assert len(engine.calls) == 1


async def test_a_refusal_becomes_the_error_of_its_reason(client: Client, engine: Engine) -> None:
    engine.on("GetJob", Refusal("JOB_NOT_FOUND"))
    answer = await client.get("/v1/jobs/job_1")
    assert answer.status == 404
    assert answer.json == {"error_code": "E_JOB_NOT_FOUND", "message": "There is no such job", "details": {}}
