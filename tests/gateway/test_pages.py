"""Health, metrics, the OpenAPI document and its page."""

import json
import re
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from gateway.client import Client
from gateway.engine import Engine, Refusal
from google.protobuf.timestamp_pb2 import Timestamp
from grpc_health.v1 import health_pb2
from jobledger.v1 import engine_service_pb2
from jobledger_gateway.app import GatewayOptions, build_app
from jobledger_gateway.openapi import document
from jobledger_gateway.routes import routes_of
from jobledger_gateway.streaming import StreamSettings


async def test_health_needs_no_token_and_no_engine(client: Client, engine: Engine) -> None:
    answer = await client.get("/healthz", token=None)
    assert (answer.status, answer.json) == (200, {"status": "ok"})


async def test_readiness_is_what_the_engine_says(client: Client, engine: Engine) -> None:
    engine.on("Check", health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING))
    assert (await client.get("/readyz", token=None)).json == {"status": "ok"}
    engine.on("Check", health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.NOT_SERVING))
    assert (await client.get("/readyz", token=None)).status == 503


async def test_metrics_tell_of_the_engine_and_the_gateway(client: Client, engine: Engine) -> None:
    status = engine_service_pb2.EngineStatus(
        health="ok",
        active_jobs=2,
        jobs_by_state={"running": 2, "queued": 1},
        first_sequence_number=4,
        last_sequence_number=9,
        swept_at=Timestamp(seconds=1_700_000_000),
        uptime_ms=1500,
        storage_bytes={"logs": 5},
        free_bytes=7,
        collected={"events": 3},
        artifacts_quarantined=4,
        archive_checked_at=Timestamp(seconds=17),
        archive_damage="a bit",
    )
    engine.on("GetStatus", status)
    await client.get("/v1/jobs/job_1")
    await client.ask("PURGE", "/v1/jobs")
    answer = await client.get("/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    lines = answer.body.decode().splitlines()
    assert 'jobledger_jobs{state="running"} 2' in lines
    assert "jobledger_active_jobs 2" in lines
    assert "jobledger_uptime_seconds 1.5" in lines
    assert "jobledger_first_sequence_number 4" in lines
    assert "jobledger_last_sequence_number 9" in lines
    assert "jobledger_swept_seconds 1700000000" in lines
    assert 'jobledger_storage_bytes{class="logs"} 5' in lines
    assert "jobledger_disk_free_bytes 7" in lines
    assert 'jobledger_collected_total{class="events"} 3' in lines
    assert "jobledger_artifacts_quarantined_total 4" in lines
    assert "jobledger_archive_damaged 1" in lines
    assert "jobledger_archive_checked_seconds 17" in lines
    assert 'jobledger_gateway_requests_total{method="GET",route="/v1/jobs/{job_id}",status="200"} 1' in lines
    assert 'jobledger_gateway_requests_total{method="other",route="",status="405"} 1' in lines
    assert "jobledger_gateway_open_requests 1" in lines


async def test_who_is_bound_to_workspaces_is_not_told_what_others_ask(client: Client, engine: Engine) -> None:
    engine.on("WhoAmI", engine_service_pb2.TokenInfo(workspaces=["red"]))
    text = (await client.get("/metrics")).body.decode()
    assert "jobledger_active_jobs" in text
    assert "jobledger_gateway" not in text
    assert len(engine.requests("WhoAmI")) == 1


async def test_metrics_need_a_token(client: Client) -> None:
    assert (await client.get("/metrics", token=None)).status == 401


class TestPublicMetrics:
    @pytest.fixture
    def options(self) -> GatewayOptions:
        return GatewayOptions(metrics_public=True)

    async def test_without_a_token_they_tell_of_the_gateway_alone(self, client: Client, engine: Engine) -> None:
        answer = await client.get("/metrics", token=None)
        assert answer.status == 200
        assert b"jobledger_gateway_open_requests" in answer.body
        assert b"jobledger_jobs" not in answer.body
        assert engine.calls == []

    async def test_with_a_token_they_tell_of_the_engine_too(self, client: Client, engine: Engine) -> None:
        assert b"jobledger_active_jobs" in (await client.get("/metrics")).body
        engine.on("GetStatus", Refusal("FORBIDDEN"))
        assert (await client.get("/metrics")).status == 403


@pytest.fixture
async def openapi() -> Any:
    import asyncio

    async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
        routes = list(routes_of(GatewayOptions().services, channel, StreamSettings(), asyncio.Event()))
        made = document(routes)
        assert json.dumps(made) == json.dumps(document(routes))
        return made


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "$ref":
                yield value
            else:
                yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


async def test_every_reference_of_the_document_leads_somewhere(openapi: Any) -> None:
    for reference in references(openapi):
        _, _, kind, name = reference.split("/")
        assert name in openapi["components"][kind], reference


async def test_operations_are_named_once_and_parameters_match_the_path(openapi: Any) -> None:
    seen = set()
    for path, methods in openapi["paths"].items():
        for operation in methods.values():
            assert operation.get("operationId", path) not in seen
            seen.add(operation.get("operationId", path))
            in_path = {found["name"] for found in operation.get("parameters", []) if found["in"] == "path"}
            assert in_path == set(re.findall(r"\{(\w+)\}", path))
            assert operation["summary"]
            assert "default" in operation["responses"] or "200" in operation["responses"]


async def test_the_document_says_what_the_api_holds(openapi: Any) -> None:
    listing = {found["name"]: found for found in openapi["paths"]["/v1/jobs"]["get"]["parameters"]}
    assert listing["limit"]["schema"] == {"type": "integer", "format": "int32", "minimum": 1, "maximum": 1000}
    assert listing["limit"]["description"] == "Jobs in a page. Default 50."
    assert listing["state"]["explode"] is False
    assert "pageToken" not in listing
    create = openapi["paths"]["/v1/jobs"]["post"]
    assert set(create["responses"]) == {"201", "default"}
    assert create["requestBody"]["content"]["application/json"]["schema"]["required"] == ["spec"]
    cancel = openapi["paths"]["/v1/jobs/{job_id}/cancel"]["post"]["requestBody"]
    assert "job_id" not in cancel["content"]["application/json"]["schema"]["properties"]
    stream = openapi["paths"]["/v1/stream"]["get"]["responses"]["200"]["content"]
    assert set(stream) == {"text/event-stream", "application/x-ndjson"}
    event = openapi["components"]["schemas"]["jobledger.v1.Event"]["properties"]
    assert {"sequence_number", "job_id", "new_state", "phase"} <= set(event)
    content = openapi["paths"]["/v1/jobs/{job_id}/logs/content"]["get"]
    assert {"200", "206"} <= set(content["responses"])
    assert "offset" not in {found["name"] for found in content["parameters"]}
    dashboard = openapi["paths"]["/gateway/jobs"]["get"]["responses"]
    assert dashboard["default"] == {"$ref": "#/components/responses/DashboardError"}
    assert openapi["components"]["schemas"]["jobledger.v1.JobState"]["enum"][1] == "queued"


async def test_the_document_and_its_page_are_public(client: Client, engine: Engine) -> None:
    served = await client.get("/v1/openapi.json", token=None)
    assert served.json["openapi"] == "3.1.0"
    page = await client.get("/docs", token=None)
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert engine.calls == []


async def test_the_page_loads_nothing_that_the_gateway_does_not_serve_itself(client: Client) -> None:
    """Nor could it: a browser holds it to its Content-Security-Policy, which names no other place."""
    page = await client.get("/docs", token=None)
    text = page.body.decode()
    assert "<script>" not in text
    assert " style=" not in text
    paths = re.findall(r'(?:src|href)="([^"#]+)"', text)
    assert {"/docs/docs.css", "/docs/docs.js"} <= set(paths)
    parts = [page, *[await client.get(path, token=None) for path in paths if path.startswith("/")]]
    assert [path for path in paths if not path.startswith(("/docs/", "/v1/", "data:"))] == []
    for part in parts:
        assert part.status == 200
        assert re.findall(rb"https?:(?!//www.w3.org/)|[\"'(]//[a-z]|@import|url\((?!data:)", part.body) == []
        places = part.headers["Content-Security-Policy"].replace(";", " ").split()
        assert {place for place in places if not place.endswith("-src")} <= ONLY_HERE
    script = (await client.get("/docs/docs.js", token=None)).body
    assert b"innerHTML" not in script
    assert re.findall(rb"fetch\(([^,)]+)", script) == [b"request.url", b'"/v1/openapi.json"']


ONLY_HERE = {"'none'", "'self'", "data:", "base-uri", "form-action", "frame-ancestors"}


async def test_an_unknown_probe_is_a_fault_at_the_start() -> None:
    async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
        with pytest.raises(KeyError):
            build_app(channel, options=GatewayOptions(auth_probe="/jobledger.v1.Nope/Nope"))
