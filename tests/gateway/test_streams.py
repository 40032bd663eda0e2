"""Server streams as server-sent events and NDJSON."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import orjson
import pytest
from gateway.client import Client, eventually
from gateway.engine import TOKEN, Bare, Engine, Refusal
from jobledger.v1 import events_pb2, job_pb2, job_service_pb2
from yarl import URL

NDJSON = {"Accept": "application/x-ndjson"}


def changed(number: int) -> events_pb2.Event:
    event = events_pb2.Event(event_type="job.state_changed", sequence_number=number)
    event.state_changed.new_state = job_pb2.JOB_STATE_RUNNING
    return event


def unnumbered() -> events_pb2.Event:
    return events_pb2.Event(event_type="replay.complete", replay_complete=events_pb2.ReplayComplete(replayed_count=2))


def log(number: int, text: str = "line") -> job_service_pb2.TailLogsResponse:
    return job_service_pb2.TailLogsResponse(log=job_pb2.LogEntry(job_sequence=number, message=text))


def events(body: bytes) -> list[dict[str, Any]]:
    """Server-sent events by their fields; heartbeats left out."""
    found = []
    for block in body.decode().split("\n\n"):
        lines = [line.split(": ", 1) for line in block.split("\n") if line and not line.startswith(":")]
        if lines:
            assert len({name for name, _ in lines}) == len(lines)
            found.append(dict(lines))
    return found


def data(event: dict[str, Any]) -> Any:
    return orjson.loads(event["data"])


async def test_events_have_name_number_and_one_line_of_data(client: Client, engine: Engine) -> None:
    engine.on("WatchEvents", [changed(1), changed(2), unnumbered()])
    answer = await client.get("/v1/stream")
    assert answer.headers["Content-Type"] == "text/event-stream"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Accel-Buffering"] == "no"
    retry, first, second, replay, end = events(answer.body)
    assert retry == {"retry": "2000"}
    assert (first["event"], first["id"], second["id"]) == ("job.state_changed", "1", "2")
    assert data(first)["new_state"] == "running"
    assert "id" not in replay
    assert data(replay)["replayed_count"] == 2
    assert end == {"event": "end", "data": "{}"}


async def test_ndjson_wraps_each_item_and_marks_the_end(client: Client, engine: Engine) -> None:
    engine.on("WatchEvents", [changed(1), changed(2)])
    answer = await client.get("/v1/stream", headers=NDJSON)
    assert answer.headers["Content-Type"] == "application/x-ndjson"
    first, second, end = (orjson.loads(line) for line in answer.body.splitlines())
    assert (first["result"]["sequence_number"], second["result"]["sequence_number"]) == (1, 2)
    assert end == {"end": {}}


@pytest.mark.parametrize("headers", [{}, NDJSON], ids=["sse", "ndjson"])
async def test_a_stream_of_nothing_still_has_an_end(client: Client, engine: Engine, headers: dict[str, str]) -> None:
    engine.on("WatchEvents", [])
    answer = await client.get("/v1/stream", headers=headers)
    assert answer.status == 200
    assert b"end" in answer.body


async def test_the_end_message_is_the_data_of_the_end(client: Client, engine: Engine) -> None:
    end = job_service_pb2.TailEnd(state=job_pb2.JOB_STATE_FAILED, last_sequence=2)
    engine.on("TailLogs", [log(1), log(2), job_service_pb2.TailLogsResponse(end=end)])
    *_, first, second, last = events((await client.get("/v1/jobs/job_1/logs/tail")).body)
    assert (first["event"], first["id"], data(second)["job_sequence"]) == ("log", "1", 2)
    assert last["event"] == "end"
    assert data(last) == {"state": "failed", "last_sequence": 2}
    lines = (await client.get("/v1/jobs/job_1/logs/tail", headers=NDJSON)).body.splitlines()
    assert orjson.loads(lines[-1]) == {"end": {"state": "failed", "last_sequence": 2}}


async def test_a_refusal_before_the_first_item_is_a_plain_error(client: Client, engine: Engine) -> None:
    engine.on("WatchEvents", Refusal("STREAM_GAP_TOO_LARGE", metadata={"first_available_sequence": "9"}))
    answer = await client.get("/v1/stream?resume_from=1")
    assert (answer.status, answer.json["details"]) == (410, {"first_available_sequence": 9})


async def test_a_stranger_gets_no_stream(client: Client) -> None:
    assert (await client.get("/v1/stream", token=None)).status == 401


@pytest.mark.parametrize(
    ("path", "method", "item", "name"),
    [
        ("/v1/stream", "WatchEvents", changed(1), "stream.error"),
        ("/v1/jobs/j/logs/tail", "TailLogs", log(1), "stream.error"),
    ],
)
async def test_a_failure_in_mid_stream_is_told_in_the_stream(
    client: Client, engine: Engine, path: str, method: str, item: Any, name: str
) -> None:
    engine.on(method, [item, Refusal("ENGINE_SHUTTING_DOWN")])
    *_, last = events((await client.get(path)).body)
    assert last["event"] == name
    assert data(last)["error_code"] == "E_ENGINE_SHUTTING_DOWN"
    line = (await client.get(path, headers=NDJSON)).body.splitlines()[-1]
    assert orjson.loads(line)["error"]["error_code"] == "E_ENGINE_SHUTTING_DOWN"


async def test_a_fault_in_mid_stream_tells_a_reference_only(client: Client, engine: Engine) -> None:
    engine.on("WatchEvents", [changed(1), Bare(grpc.StatusCode.UNKNOWN, "secret")])
    answer = await client.get("/v1/stream")
    *_, last = events(answer.body)
    assert data(last)["error_code"] == "E_INTERNAL"
    assert b"secret" not in answer.body


async def test_last_event_id_wins_over_the_query(client: Client, engine: Engine) -> None:
    await client.get("/v1/stream?resume_from=5", headers={"Last-Event-ID": "41"})
    await client.get("/v1/stream?resume_from=5", headers={"Last-Event-ID": ""})
    await client.get("/v1/jobs/j/logs/tail", headers={"Last-Event-ID": "0"})
    assert [request.resume_from for request in engine.requests("WatchEvents")] == [41, 5]
    assert engine.requests("TailLogs")[0].HasField("after_sequence")
    await client.get("/v1/stream", headers={"Last-Event-ID": str((1 << 63) - 1)})
    assert engine.requests("WatchEvents")[-1].resume_from == (1 << 63) - 1


@pytest.mark.parametrize("value", ["x", "-1", "1.5", "9" * 30, "1 2", str(1 << 63)])
async def test_a_last_event_id_that_is_no_number_is_an_invalid_sequence(client: Client, value: str) -> None:
    answer = await client.get("/v1/stream", headers={"Last-Event-ID": value})
    assert (answer.status, answer.json["error_code"]) == (400, "E_STREAM_INVALID_SEQUENCE")


async def test_text_of_items_can_not_forge_events(client: Client, engine: Engine) -> None:
    event = changed(1)
    event.event_type = "a\ndata: forged\r\n\r\nevent: b"
    engine.on("WatchEvents", [event])
    engine.on("TailLogs", [log(1, "a\n\ndata: forged\u2028\r")])
    assert [found.get("event") for found in events((await client.get("/v1/stream")).body)] == [
        None, "a data: forged    event: b", "end",
    ]  # fmt: skip
    *_, entry, _end = events((await client.get("/v1/jobs/j/logs/tail")).body)
    assert data(entry)["message"] == "a\n\ndata: forged\u2028\r"


class Source:
    """A stream that goes on until it is told to end."""

    def __init__(self, *items: Any) -> None:
        self.items = items
        self.end = asyncio.Event()

    async def __call__(self) -> AsyncIterator[Any]:
        for item in self.items:
            yield item
        await self.end.wait()


async def test_headers_come_at_once_and_heartbeats_while_nothing_happens(client: Client, engine: Engine) -> None:
    source = Source()
    engine.on("WatchEvents", lambda _: source())
    target = URL(client.base + "/v1/stream")
    async with client.session.get(target, headers={"Authorization": TOKEN}) as response:
        assert response.status == 200
        assert await response.content.readuntil(b"\n\n") == b"retry: 2000\n\n"
        assert await response.content.readuntil(b"\n\n") == b": ping\n\n"
        source.end.set()
        assert (await response.content.read()).endswith(b"event: end\ndata: {}\n\n")


async def test_the_call_ends_when_the_reader_leaves(client: Client, engine: Engine) -> None:
    source = Source(changed(1))
    engine.on("WatchEvents", lambda _: source())
    async with client.session.get(client.base + "/v1/stream", headers={"Authorization": TOKEN}) as response:
        await response.content.readuntil(b"id: 1")
        assert engine.open_calls == 1
        response.close()
    await eventually(lambda: engine.open_calls == 0)


async def test_head_of_a_stream_opens_it_and_leaves(client: Client, engine: Engine) -> None:
    source = Source()
    engine.on("WatchEvents", lambda _: source())
    answer = await client.ask("HEAD", "/v1/stream")
    assert (answer.status, answer.headers["Content-Type"], answer.body) == (200, "text/event-stream", b"")
    await eventually(lambda: engine.open_calls == 0)


async def test_a_reader_that_takes_nothing_is_cut_off(client: Client, engine: Engine) -> None:
    produced = 0

    async def flood() -> AsyncIterator[Any]:
        nonlocal produced
        for number in range(1, 100_000):
            produced = number
            yield log(number, "x" * 50_000)

    engine.on("TailLogs", lambda _: flood())
    _, writer = await asyncio.open_connection(client.host, client.port)
    request = f"GET /v1/jobs/j/logs/tail HTTP/1.1\r\nHost: localhost\r\nAuthorization: {TOKEN}\r\n\r\n"
    writer.write(request.encode())
    await eventually(lambda: engine.open_calls == 1)
    await eventually(lambda: engine.open_calls == 0, within=10)
    assert produced < 2000
    writer.transport.abort()


async def test_many_items_arrive_complete_and_in_order(client: Client, engine: Engine) -> None:
    engine.on("TailLogs", [log(number) for number in range(1, 3001)])
    answer = await client.get("/v1/jobs/j/logs/tail")
    assert [int(event["id"]) for event in events(answer.body)[1:-1]] == list(range(1, 3001))
