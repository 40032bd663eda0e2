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


def lines(body: bytes) -> list[Any]:
    """Lines of NDJSON; heartbeats left out."""
    return [line for text in body.splitlines() if "heartbeat" not in (line := orjson.loads(text))]


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


async def test_the_end_message_is_the_data_of_the_end(client: Client, engine: Engine) -> None:
    end = job_service_pb2.TailEnd(state=job_pb2.JOB_STATE_FAILED, last_sequence=2)
    engine.on("TailLogs", [log(1), log(2), job_service_pb2.TailLogsResponse(end=end)])
    *_, first, second, last = events((await client.get("/v1/jobs/job_1/logs/tail")).body)
    assert (first["event"], first["id"], data(second)["job_sequence"]) == ("log", "1", 2)
    assert last["event"] == "end"
    assert data(last) == {"state": "failed", "last_sequence": 2}
    lines = (await client.get("/v1/jobs/job_1/logs/tail", headers=NDJSON)).body.splitlines()
    assert orjson.loads(lines[-1]) == {"end": {"state": "failed", "last_sequence": 2}}


async def test_entries_that_come_together_are_items_each(client: Client, engine: Engine) -> None:
    """The gateway asks for that itself, where who calls it does not: either way, items come one by one."""
    end = job_service_pb2.TailEnd(state=job_pb2.JOB_STATE_COMPLETED, last_sequence=4)
    batch = job_service_pb2.LogBatch(logs=[log(2).log, log(3).log])
    script = [log(1), job_service_pb2.TailLogsResponse(batch=batch), log(4), job_service_pb2.TailLogsResponse(end=end)]
    engine.on("TailLogs", script)
    *told, last = events((await client.get("/v1/jobs/j/logs/tail")).body)
    assert [(it["id"], data(it)["job_sequence"]) for it in told if "data" in it] == [(str(n), n) for n in (1, 2, 3, 4)]
    assert data(last)["last_sequence"] == 4
    await client.get("/v1/jobs/j/logs/tail?max_batch=7")
    assert [request.max_batch for request in engine.requests("TailLogs")] == [1000, 7]


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
    await client.get("/v1/jobs/j/logs/tail", headers={"Last-Event-ID": "0"})
    assert [request.resume_from for request in engine.requests("WatchEvents")] == [41]
    assert engine.requests("TailLogs")[0].HasField("after_sequence")
    await client.get("/v1/stream", headers={"Last-Event-ID": str((1 << 63) - 1)})
    assert engine.requests("WatchEvents")[-1].resume_from == (1 << 63) - 1


@pytest.mark.parametrize("value", ["", "x", "-1", "1.5", "9" * 30, "1 2", "1,2", str(1 << 63)])
@pytest.mark.parametrize("path", ["/v1/stream?resume_from=5", "/v1/jobs/j/logs/tail"])
async def test_a_last_event_id_that_is_no_number_is_an_invalid_sequence(client: Client, value: str, path: str) -> None:
    """An empty one too: to take it for none, and go on from now, would skip events without a word."""
    answer = await client.get(path, headers={"Last-Event-ID": value})
    assert (answer.status, answer.json["error_code"]) == (400, "E_STREAM_INVALID_SEQUENCE")
    assert set(answer.json) == {"error_code", "message", "details"}


async def test_two_last_event_ids_are_refused(client: Client, engine: Engine) -> None:
    """Which of them is right nobody can tell."""
    target, headers = client.base + "/v1/stream", [("Last-Event-ID", "1"), ("Last-Event-ID", "2")]
    async with client.session.get(target, headers=[("Authorization", TOKEN), *headers]) as response:
        assert (response.status, (await response.json())["error_code"]) == (400, "E_STREAM_INVALID_SEQUENCE")
    assert engine.requests("WatchEvents") == []


@pytest.mark.parametrize("value", ["x", "", str(1 << 63)])
@pytest.mark.parametrize(
    "path",
    [
        *(f"/v1/stream?{name}=" for name in ("resume_from", "resumeFrom")),
        *(f"/v1/jobs/j/logs/tail?{name}=" for name in ("after_sequence", "afterSequence")),
    ],
)
async def test_a_resume_point_that_is_no_number_is_an_invalid_sequence_by_either_name(
    client: Client, engine: Engine, path: str, value: str
) -> None:
    answer = await client.get(path + value)
    assert (answer.status, answer.json["error_code"]) == (400, "E_STREAM_INVALID_SEQUENCE")
    assert [call.method for call in engine.calls] in ([], ["WhoAmI"])


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("resume_from=1&resume_from=2", "resume_from"),
        ("resumeFrom=x&resumeFrom=1", "resumeFrom"),
        ("resume_from=1&resumeFrom=x", "resumeFrom"),
    ],
)
async def test_a_resume_point_that_is_given_twice_is_a_repeated_parameter(
    client: Client, query: str, field: str
) -> None:
    answer = await client.get(f"/v1/stream?{query}")
    assert (answer.status, answer.json["error_code"]) == (422, "E_VALIDATION")
    assert [it["field"] for it in answer.json["details"]["fields"]] == [field]


async def test_a_stream_begins_with_the_number_that_it_starts_after(client: Client, engine: Engine) -> None:
    """Who is cut off before the first event comes back with that, and has missed nothing."""
    engine.on("WatchEvents", [unnumbered()])
    first, *_ = events((await client.get("/v1/stream?resume_from=7")).body)
    assert first == {"retry": "2000", "id": "7"}
    first, *_ = events((await client.get("/v1/jobs/j/logs/tail", headers={"Last-Event-ID": "3"})).body)
    assert first == {"retry": "2000", "id": "3"}
    engine.initial_metadata["WatchEvents"] = (("jobledger-resume-from", "41"),)
    first, replay, _end = events((await client.get("/v1/stream")).body)
    assert first == {"retry": "2000", "id": "41"}
    assert "id" not in replay


async def test_a_bookmark_has_the_number_that_it_marks_as_its_id(client: Client, engine: Engine) -> None:
    bookmark = events_pb2.Event(event_type="stream.bookmark", bookmark=events_pb2.Bookmark(last_sequence=9))
    engine.on("WatchEvents", [changed(1), bookmark])
    _, _, marked, _ = events((await client.get("/v1/stream")).body)
    assert (marked["event"], marked["id"], data(marked)["last_sequence"]) == ("stream.bookmark", "9", 9)
    assert "sequence_number" not in data(marked)
    line = lines((await client.get("/v1/stream", headers=NDJSON)).body)[1]
    assert (line["result"]["event_type"], line["result"]["last_sequence"]) == ("stream.bookmark", 9)


class Source:
    """A stream that goes on until it is told to end."""

    def __init__(self, *items: Any) -> None:
        self.items = items
        self.end = asyncio.Event()

    async def __call__(self) -> AsyncIterator[Any]:
        for item in self.items:
            yield item
        await self.end.wait()


async def test_head_of_a_stream_opens_it_and_leaves(client: Client, engine: Engine) -> None:
    source = Source()
    engine.on("WatchEvents", lambda _: source())
    answer = await client.ask("HEAD", "/v1/stream")
    assert (answer.status, answer.headers["Content-Type"], answer.body) == (200, "text/event-stream", b"")
    await eventually(lambda: engine.open_calls == 0)


async def test_many_items_arrive_complete_and_in_order(client: Client, engine: Engine) -> None:
    engine.on("TailLogs", [log(number) for number in range(1, 3001)])
    answer = await client.get("/v1/jobs/j/logs/tail")
    assert [int(event["id"]) for event in events(answer.body)[1:-1]] == list(range(1, 3001))
