"""Pages of a job's log: sealed ones keep their bytes, damaged ones are an error, searches end with their caller."""

import asyncio
import shutil
from pathlib import Path

import aiohttp
import pytest
from support.doors import Door, Refused, RestDoor
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


async def test_a_damaged_log_is_an_error_with_a_reference(door: Door, server: RunningServer) -> None:
    job_id = await ended(door)
    data = server.data_dir / "logs" / job_id / "00000001.data"
    await asyncio.to_thread(_cut, data)
    with pytest.raises(Refused) as refused:
        await door.call("GetLogs", job_id=job_id)
    assert refused.value.error_code == "E_INTERNAL"
    assert refused.value.details["reference"] in output_file(server.data_dir).read_text()
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
            numbers = [int(line[4:]) async for line in response.content if line.startswith(b"id: ")]
        assert numbers == list(range(299_001, 300_001))
        assert server.resident_megabytes() - before < 64


async def test_a_tail_whose_log_was_removed_is_told_so_and_not_that_it_is_over(
    rest: RestDoor, server: RunningServer
) -> None:
    job_id = await ended(rest)
    await asyncio.to_thread(shutil.rmtree, server.data_dir / "logs" / job_id)
    url = f"{rest.url}/v1/jobs/{job_id}/logs/tail?after_sequence=2"
    async with aiohttp.ClientSession(headers=rest.headers) as session, session.get(url) as response:
        assert (response.status, (await response.json())["error_code"]) == (410, "E_STREAM_GAP_TOO_LARGE")
