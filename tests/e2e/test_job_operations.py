"""Cancelling jobs and reading their logs, artifacts and receipts: AC-1 to AC-4 and the test plan of the job operations
story. Each test runs through both doors.
"""

import json
from typing import Any

import pytest
from support.doors import Door, Refused
from support.eventually import eventually
from support.running import RunningServer

CONFLICT = {"grpc": "FAILED_PRECONDITION", "rest": 409}
NOT_FOUND = {"grpc": "NOT_FOUND", "rest": 404}
NOT_THERE_YET = {"grpc": "FAILED_PRECONDITION", "rest": 404}
NOBODY = "job_00000000000000000000000000"
LONG = ("sleep", "600")
STUBBORN = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
LEAVES_TWO = """
mkdir -p $JOBLEDGER_OUTPUT_DIR/deep
echo one > $JOBLEDGER_OUTPUT_DIR/a.txt
echo two > $JOBLEDGER_OUTPUT_DIR/deep/b.txt
"""
THREE_LEVELS = """
import json, sys
for number in range(4):
    print(f"line {number}", flush=True)
    print(json.dumps({"level": "warn", "message": f"odd {number}", "subsystem": "parser"}), flush=True)
    print(json.dumps({"level": "error", "message": f"bad {number}", "payload": {"n": number}}), flush=True)
"""


async def running(door: Door, *command: str, **spec: Any) -> str:
    """Id of a job whose process runs."""
    job = await door.create(*(command or LONG), **spec)
    await eventually(lambda: door.get(job["job_id"]), until=lambda seen: seen["state"] == "running")
    return str(job["job_id"])


async def states_told(door: Door, job_id: str) -> list[tuple[str | None, str]]:
    """(old, new) of each change of state that the event stream has of a terminal job."""
    told = []
    async for event in door.events(resume_from=0, job_id=[job_id]):
        if event["event_type"] == "job.state_changed":
            told.append((event.get("old_state"), event["new_state"]))
            if event["new_state"] in ("completed", "failed", "cancelled"):
                break
    return told


async def fill_slots(door: Door) -> list[str]:
    """Jobs on every slot of the server, so that the next one waits."""
    return [await running(door) for _ in range(4)]


async def end(door: Door, job_ids: list[str]) -> None:
    for job_id in job_ids:
        await door.cancel(job_id)
    for job_id in job_ids:
        await door.ended(job_id)


async def test_cancel_running_job(door: Door) -> None:
    """AC-1: it answers at once, and the job goes by `cancelling` to `cancelled`, with an event for each change."""
    job_id = await running(door)
    answer = await door.cancel(job_id)
    assert answer == {"job_id": job_id, "state": "cancelling", "message": "Cancellation requested"}
    job = await door.ended(job_id)
    assert job["state"] == "cancelled"
    assert job["cancel_requested_at"]
    assert await states_told(door, job_id) == [
        (None, "queued"),
        ("queued", "running"),
        ("running", "cancelling"),
        ("cancelling", "cancelled"),
    ]


async def test_cancel_queued_job(door: Door) -> None:
    """AC-1: a queued job is cancelled at once, with one event and no `cancelling` between."""
    busy = await fill_slots(door)
    waiting = (await door.create(*LONG))["job_id"]
    assert (await door.get(waiting))["state"] == "queued"
    answer = await door.cancel(waiting)
    assert answer == {"job_id": waiting, "state": "cancelled", "message": "Job cancelled"}
    assert await states_told(door, waiting) == [(None, "queued"), ("queued", "cancelled")]
    receipt = json.loads((await door.receipt(waiting))[0])
    assert receipt["receipt_status"] == "partial"
    await end(door, busy)


async def test_cancel_completed_job_fails(door: Door) -> None:
    """AC-1: a finished job can't be cancelled, and nothing of it changes."""
    for command, state in ((["true"], "completed"), (["false"], "failed")):
        job_id = (await door.create(*command))["job_id"]
        before = await door.ended(job_id)
        with pytest.raises(Refused) as refused:
            await door.cancel(job_id)
        assert refused.value.error_code == "E_JOB_ALREADY_FINISHED"
        assert refused.value.status == CONFLICT[door.name]
        assert refused.value.message == f"Cannot cancel {state} job"
        assert await door.get(job_id) == before


async def test_cancel_is_idempotent(door: Door) -> None:
    """AC-1: asking again is fine, while it is being cancelled and afterwards."""
    job_id = (await door.create("python3", "-c", STUBBORN))["job_id"]
    await eventually(lambda: door.call("GetLogs", job_id=job_id), until=lambda page: page["total"] == 1)
    assert (await door.cancel(job_id, grace_period="1s"))["message"] == "Cancellation requested"
    again = await door.cancel(job_id)
    assert (again["state"], again["message"]) == ("cancelling", "Job already cancelling or cancelled")
    ended = await door.ended(job_id)
    assert ended["state"] == "cancelled"
    after = await door.cancel(job_id)
    assert (after["state"], after["message"]) == ("cancelled", "Job already cancelling or cancelled")
    assert await door.get(job_id) == ended


async def test_get_logs_pagination(door: Door) -> None:
    """AC-2: offset and limit give every entry once."""
    job_id = (await door.create("python3", "-c", THREE_LEVELS))["job_id"]
    await door.ended(job_id)
    whole = await door.call("GetLogs", job_id=job_id)
    assert (whole["total"], whole["offset"], whole["limit"], whole["has_more"]) == (12, 0, 1000, False)
    seen = []
    for offset in range(0, 12, 5):
        page = await door.call("GetLogs", job_id=job_id, offset=offset, limit=5)
        assert (page["total"], page["offset"], page["limit"]) == (12, offset, 5)
        assert page["has_more"] == (offset + len(page["logs"]) < 12)
        seen += page["logs"]
    assert seen == whole["logs"]
    beyond = await door.call("GetLogs", job_id=job_id, offset=100)
    assert (beyond["logs"], beyond["total"], beyond["has_more"]) == ([], 12, False)


async def test_get_logs_level_filter(door: Door) -> None:
    """AC-2: only the levels that were asked for, and `total` counts those."""
    job_id = (await door.create("python3", "-c", THREE_LEVELS))["job_id"]
    await door.ended(job_id)
    page = await door.call("GetLogs", job_id=job_id, level=["warn", "error"])
    assert {entry["level"] for entry in page["logs"]} == {"warn", "error"}
    assert page["total"] == len(page["logs"]) == 8
    assert page["logs"][0]["subsystem"] == "parser"
    assert page["logs"][1]["payload"] == {"n": 0}


async def test_get_logs_ordered_by_sequence(door: Door) -> None:
    """AC-2: in the order of job_sequence, from 1, with no gap; `order=desc` turns it round."""
    job_id = (await door.create("python3", "-c", THREE_LEVELS))["job_id"]
    await door.ended(job_id)
    page = await door.call("GetLogs", job_id=job_id)
    assert [entry["job_sequence"] for entry in page["logs"]] == list(range(1, 13))
    assert len({entry["id"] for entry in page["logs"]}) == 12
    turned = await door.call("GetLogs", job_id=job_id, order="desc")
    assert turned["logs"] == page["logs"][::-1]


async def test_get_artifacts_list(door: Door) -> None:
    """AC-3: each artifact with name, path, type, size, hash and status; and the bytes are those of the hash."""
    job_id = (await door.create("sh", "-c", LEAVES_TWO))["job_id"]
    await door.ended(job_id)
    artifacts = (await door.call("GetArtifacts", job_id=job_id))["artifacts"]
    assert [(it["path"], it["name"], it["size_bytes"], it["status"], it["artifact_type"]) for it in artifacts] == [
        ("a.txt", "a.txt", 4, "complete", "output"),
        ("deep/b.txt", "b.txt", 4, "complete", "output"),
    ]
    assert artifacts[0]["sha256"] == "2c8b08da5ce60398e1f19af0e5dccc744df274b826abe585eaba68c525434806"
    assert await door.download(job_id, artifacts[0]["id"]) == b"one\n"
    assert (await door.get(job_id))["artifacts"] == artifacts


async def test_artifacts_of_a_job_that_failed_are_partial(door: Door) -> None:
    job_id = (await door.create("sh", "-c", "echo half > $JOBLEDGER_OUTPUT_DIR/half.txt; exit 3"))["job_id"]
    job = await door.ended(job_id)
    assert (job["state"], job["error_code"], job["exit_code"]) == ("failed", "E_JOB_EXIT_NONZERO", 3)
    assert [it["artifact_type"] for it in job["artifacts"]] == ["partial"]


async def test_get_receipt_completed_job(door: Door) -> None:
    """AC-4: the receipt, the same bytes each time, as a download with its name."""
    job_id = (await door.create("true"))["job_id"]
    await door.ended(job_id)
    data, headers = await door.receipt(job_id)
    receipt = json.loads(data)
    assert (receipt["job_id"], receipt["receipt_status"]) == (job_id, "final")
    assert receipt["summary"]["status"] == "completed"
    assert headers["content-disposition"] == f'attachment; filename="receipt-{job_id}.json"'
    assert (await door.receipt(job_id))[0] == data


@pytest.mark.parametrize(
    ("command", "state"), [(["true"], "completed"), (["false"], "failed"), (list(LONG), "cancelled")]
)
async def test_every_end_leaves_a_receipt(door: Door, command: list[str], state: str) -> None:
    """AC-4: completed, failed and cancelled jobs alike, with a signed envelope and a proof that the log has it."""
    job_id = (await door.create(*command))["job_id"]
    if state == "cancelled":
        await eventually(lambda: door.get(job_id), until=lambda seen: seen["state"] == "running")
        await door.cancel(job_id)
    assert (await door.ended(job_id))["state"] == state
    receipt = json.loads((await door.receipt(job_id))[0])
    assert receipt["summary"]["status"] == state
    envelope = json.loads((await door.receipt(job_id, "dsse"))[0])
    assert envelope["payloadType"] == "application/vnd.in-toto+json"
    assert (await door.receipt(job_id, "proof"))[0].startswith(b"c2sp.org/tlog-proof@v1\n")


async def test_get_receipt_running_job_fails(door: Door) -> None:
    """AC-4: no receipt before the end."""
    job_id = await running(door)
    with pytest.raises(Refused) as refused:
        await door.receipt(job_id)
    assert refused.value.error_code == "E_RECEIPT_NOT_READY"
    assert refused.value.status == NOT_THERE_YET[door.name]
    await end(door, [job_id])


@pytest.mark.parametrize(
    "verb", ["GetJob", "CancelJob", "GetLogs", "GetArtifacts", "WaitJob", "SendInput", "DeleteJob"]
)
async def test_unknown_job_is_not_found(door: Door, verb: str) -> None:
    """AC-2 to AC-4: 404 for a job that does not exist."""
    with pytest.raises(Refused) as refused:
        await door.call(verb, job_id=NOBODY)
    assert refused.value.error_code == "E_JOB_NOT_FOUND"
    assert refused.value.status == NOT_FOUND[door.name]


async def test_receipt_of_an_unknown_job_is_not_found(door: Door) -> None:
    with pytest.raises(Refused) as refused:
        await door.receipt(NOBODY)
    assert refused.value.error_code == "E_JOB_NOT_FOUND"


async def test_a_deleted_job_is_gone(door: Door, server: RunningServer) -> None:
    job_id = (await door.create("sh", "-c", "echo gone"))["job_id"]
    job = await door.ended(job_id)
    await door.call("DeleteJob", job_id=job_id)
    with pytest.raises(Refused) as refused:
        await door.get(job_id)
    assert refused.value.error_code == "E_JOB_NOT_FOUND"
    noted = (server.data_dir / "receipts" / "deletions.jsonl").read_text()
    assert job_id in noted, "a recovery does not bring it back"
    assert not (server.data_dir / "jobs" / job_id).exists()
    assert job["job_dir"] == str(server.data_dir / "jobs" / job_id)


async def test_a_running_job_can_not_be_deleted(door: Door) -> None:
    job_id = await running(door)
    with pytest.raises(Refused) as refused:
        await door.call("DeleteJob", job_id=job_id)
    assert (refused.value.error_code, refused.value.status) == ("E_JOB_NOT_FINISHED", CONFLICT[door.name])
    await end(door, [job_id])
