"""Lists: filters, pages that are stable while jobs are added, and the same bytes for the same question."""

from typing import Any

import pytest
from support.doors import Door, RestDoor


async def made(door: Door, count: int, **spec: Any) -> list[str]:
    """Ids of jobs that have ended, oldest first."""
    ids = [(await door.create("true", **spec))["job_id"] for _ in range(count)]
    for job_id in ids:
        await door.ended(job_id)
    return ids


async def test_two_identical_requests_get_identical_bytes(rest: RestDoor) -> None:
    await made(rest, 5, labels={"b": "2", "a": "1"})
    for path in ("/v1/jobs", "/v1/jobs?limit=2", "/v1/jobs?state=completed,failed&label=a%3D1"):
        bodies = []
        for _ in range(2):
            async with rest.session.get(rest.url + path, headers=rest.headers) as response:
                bodies.append(await response.read())
        assert bodies[0] == bodies[1]


async def test_a_list_has_a_tag_that_changes_with_it(rest: RestDoor) -> None:
    await made(rest, 1)
    url = f"{rest.url}/v1/jobs?limit=3"
    async with rest.session.get(url, headers=rest.headers) as response:
        tag = response.headers["ETag"]
    async with rest.session.get(url, headers={**rest.headers, "If-None-Match": tag}) as response:
        assert (response.status, await response.read()) == (304, b"")
    [job_id] = await made(rest, 1)
    async with rest.session.get(url, headers={**rest.headers, "If-None-Match": tag}) as response:
        assert response.status == 200
        assert response.headers["ETag"] != tag
        assert (await response.json())["jobs"][0]["job_id"] == job_id


async def test_a_listed_job_has_exactly_its_fields_in_order(rest: RestDoor) -> None:
    await made(rest, 1)
    page = await rest.call("ListJobs", limit=1)
    assert list(page) == ["jobs", "total", "offset", "limit", "next_page_token"]
    assert list(page["jobs"][0]) == [
        "job_id", "state", "job_type", "created_at", "started_at", "completed_at", "progress_percent",
        "progress_phase", "error_code", "workspace_id", "labels",
    ]  # fmt: skip


async def test_pages_are_stable_while_jobs_are_added(door: Door) -> None:
    label = f"walk={door.name}"
    ids = await made(door, 7, labels={"walk": door.name})
    page = await door.call("ListJobs", limit=3, label=[label])
    seen = [job["job_id"] for job in page["jobs"]]
    await made(door, 2, labels={"walk": door.name})
    while page.get("next_page_token"):
        page = await door.call("ListJobs", limit=3, label=[label], page_token=page["next_page_token"])
        seen += [job["job_id"] for job in page["jobs"]]
    assert seen == ids[::-1]
    assert page["total"] == 9


@pytest.mark.parametrize("other", [{"state": ["failed"]}, {"label": ["x=y"]}])
async def test_a_page_token_is_bound_to_its_filter(rest: RestDoor, other: dict[str, list[str]]) -> None:
    await made(rest, 3)
    token = (await rest.call("ListJobs", limit=1))["next_page_token"]
    async with rest.request("GET", "/v1/jobs", {"page_token": token, **other}) as response:
        assert (response.status, (await response.json())["error_code"]) == (422, "E_VALIDATION")


async def test_a_page_token_goes_with_its_filter_however_that_is_written(door: Door) -> None:
    await made(door, 3, labels={"a": f"1-{door.name}", "b": "2"})
    states, labels = ["completed", "failed", "completed"], [f"a=1-{door.name}", "b=2"]
    token = (await door.call("ListJobs", limit=1, state=states, label=labels))["next_page_token"]
    page = await door.call("ListJobs", page_token=token, state=["failed", "completed"], label=labels[::-1])
    assert len(page["jobs"]) == 2


async def test_an_empty_page_token_is_the_first_page(rest: RestDoor) -> None:
    await made(rest, 2)
    for path in ("/v1/jobs?limit=1", "/gateway/jobs?scope=all&limit=1"):
        seen = []
        for given in (path, f"{path}&page_token="):
            async with rest.session.get(rest.url + given, headers=rest.headers) as response:
                assert response.status == 200
                seen.append((await response.json())["jobs"])
        assert seen[0] == seen[1]
    async with rest.session.get(f"{rest.url}/v1/jobs?offset=1&page_token=", headers=rest.headers) as response:
        assert response.status == 200


async def test_filters_hold_together(door: Door) -> None:
    mine: dict[str, Any] = {"labels": {"team": f"t-{door.name}", "kind": "a=b"}, "workspace_id": f"space-{door.name}"}
    ids = await made(door, 2, **mine)
    await made(door, 1, labels={"team": f"t-{door.name}"})
    page = await door.call(
        "ListJobs", label=[f"team=t-{door.name}", "kind=a=b"], workspace_id=f"space-{door.name}", state=["completed"]
    )
    assert [job["job_id"] for job in page["jobs"]] == ids[::-1]
    assert page["total"] == 2
    found = await door.call("ListJobs", search=ids[0])
    assert [job["job_id"] for job in found["jobs"]] == [ids[0]]
    job = await door.get(ids[1])
    later = await door.call("ListJobs", created_after=job["created_at"], workspace_id=f"space-{door.name}")
    assert [it["job_id"] for it in later["jobs"]] == [ids[1]]
    earlier = await door.call("ListJobs", created_before=job["created_at"], workspace_id=f"space-{door.name}")
    assert [it["job_id"] for it in earlier["jobs"]] == [ids[0]]


async def test_cancel_by_filter_tells_of_each_job(door: Door) -> None:
    label = f"batch={door.name}"
    ids = [(await door.create("sleep", "600", labels={"batch": door.name}))["job_id"] for _ in range(3)]
    rehearsal = await door.call("CancelJobs", label=[label], dry_run=True)
    assert rehearsal["dry_run"] is True
    assert [it["job_id"] for it in rehearsal["results"]] == ids
    assert {(await door.get(job_id))["state"] for job_id in ids} <= {"queued", "running"}
    done = await door.call("CancelJobs", label=[label])
    assert [it["job_id"] for it in done["results"]] == ids
    for job_id in ids:
        assert (await door.ended(job_id))["state"] == "cancelled"


async def test_high_priority_goes_first(door: Door) -> None:
    busy = [(await door.create("sleep", "600"))["job_id"] for _ in range(4)]
    low = (await door.create("true", priority="low"))["job_id"]
    normal = (await door.create("true"))["job_id"]
    high = (await door.create("true", priority="high"))["job_id"]
    positions = {job_id: (await door.get(job_id))["queue_position"] for job_id in (low, normal, high)}
    assert positions[high] < positions[normal] < positions[low]
    await door.cancel(busy[0])
    order = sorted([await door.ended(job_id) for job_id in (low, normal, high)], key=lambda job: job["started_at"])
    assert [job["job_id"] for job in order] == [high, normal, low]
    for job_id in busy[1:]:
        await door.cancel(job_id)
    for job_id in busy:
        await door.ended(job_id)
