"""Pages of a job's log: sealed ones keep their bytes, damaged ones are an error, searches end with their caller."""

import asyncio
import json
import shutil
from pathlib import Path

import aiohttp
import grpc
import orjson
import pytest
from jobledger import Client, NotFoundError, OutOfRangeError
from jobledger.v1.job_service_pb2 import TailLogsRequest
from jobledger.v1.job_service_pb2_grpc import JobServiceStub
from jobledger_gateway.encoding import encode_json
from support.doors import Door, Refused, RestDoor, server_sent
from support.running import RunningServer, output_file

LINES = "for n in 1 2 3; do echo line $n; done"
FLOOD = "yes 0123456789abcdefghijklmnopqrstuvwxyz | head -n 300000"


async def ended(door: Door, script: str = LINES) -> str:
    job_id: str = (await door.create("sh", "-c", script))["job_id"]
    await door.ended(job_id)
    return job_id


async def test_a_page_of_a_job_that_has_ended_has_a_tag_and_keeps_its_bytes(rest: RestDoor) -> None:
    job_id = await ended(rest)
    url = f"{rest.url}/v1/jobs/{job_id}/logs"
    seen = []
    for _ in range(2):
        async with rest.session.get(url, headers=rest.headers) as response:
            seen.append((response.status, response.headers["ETag"], await response.read()))
    assert seen[0] == seen[1]
    async with rest.session.get(url, headers={**rest.headers, "If-None-Match": seen[0][1]}) as response:
        assert (response.status, await response.read()) == (304, b"")
    async with rest.session.get(url, params={"offset": 1}, headers=rest.headers) as response:
        assert response.headers["ETag"] != seen[0][1]


async def test_a_page_of_a_job_that_runs_has_no_tag(rest: RestDoor) -> None:
    job_id = (await rest.create("sh", "-c", "echo one; read line", stdin="open"))["job_id"]
    async with rest.session.get(f"{rest.url}/v1/jobs/{job_id}/logs", headers=rest.headers) as response:
        assert (response.status, response.headers.get("ETag")) == (200, None)
    await rest.call("CancelJob", job_id=job_id)


async def test_no_page_outlives_its_job(rest: RestDoor) -> None:
    job_id = await ended(rest)
    url = f"{rest.url}/v1/jobs/{job_id}/logs"
    async with rest.session.get(url, headers=rest.headers) as response:
        tag = response.headers["ETag"]
    await rest.call("DeleteJob", job_id=job_id)
    async with rest.session.get(url, headers={**rest.headers, "If-None-Match": tag}) as response:
        assert response.status == 404


async def test_a_damaged_log_is_an_error_that_says_so(door: Door, server: RunningServer) -> None:
    job_id = await ended(door)
    data = server.data_dir / "logs" / job_id / "00000001.data"
    await asyncio.to_thread(_cut, data)
    with pytest.raises(Refused) as refused:
        await door.call("GetLogs", job_id=job_id)
    assert refused.value.error_code == "E_LOG_DAMAGED"
    numbers = {name: int(number) for name, number in refused.value.details.items()}
    assert numbers == {"first_sequence": 1, "last_sequence": 3}
    assert "was changed after it was sealed" in output_file(server.data_dir).read_text()


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5])


async def test_a_tail_that_nobody_reads_holds_neither_the_job_nor_the_others(
    rest: RestDoor, server: RunningServer
) -> None:
    job_id = (await rest.create("sh", "-c", FLOOD))["job_id"]
    url = f"{rest.url}/v1/jobs/{job_id}/logs/tail"
    async with aiohttp.ClientSession(read_bufsize=1024) as idle, idle.get(url, headers=rest.headers) as unread:
        assert unread.status == 200
        before = server.resident_megabytes()
        assert (await rest.ended(job_id))["state"] == "completed"
        async with rest.session.get(url, params={"after_sequence": 299_000}, headers=rest.headers) as response:
            numbers = [event.get("id") async for event in server_sent(response.content)]
        assert numbers == [*map(str, range(299_001, 300_001)), None]
        assert server.resident_megabytes() - before < 64


MIXED = """
i=0
while [ $i -lt 900 ]; do
    i=$((i+1))
    echo "plain $i é"
    echo '{"level": "error", "message": "m", "k": [1.0, "\\u00e9"]}'
done
printf '\\377 tail'
"""


async def test_a_tail_gives_the_entries_of_pages_however_it_is_asked(rest: RestDoor, server: RunningServer) -> None:
    """Singly and in batches over gRPC; as events and as lines through the gateway."""
    job_id = await ended(rest, MIXED)
    page = (await rest.call("GetLogs", job_id=job_id, limit=10_000))["logs"]
    assert len(page) == 1801
    async with grpc.aio.insecure_channel(server.target) as channel:
        stub, metadata = JobServiceStub(channel), (("authorization", f"Bearer {server.token}"),)
        for most in (None, 1, 2, 700, 10_000):
            request = TailLogsRequest(job_id=job_id, max_batch=most)
            found = [answer async for answer in stub.TailLogs(request, metadata=metadata)]
            batches = [list(it.batch.logs) if it.HasField("batch") else [it.log] for it in found[:-1]]
            assert max(map(len, batches)) == min(most or 1, 1801)
            assert [orjson.loads(encode_json(entry)) for batch in batches for entry in batch] == page
            assert found[-1].end.last_sequence == 1801
    url = f"{rest.url}/v1/jobs/{job_id}/logs/tail"
    async with rest.session.get(url, headers={**rest.headers, "Accept": "application/x-ndjson"}) as response:
        lines = [json.loads(line) async for line in response.content]
    assert [line["result"] for line in lines[:-1]] == page
    async with rest.session.get(url, params={"level": "error", "after_sequence": 2}, headers=rest.headers) as response:
        events = [event async for event in server_sent(response.content)]
    assert [json.loads(it["data"]) for it in events[:-1]] == [it for it in page[2:] if it["level"] == "error"]
    assert [int(event["id"]) for event in events[:-1]] == list(range(4, 1801, 2))


async def test_text_says_how_much_is_missing(rest: RestDoor) -> None:
    script = "yes 0123456789 | head -n 30000"
    whole = await ended(rest, script)
    cut = (await rest.create("sh", "-c", script, limits={"log_bytes": 65536}))["job_id"]
    await rest.ended(cut)
    for job_id in (whole, cut):
        async with rest.session.get(f"{rest.url}/v1/jobs/{job_id}/logs/content", headers=rest.headers) as response:
            missing = int(response.headers["Jobledger-Log-Dropped-Bytes"])
            assert response.headers["Jobledger-Log-Redacted"] == "false"
            assert len(await response.read()) + missing == 330_000
            assert (missing > 0) == (job_id == cut)


async def test_a_tail_goes_on_through_the_attempts_of_a_job(rest: RestDoor, server: RunningServer) -> None:
    """And from a point in the middle of the first one."""
    script = "echo a; echo attempt $JOBLEDGER_ATTEMPT; exit $((2 - JOBLEDGER_ATTEMPT))"
    job_id = (await rest.create("sh", "-c", script, max_attempts=2))["job_id"]
    async with Client.connect(server.target, token=server.token) as client:
        told = [entry.message async for entry in client.tail_logs(job_id)]
        assert told == ["a", "attempt 1", "a", "attempt 2"]
        assert [it.message async for it in client.tail_logs(job_id, after_sequence=1)] == told[1:]


async def test_a_tail_of_a_job_that_is_deleted_ends_with_an_error(rest: RestDoor, server: RunningServer) -> None:
    """While it is read: never with the end, since there was more."""
    job_id = await ended(rest, FLOOD)
    async with Client.connect(server.target, token=server.token) as client:
        pages = client.tail_log_pages(job_id)
        assert len(await anext(pages)) == 1000
        await rest.call("DeleteJob", job_id=job_id)
        with pytest.raises((NotFoundError, OutOfRangeError)):
            _ = [page async for page in pages]


async def test_a_tail_whose_log_is_lost_is_told_so_and_not_that_it_is_over(
    rest: RestDoor, server: RunningServer
) -> None:
    job_id = await ended(rest)
    await asyncio.to_thread(shutil.rmtree, server.data_dir / "logs" / job_id)
    url = f"{rest.url}/v1/jobs/{job_id}/logs/tail?after_sequence=2"
    async with aiohttp.ClientSession(headers=rest.headers) as session, session.get(url) as response:
        assert (response.status, (await response.json())["error_code"]) == (409, "E_LOG_DAMAGED")
