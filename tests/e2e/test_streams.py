"""Events and logs as streams: server-sent events and NDJSON, from a point in the past and on."""

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from support.doors import Door, Refused, RestDoor, server_sent
from support.eventually import eventually
from support.running import output_file

STREAMS_PAGE = Path(__file__).parents[2] / "server" / "docs" / "streams.md"
# What each example of the page shows.
EXAMPLES = (
    "event: replay.complete",
    '"error_code":"E_STREAM_INVALID_SEQUENCE"',
    "retry: 2000\nid: ",
    "event: stream.bookmark\nid: ",
    '"event_type":"replay.complete"',
    'event: end\ndata: {"state":"completed","last_sequence":3}',
)
TICKS = "for i in 1 2 3 4 5; do echo tick $i; sleep 0.1; done"


async def sse(rest: RestDoor, path: str, **headers: str) -> AsyncIterator[dict[str, str]]:
    async with rest.session.get(rest.url + path, headers={**rest.headers, **headers}) as response:
        assert response.status == 200
        assert response.headers["Content-Type"].startswith("text/event-stream")
        async for event in server_sent(response.content):
            yield event


async def test_events_replay_and_go_on_without_a_gap(door: Door) -> None:
    """What was before the stream, then `replay.complete`, then what comes; numbers dense and in order."""
    first = (await door.create("true"))["job_id"]
    await door.ended(first)
    numbers, later, replayed = [], None, False
    async for event in door.events(resume_from=0):
        if event["event_type"] == "replay.complete":
            replayed = True
            later = (await door.create("true"))["job_id"]
            continue
        numbers.append(int(event["sequence_number"]))
        if event.get("job_id") == later and event.get("new_state") == "completed":
            break
    assert replayed
    assert numbers == list(range(1, len(numbers) + 1))


async def test_sse_events_have_type_number_and_flat_json(rest: RestDoor) -> None:
    job_id = (await rest.create("sh", "-c", "echo x > $JOBLEDGER_OUTPUT_DIR/x"))["job_id"]
    await rest.ended(job_id)
    seen: dict[str, list[dict[str, Any]]] = {}
    async for event in sse(rest, f"/v1/stream?resume_from=0&job_id={job_id}"):
        body = json.loads(event["data"])
        assert event["event"] == body["event_type"]
        if event["event"] == "replay.complete":
            assert "id" not in event
            assert body["replayed_count"] == 4
            break
        assert int(event["id"]) == body["sequence_number"]
        seen.setdefault(event["event"], []).append(body)
    changed = seen["job.state_changed"]
    assert [(it["old_state"], it["new_state"]) for it in changed] == [
        (None, "queued"),
        ("queued", "running"),
        ("running", "completed"),
    ]
    own = ["old_state", "new_state", "attempt", "error_code"]
    assert list(changed[0]) == [
        "event_type", "sequence_number", "timestamp_utc", "job_id", "run_id", "workspace_id", *own
    ]  # fmt: skip
    assert seen["job.artifact"][0]["artifact"]["path"] == "x"


async def test_last_event_id_wins_over_the_query(rest: RestDoor) -> None:
    job_id = (await rest.create("true"))["job_id"]
    await rest.ended(job_id)
    last = (await rest.call("GetStatus"))["last_sequence_number"]
    async for event in sse(rest, "/v1/stream?resume_from=0", **{"Last-Event-ID": str(last - 1)}):
        assert int(event["id"]) >= last
        break


@pytest.mark.parametrize("last_event_id", ["nonsense", "-1", "999999999"])
async def test_a_bad_last_event_id_is_400(rest: RestDoor, last_event_id: str) -> None:
    headers = {**rest.headers, "Last-Event-ID": last_event_id}
    async with rest.session.get(rest.url + "/v1/stream", headers=headers) as response:
        assert response.status == 400
        assert (await response.json())["error_code"] == "E_STREAM_INVALID_SEQUENCE"


async def test_a_resume_point_in_the_future_is_refused(door: Door) -> None:
    with pytest.raises(Refused) as refused:
        await anext(aiter(door.events(resume_from=10**9)))
    assert refused.value.error_code == "E_STREAM_INVALID_SEQUENCE"


async def test_the_engines_heart_beats_while_a_stream_is_open(rest: RestDoor) -> None:
    async for event in sse(rest, "/v1/stream?type=engine.heartbeat"):
        if event["event"] != "replay.complete":
            body = json.loads(event["data"])
            assert set(body) >= {"uptime_ms", "health", "active_jobs", "queue_depth", "sequence_number"}
            break


async def test_a_stream_has_a_number_to_resume_from_before_its_first_event(rest: RestDoor) -> None:
    """Who is cut off before the first event would not know where to go on."""
    job_id = (await rest.create("true"))["job_id"]
    await rest.ended(job_id)
    async with rest.session.get(f"{rest.url}/v1/stream?job_id=none", headers=rest.headers) as response:
        first = await response.content.readuntil(b"\n\n")
    begun = re.fullmatch(rb"retry: 2000\nid: ([0-9]+)\n\n", first)
    assert begun
    kept = [int(event["sequence_number"]) async for event in replayed(rest, job_id)]
    assert int(begun[1]) >= kept[-1] > 0


async def replayed(door: Door, job_id: str) -> AsyncIterator[dict[str, Any]]:
    async for event in door.events(resume_from=0, job_id=[job_id]):
        if event["event_type"] == "replay.complete":
            assert int(event["last_sequence"]) >= int(event["replayed_count"])
            return
        if event["event_type"] != "stream.bookmark":
            yield event


async def test_a_filtered_stream_has_a_bookmark_with_each_heartbeat(door: Door) -> None:
    """Its number is a point to resume from: what comes after it follows, and nothing before it is missing."""
    marks: list[int] = []
    async for event in door.events(resume_from=0, type=["job.progress"]):
        if event["event_type"] == "stream.bookmark":
            assert "sequence_number" not in event
            marks.append(int(event["last_sequence"]))
            last = int((await door.call("GetStatus"))["last_sequence_number"])
            assert marks[-1] <= last
        if len(marks) == 2:
            break
    assert marks == sorted(set(marks))
    async for event in door.events(resume_from=marks[-1]):
        assert int(event.get("sequence_number", marks[-1] + 1)) == marks[-1] + 1
        break


async def test_the_examples_of_the_documentation_work_when_pasted(rest: RestDoor, server: Any) -> None:
    await rest.ended((await rest.create("true"))["job_id"])
    examples = re.findall(r"```bash\n(.*?)```", STREAMS_PAGE.read_text(), flags=re.DOTALL)
    variables = {**os.environ, "URL": rest.url, "AUTH": f"Authorization: Bearer {server.token}"}
    async with asyncio.timeout(60):
        told = await asyncio.gather(*(pasted(example, variables) for example in examples))
    for shown, expected in zip(told, EXAMPLES, strict=True):
        assert expected in shown


async def pasted(example: str, variables: Mapping[str, str]) -> str:
    """What a shell prints that is given this."""
    shell = await asyncio.create_subprocess_exec("bash", "-c", example, env=variables, stdout=asyncio.subprocess.PIPE)
    told, _ = await shell.communicate()
    return told.decode()


async def test_logs_tail_follows_to_the_end(rest: RestDoor) -> None:
    job_id = (await rest.create("sh", "-c", TICKS))["job_id"]
    events = [event async for event in sse(rest, f"/v1/jobs/{job_id}/logs/tail")]
    assert [event["event"] for event in events] == ["log"] * 5 + ["end"]
    assert [int(event["id"]) for event in events[:-1]] == [1, 2, 3, 4, 5]
    assert json.loads(events[0]["data"])["message"] == "tick 1"
    assert json.loads(events[-1]["data"]) == {"state": "completed", "last_sequence": 5}


async def test_logs_tail_resumes_after_the_last_event_id(rest: RestDoor) -> None:
    job_id = (await rest.create("sh", "-c", TICKS))["job_id"]
    await rest.ended(job_id)
    events = [event async for event in sse(rest, f"/v1/jobs/{job_id}/logs/tail", **{"Last-Event-ID": "3"})]
    assert [event.get("id") for event in events] == ["4", "5", None]


async def test_logs_tail_as_ndjson(rest: RestDoor) -> None:
    job_id = (await rest.create("sh", "-c", TICKS))["job_id"]
    headers = {**rest.headers, "Accept": "application/x-ndjson"}
    async with rest.session.get(f"{rest.url}/v1/jobs/{job_id}/logs/tail", headers=headers) as response:
        assert response.headers["Content-Type"].startswith("application/x-ndjson")
        lines = [json.loads(line) async for line in response.content]
    assert [line["result"]["job_sequence"] for line in lines[:-1]] == [1, 2, 3, 4, 5]
    assert lines[-1] == {"end": {"state": "completed", "last_sequence": 5}}


async def test_the_output_can_be_read_as_bytes_and_in_parts(rest: RestDoor) -> None:
    job_id = (await rest.create("printf", r"one\ntwo\n\377\000three"))["job_id"]
    await rest.ended(job_id)
    whole = b"one\ntwo\n\xff\x00three"
    path = f"{rest.url}/v1/jobs/{job_id}/logs/content"
    for byte_range, status, body in (
        (None, 200, whole),
        ("bytes=0-2", 206, b"one"),
        ("bytes=-5", 206, b"three"),
        ("bytes=8-", 206, b"\xff\x00three"),
        ("bytes=5-2", 200, whole),
        ("bytes=0-0,5-9", 200, whole),
    ):
        headers = {**rest.headers, **({"Range": byte_range} if byte_range else {})}
        async with rest.session.get(path, headers=headers) as response:
            assert (response.status, await response.read()) == (status, body)
    async with rest.session.get(path, headers={**rest.headers, "Range": "bytes=100-"}) as response:
        assert response.status == 416
        assert response.headers["Content-Range"] == f"bytes */{len(whole)}"


async def test_an_artifact_has_an_etag_ranges_and_a_name(rest: RestDoor) -> None:
    job_id = (await rest.create("sh", "-c", "printf 0123456789 > $JOBLEDGER_OUTPUT_DIR/ten.bin"))["job_id"]
    artifact = (await rest.ended(job_id))["artifacts"][0]
    path = f"{rest.url}/v1/jobs/{job_id}/artifacts/{artifact['id']}/content"
    etag = f'"{artifact["sha256"]}"'
    async with rest.session.get(path, headers=rest.headers) as response:
        assert (response.status, await response.read()) == (200, b"0123456789")
        assert response.headers["ETag"] == etag
        assert response.headers["Accept-Ranges"] == "bytes"
        assert response.headers["Content-Disposition"] == 'attachment; filename="ten.bin"'
    async with rest.session.get(path, headers={**rest.headers, "If-None-Match": etag}) as response:
        assert response.status == 304
    parts = {**rest.headers, "Range": "bytes=2-4", "If-Range": etag}
    async with rest.session.get(path, headers=parts) as response:
        assert (response.status, await response.read()) == (206, b"234")
        assert response.headers["Content-Range"] == "bytes 2-4/10"
    async with rest.session.get(path, headers={**parts, "If-Range": '"other"'}) as response:
        assert (response.status, await response.read()) == (200, b"0123456789")
    async with rest.session.head(path, headers=rest.headers) as response:
        assert (response.status, response.headers["Content-Length"]) == (200, "10")


async def test_a_damaged_artifact_is_quarantined_and_never_served(rest: RestDoor, server: Any) -> None:
    job_id = (await rest.create("sh", "-c", "printf precious > $JOBLEDGER_OUTPUT_DIR/p"))["job_id"]
    artifact = (await rest.ended(job_id))["artifacts"][0]
    files = [path for path in (server.data_dir / "blobs").rglob("*") if path.is_file()]
    blob = next(path for path in files if artifact["sha256"].endswith(path.name))
    blob.chmod(0o600)
    blob.write_bytes(b"Precious")
    for _ in range(2):
        with pytest.raises(Refused) as refused:
            await rest.download(job_id, artifact["id"])
        assert (refused.value.status, refused.value.error_code) == (409, "E_ARTIFACT_QUARANTINED")
    assert (await rest.get(job_id))["artifacts"][0]["status"] == "quarantined"
    assert output_file(server.data_dir).read_text().count(f"an artifact of {job_id} is quarantined") == 1
    assert (await rest.call("GetStatus"))["artifacts_quarantined"] == 1
    [told] = [
        event["artifact"]
        for event in await events_so_far(rest, job_id)
        if event["event_type"] == "job.artifact" and event["artifact"]["status"] == "quarantined"
    ]
    assert told["id"] == artifact["id"]


async def events_so_far(rest: RestDoor, job_id: str) -> list[dict[str, Any]]:
    """All that are stored of a job."""
    found = []
    async for event in rest.events(resume_from=0, job_id=job_id):
        if event["event_type"] == "replay.complete":
            break
        found.append(event)
    return found


async def test_follow_ups_reach_the_standard_input(door: Door) -> None:
    job_id = (await door.create("sh", "-c", "while read line; do echo got $line; done", stdin="open"))["job_id"]
    await eventually(lambda: door.get(job_id), until=lambda job: job["state"] == "running")
    await door.call("SendInput", job_id=job_id, text="one\n")
    await door.call("SendInput", job_id=job_id, text="two\n", close=True)
    assert (await door.ended(job_id))["state"] == "completed"
    logs = await door.call("GetLogs", job_id=job_id)
    assert [entry["message"] for entry in logs["logs"]] == ["got one", "got two"]


async def test_progress_is_told_and_kept(door: Door) -> None:
    """`items_total` and the like travel as events; percent and phase stand in the job too."""
    report = '{"type":"progress","phase":"baking","percent":40,"items_completed":2,"items_total":5}'
    job_id = (await door.create("sh", "-c", f"echo '{report}' > $JOBLEDGER_CONTROL; cat", stdin="open"))["job_id"]
    job = await eventually(lambda: door.get(job_id), until=lambda seen: seen.get("progress_phase") == "baking")
    assert job["progress_percent"] == 40
    async for event in door.events(resume_from=0, job_id=[job_id], type=["job.progress"]):
        assert (event["phase"], int(event["items_total"])) == ("baking", 5)
        break
    await door.call("SendInput", job_id=job_id, text="", close=True)
    await door.ended(job_id)
