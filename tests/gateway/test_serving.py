"""The server around the application: its end, its sockets, its command, and channels of other kinds."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import orjson
import pytest
from click.testing import CliRunner
from gateway.client import eventually
from gateway.engine import TOKEN, Engine, running
from google.protobuf.message import Message
from jobledger.v1 import events_pb2, job_pb2
from jobledger_gateway.app import build_app, serve
from jobledger_gateway.main import gateway

HEADERS = {"Authorization": TOKEN}


async def test_a_shutdown_ends_streams_with_an_error_and_lets_calls_finish(engine: Engine) -> None:
    release = asyncio.Event()

    async def endless() -> AsyncIterator[Any]:
        yield events_pb2.Event(event_type="engine.heartbeat")
        await asyncio.Event().wait()

    async def slow(_method: object, _request: object, _context: object) -> Message:
        engine.open_calls += 1
        await release.wait()
        return job_pb2.Job(job_id="job_1")

    engine.on("WatchEvents", lambda _: endless())
    engine.unary = slow  # type: ignore[assignment,method-assign]
    async with (
        running(engine) as target,
        grpc.aio.insecure_channel(target) as channel,
        aiohttp.ClientSession(headers=HEADERS) as session,
    ):
        server = serve(build_app(channel), host="127.0.0.1", port=0, drain_seconds=5)
        address = await server.__aenter__()
        base = f"http://127.0.0.1:{address.port}"
        stream = await session.get(f"{base}/v1/stream")
        await stream.content.readuntil(b"engine.heartbeat")
        call = asyncio.create_task(session.get(f"{base}/v1/jobs/job_1"))
        await eventually(lambda: engine.open_calls == 2)
        stopping = asyncio.create_task(server.__aexit__(None, None, None))
        rest = await stream.content.read()
        release.set()
        assert b"event: stream.error" in rest
        assert b"E_ENGINE_SHUTTING_DOWN" in rest
        assert (await call).status == 200
        await stopping
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get(f"{base}/healthz")


async def test_a_unix_socket_serves_too_and_is_gone_in_the_end(engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "gateway.sock"
    async with (
        running(engine) as target,
        grpc.aio.insecure_channel(target) as channel,
        serve(build_app(channel), host="127.0.0.1", port=0, unix_path=path),
        aiohttp.ClientSession(headers=HEADERS, connector=aiohttp.UnixConnector(str(path))) as session,
    ):
        answer = await session.get("http://localhost/v1/jobs")
        assert answer.status == 200
    assert not path.exists()
    assert engine.call("ListJobs").peer == "unix"


class FakeCall:
    """A call that never saw a socket."""

    def __init__(self, outcome: Any) -> None:
        self.outcome = outcome
        self.cancelled = False

    def __await__(self) -> Any:
        async def answer() -> Any:
            if isinstance(self.outcome, grpc.aio.AioRpcError):
                raise self.outcome
            return self.outcome

        return answer().__await__()

    async def __aiter__(self) -> AsyncIterator[Any]:
        for item in self.outcome:
            yield item

    async def initial_metadata(self) -> tuple[tuple[str, str], ...]:
        return (("location", "/here"),)

    def cancel(self) -> bool:
        self.cancelled = True
        return True


class FakeChannel:
    """As much of a channel as the gateway uses."""

    def __init__(self, outcomes: dict[str, Any]) -> None:
        self.outcomes = outcomes
        self.calls: list[FakeCall] = []

    def unary_unary(self, method: str, *, request_serializer: Any, response_deserializer: Any) -> Callable[..., Any]:
        def start(_request: Any, *, timeout: float | None, metadata: Any) -> FakeCall:
            self.calls.append(FakeCall(self.outcomes[method.rpartition("/")[2]]))
            return self.calls[-1]

        return start

    unary_stream = unary_unary


async def test_a_channel_without_a_socket_does_as_well() -> None:
    event = events_pb2.Event(event_type="engine.heartbeat")
    channel: Any = FakeChannel({"CreateJob": job_pb2.Job(job_id="job_1"), "WatchEvents": [event, event]})
    async with (
        serve(build_app(channel), host="127.0.0.1", port=0) as address,
        aiohttp.ClientSession(f"http://127.0.0.1:{address.port}") as session,
    ):
        created = await session.post("/v1/jobs", json={"spec": {}}, headers=HEADERS)
        assert (created.status, created.headers["Location"]) == (201, "/here")
        stream = await session.get("/v1/stream", headers={"Accept": "application/x-ndjson"})
        assert len((await stream.read()).splitlines()) == 3
    assert channel.calls[-1].cancelled


async def test_the_command_serves_a_server_elsewhere_until_it_is_told_to_stop(engine: Engine) -> None:
    async with running(engine) as target:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", "from jobledger_gateway.main import gateway; gateway()",
            "--target", target, "--http-port", "0",
            stderr=asyncio.subprocess.PIPE, env={**os.environ},
        )  # fmt: skip
        assert process.stderr is not None
        line = (await asyncio.wait_for(process.stderr.readline(), 20)).decode()
        url = line.split()[0]
        async with aiohttp.ClientSession(headers=HEADERS) as session:
            answer = await session.get(f"{url}/v1/jobs")
            assert (answer.status, orjson.loads(await answer.read())["jobs"]) == (200, [])
            refused = await session.get(f"{url}/healthz", headers={"Host": "evil.example"})
            assert refused.status == 421
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 20) == 0


def test_the_command_refuses_to_listen_beyond_this_machine() -> None:
    result = CliRunner().invoke(gateway, ["--target", "x:1", "--http-host", "0.0.0.0"])
    assert result.exit_code == 2
    assert "--insecure-bind" in result.output
