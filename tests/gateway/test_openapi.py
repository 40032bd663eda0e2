"""The OpenAPI document: committed, valid, and true of a server that runs."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from jobledger_gateway.openapi_file import openapi_text
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from support.running import RunningServer, start

COMMITTED = Path(__file__).parents[2] / "clients" / "openapi.json"
SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")
SEED = 20251
# A stream of all events has no end; to revoke or rotate the token that it uses itself would end the run.
LEFT_OUT = ("JobService_WatchEvents", "EngineService_RevokeToken", "EngineService_RotateToken")


@pytest.fixture(scope="module")
def openapi() -> Any:
    return json.loads(COMMITTED.read_text())


def inputs(openapi: Any, name: str) -> Draft202012Validator:
    """What holds JSON against the schema of a message in a request."""
    return Draft202012Validator({"$ref": f"#/components/schemas/{name}.Input", **openapi})


async def test_the_committed_document_is_the_one_that_is_served() -> None:
    assert COMMITTED.read_text() == await openapi_text(), "clients/openapi.json is not fresh: run `make generate`"


def test_the_document_is_valid_openapi(openapi: Any) -> None:
    assert [error.message for error in OpenAPIV31SpecValidator(openapi).iter_errors()] == []


@pytest.mark.parametrize(
    ("name", "value", "valid"),
    [
        ("JobSpec", {"command": ["true"], "timeout": "1.5s", "labels": {"a": "b"}, "working_dir": None}, True),
        ("JobSpec", {"timeout": 31536000, "grace_period": "300s", "priority": "JOB_PRIORITY_HIGH"}, True),
        ("JobSpec", {"timeout": 0}, False),
        ("JobSpec", {"timeout": "0s"}, False),
        ("JobSpec", {"timeout": "31536000.1s"}, False),
        ("JobSpec", {"grace_period": "300.5s"}, False),
        ("JobSpec", {"grace_period": "-1s"}, False),
        ("JobSpec", {"priority": "urgent"}, False),
        ("JobSpec", {"max_attempts": 101}, False),
        ("JobSpec", {"labels": {"a=b": "c"}}, False),
        ("JobSpec", {"nope": 1}, False),
        ("JobSpec", {"command": [None]}, False),
        ("JobSpec", {"config": {"deep": [{"n": 2**53}]}}, True),
        ("JobInput", {"reference": "x"}, False),
        ("JobInput", {"type": "unspecified", "reference": "x"}, False),
        ("JobInput", {"type": "file", "file_path": "/a"}, True),
    ],
)
def test_rules_of_the_protos_are_constraints_of_requests(openapi: Any, name: str, value: Any, valid: bool) -> None:
    assert inputs(openapi, f"jobledger.v1.{name}").is_valid(value) is valid


def test_what_can_be_unset_is_null_in_answers_and_nothing_is_left_out(openapi: Any) -> None:
    job = openapi["components"]["schemas"]["jobledger.v1.Job"]
    assert set(job["required"]) == set(job["properties"])
    assert job["properties"]["exit_code"]["type"] == ["integer", "null"]
    assert "null" not in job["properties"]["artifacts"]["type"]


def test_every_operation_says_what_protects_it_and_how_it_fails(openapi: Any) -> None:
    assert openapi["components"]["securitySchemes"]["token"] == {"type": "http", "scheme": "bearer"}
    assert openapi["security"] == [{"token": []}]
    for path, operation in operations(openapi):
        public = path in {"/healthz", "/readyz", "/v1/openapi.json"}
        assert operation.get("security") == ([] if public else None), path
        error = "DashboardError" if path.startswith("/gateway/") else "Error"
        expected = None if public else {"$ref": f"#/components/responses/{error}"}
        assert operation["responses"].get("default") == expected, path


def test_every_operation_field_and_parameter_is_described(openapi: Any) -> None:
    for path, operation in operations(openapi):
        assert operation["summary"], path
        for parameter in operation.get("parameters", ()):
            assert parameter["description"], (path, parameter["name"])
    for name, schema in openapi["components"]["schemas"].items():
        if name.startswith("jobledger.v1."):
            bare = [field for field, value in schema.get("properties", {}).items() if not value.get("description")]
            assert (name, bare) == (name, [])


def test_streams_tell_their_errors_and_how_to_resume(openapi: Any) -> None:
    for path, codes in (
        ("/v1/stream", {"400": "E_STREAM_INVALID_SEQUENCE", "410": "E_STREAM_GAP_TOO_LARGE"}),
        (
            "/v1/jobs/{job_id}/logs/tail",
            {"400": "E_STREAM_INVALID_SEQUENCE", "404": "E_JOB_NOT_FOUND", "410": "E_STREAM_GAP_TOO_LARGE"},
        ),
    ):
        operation = openapi["paths"][path]["get"]
        for status, code in codes.items():
            assert code in operation["responses"][status]["description"]
        assert "takes nothing" in operation["responses"]["200"]["description"]
        assert "Last-Event-ID" in {parameter["name"] for parameter in operation["parameters"]}
        line = operation["responses"]["200"]["content"]["application/x-ndjson"]["schema"]
        assert set(line["properties"]) == {"result", "heartbeat", "end", "error"}


@pytest.mark.parametrize(
    "path", ["/v1/jobs", "/v1/jobs/{job_id}/logs", "/v1/jobs/{job_id}/artifacts/{artifact_id}/content"]
)
def test_what_can_be_kept_tells_its_etag(openapi: Any, path: str) -> None:
    operation = openapi["paths"][path]["get"]
    assert "If-None-Match" in {parameter["name"] for parameter in operation["parameters"]}
    assert all("ETag" in operation["responses"][status]["headers"] for status in ("200", "304"))


def operations(openapi: Any) -> Iterator[tuple[str, Any]]:
    for path, methods in openapi["paths"].items():
        for operation in methods.values():
            yield path, operation


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    running = start(tmp_path_factory.mktemp("openapi") / "data", "--max-running", "1", "--stop-jobs")
    yield running
    running.stop()


async def test_a_token_that_would_outlive_the_calendar_is_refused(server: RunningServer) -> None:
    """Its end, past the year 9999, would be a time that no list of tokens could show."""
    headers = {"Authorization": f"Bearer {server.token}"}
    request = {"name": "t", "scopes": ["jobs:read"], "expires_in": 300_000_000_000}
    async with aiohttp.ClientSession(server.url, headers=headers) as session:
        async with session.post("/v1/tokens", json=request) as refused:
            assert refused.status == 422
        async with session.get("/v1/tokens") as listed:
            assert listed.status == 200


@pytest.mark.slow
def test_schemathesis_finds_nothing_wrong_with_a_running_server(server: RunningServer, tmp_path: Path) -> None:
    """It asks what the document allows, and what it does not, and holds the answers against it."""
    config = Path(__file__).with_name("schemathesis.toml")
    command = [
        *(str(SCHEMATHESIS), "--config-file", str(config), "run", f"{server.url}/v1/openapi.json"),
        *("--header", f"Authorization: Bearer {server.token}", "--request-timeout", "10", "--no-color"),
        *("--seed", str(SEED), "--generation-database", "none", "--generation-with-security-parameters", "false"),
        *("--phases", "coverage,fuzzing", "--max-examples", "3", "--continue-on-failure", "--no-shrink"),
        *(flag for name in LEFT_OUT for flag in ("--exclude-operation-id", name)),
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=110, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    generated = re.search(r"([0-9]+) generated, \1 passed|([0-9]+) generated", done.stdout)
    assert generated, done.stdout
    assert int(generated[1] or generated[2]) > 1000
