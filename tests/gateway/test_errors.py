"""Errors: every reason of the registry, the order of answers, and nothing of the inside."""

import logging

import grpc
import pytest
from gateway.client import Client
from gateway.engine import TOKEN, Bare, Engine, Refusal
from jobledger_gateway.app import GatewayOptions, build_app, serve
from jobledger_gateway.errors import RULES


@pytest.mark.parametrize("reason", sorted(RULES))
async def test_every_reason_has_its_status_code_and_message(client: Client, engine: Engine, reason: str) -> None:
    engine.on("GetJob", Refusal(reason))
    answer = await client.get("/v1/jobs/job_1")
    rule = RULES[reason]
    assert answer.status == rule.http_status
    assert answer.json == {"error_code": f"E_{reason}", "message": rule.message, "details": {}}
    assert answer.headers.get("WWW-Authenticate") == ("Bearer" if rule.http_status == 401 else None)


async def test_a_reason_that_is_not_known_keeps_its_name_and_goes_by_its_code(client: Client, engine: Engine) -> None:
    engine.on("GetJob", Refusal("MOON_PHASE", "wrong moon", code=grpc.StatusCode.ABORTED))
    answer = await client.get("/v1/jobs/job_1")
    assert (answer.status, answer.json["error_code"], answer.json["message"]) == (409, "E_MOON_PHASE", "wrong moon")


async def test_details_carry_metadata_and_fields_with_sequences_as_numbers(client: Client, engine: Engine) -> None:
    engine.on(
        "GetJob",
        Refusal(
            "VALIDATION",
            metadata={"first_available_sequence": "7", "count": "3", "bad_sequence": "x"},
            fields=[("spec.timeout", "must be positive")],
        ),
    )
    assert (await client.get("/v1/jobs/job_1")).json["details"] == {
        "bad_sequence": "x",
        "count": "3",
        "first_available_sequence": 7,
        "fields": [{"field": "spec.timeout", "description": "must be positive"}],
    }


@pytest.mark.parametrize(("delay", "header"), [(1.2, "2"), (3.0, "3"), (0.0, "0")])
async def test_retry_after_is_whole_seconds_rounded_up(
    client: Client, engine: Engine, delay: float, header: str
) -> None:
    engine.on("GetJob", Refusal("RATE_LIMITED", retry_after=delay))
    assert (await client.get("/v1/jobs/job_1")).headers["Retry-After"] == header


async def test_a_fault_tells_a_reference_that_the_log_has_and_nothing_else(
    client: Client, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    engine.on("GetJob", Bare(grpc.StatusCode.INTERNAL, "secret stack"))
    with caplog.at_level(logging.ERROR):
        answer = await client.get("/v1/jobs/job_1")
    reference = answer.json["details"]["reference"]
    assert reference in answer.json["message"]
    assert reference in caplog.text
    assert b"secret" not in answer.body


LOCAL_ERRORS = [
    ("GET", "/nope", 404, "E_NOT_FOUND"),
    ("GET", "/v1/jobs/", 404, "E_NOT_FOUND"),
    ("GET", "/", 404, "E_NOT_FOUND"),
    ("PATCH", "/v1/jobs/job_1", 405, "E_METHOD_NOT_ALLOWED"),
    ("GET", "/v1/jobs?nope=1", 422, "E_VALIDATION"),
    ("GET", "/v1/jobs/%zz", 400, "E_BAD_REQUEST"),
]


@pytest.mark.parametrize(("method", "path", "status", "error_code"), LOCAL_ERRORS)
async def test_a_stranger_is_told_of_the_token_before_anything_else(
    client: Client, engine: Engine, method: str, path: str, status: int, error_code: str
) -> None:
    answer = await client.ask(method, path, token=None)
    assert (answer.status, answer.json["error_code"]) == (401, "E_AUTH_MISSING")
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    answer = await client.ask(method, path)
    assert (answer.status, answer.json["error_code"]) == (status, error_code)


async def test_a_caller_who_guesses_tokens_is_told_to_wait(client: Client, engine: Engine) -> None:
    engine.on("WhoAmI", Refusal("AUTH_RATE_LIMITED", retry_after=9))
    answer = await client.get("/nope")
    assert (answer.status, answer.headers["Retry-After"]) == (429, "9")


async def test_405_lists_what_the_path_takes(client: Client) -> None:
    answer = await client.ask("PATCH", "/v1/jobs/job_1")
    assert answer.headers["Allow"] == "DELETE, GET, HEAD, OPTIONS"


async def test_options_answers_what_a_path_takes(client: Client) -> None:
    answer = await client.ask("OPTIONS", "/v1/jobs")
    assert (answer.status, answer.headers["Allow"], answer.body) == (204, "GET, HEAD, OPTIONS, POST", b"")
    assert (await client.ask("OPTIONS", "/nope")).status == 404


async def test_head_is_get_without_a_body(client: Client, engine: Engine) -> None:
    answer = await client.ask("HEAD", "/v1/jobs/job_1")
    assert (answer.status, answer.body) == (200, b"")
    assert int(answer.headers["Content-Length"]) > 0


async def test_every_answer_has_the_headers_that_keep_it_safe(client: Client, engine: Engine) -> None:
    for path in ("/v1/jobs", "/nope", "/v1/stream", "/healthz"):
        answer = await client.get(path)
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] == "no-store"


async def test_an_engine_that_is_not_there_is_unreachable(unused_tcp_port: int) -> None:
    import aiohttp

    async with (
        grpc.aio.insecure_channel(f"127.0.0.1:{unused_tcp_port}") as channel,
        serve(build_app(channel, options=GatewayOptions()), host="127.0.0.1", port=0) as address,
        aiohttp.ClientSession(headers={"Authorization": TOKEN}) as session,
    ):
        client = Client(session, address.host, address.port)
        answer = await client.get("/v1/jobs")
        assert (answer.status, answer.json["error_code"]) == (503, "E_ENGINE_UNREACHABLE")
        assert "ipv4" not in answer.json["message"]
        assert (await client.get("/readyz")).status == 503
        assert (await client.get("/healthz")).status == 200


async def test_a_fault_of_the_gateway_itself_is_an_internal_error(
    client: Client, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr("jobledger_gateway.unary.json_response", broken)
    answer = await client.get("/v1/jobs")
    assert (answer.status, answer.json["error_code"]) == (500, "E_INTERNAL")
    assert b"secret" not in answer.body
