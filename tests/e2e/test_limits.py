"""Limits of jobs, as callers ask for them and hear of them, through both doors."""

import json
import sys
from pathlib import Path

import pytest
from support.doors import Door

MEGABYTE = 1024 * 1024
HOLD = f"import time; held = bytearray({48 * MEGABYTE}); time.sleep(600)"
FORKED = f"import os; [os.fork() for _ in range(2)]; {HOLD}"
BURN = "import os\nos.fork()\nwhile True: pass"
FILL = "import os, time; os.fork() or (open('output/big', 'wb').write(bytes(3 << 20)), os._exit(0)); time.sleep(600)"

CASES = {
    "memory": (
        [sys.executable, "-c", FORKED],
        {"memory_bytes": 96 * MEGABYTE},
        "E_JOB_OUT_OF_MEMORY",
        "Used more than 100663296 bytes of memory (limits.memory_bytes)",
    ),
    "cpu": (
        [sys.executable, "-c", BURN],
        {"cpu_time": "1s"},
        "E_JOB_CPU_LIMIT",
        "Used more than 1 s of CPU time (limits.cpu_time)",
    ),
    "disk": (
        [sys.executable, "-c", FILL],
        {"disk_bytes": 2 * MEGABYTE},
        "E_JOB_DISK_LIMIT",
        "Its directory takes more than 2097152 bytes of disk (limits.disk_bytes)",
    ),
    "file": (
        ["sh", "-c", "head -c 100000 /dev/zero > output/big"],
        {"file_size_bytes": 70_000},
        "E_JOB_DISK_LIMIT",
        "Wrote a file of more than 70000 bytes (limits.file_size_bytes)",
    ),
}


@pytest.mark.parametrize("case", CASES)
async def test_a_job_that_passes_a_limit_fails_with_its_code_and_has_a_receipt(door: Door, case: str) -> None:
    command, limits, code, message = CASES[case]
    created = await door.create(*command, limits=limits)
    job = await door.ended(created["job_id"])
    assert (job["state"], job["error_code"], job["error_message"]) == ("failed", code, message)
    receipt, _ = await door.receipt(job["job_id"])
    assert code in json.dumps(json.loads(receipt))


async def test_each_attempt_has_its_limits_anew(door: Door) -> None:
    """The first one breaks them, and is tried again; the second one keeps to them."""
    code = f"import os\nif os.environ['JOBLEDGER_ATTEMPT'] == '1': {HOLD}"
    limits = {"memory_bytes": 32 * MEGABYTE}
    created = await door.create(sys.executable, "-c", code, limits=limits, max_attempts=2, retry_backoff="0.01s")
    job = await door.ended(created["job_id"])
    assert (job["state"], job["attempt"]) == ("completed", 2)


async def test_a_limit_that_is_hit_by_every_attempt_is_the_job_s_end(door: Door) -> None:
    script = "exec head -c 100000 /dev/zero > output/big"
    limits = {"file_size_bytes": 70_000}
    created = await door.create("sh", "-c", script, limits=limits, max_attempts=3, retry_backoff="0.01s")
    job = await door.ended(created["job_id"])
    assert (job["state"], job["attempt"], job["error_code"]) == ("failed", 3, "E_JOB_DISK_LIMIT")


async def test_what_a_job_forked_before_it_passed_a_limit_is_gone_with_it(door: Door) -> None:
    """Also what left its session and its group."""
    script = f'setsid sleep 600 & echo $!; exec "{sys.executable}" -c "{HOLD}"'
    created = await door.create("sh", "-c", script, limits={"memory_bytes": 32 * MEGABYTE})
    job = await door.ended(created["job_id"])
    assert job["error_code"] == "E_JOB_OUT_OF_MEMORY"
    (line,) = (await door.call("GetLogs", job_id=job["job_id"]))["logs"]
    assert not Path(f"/proc/{line['message']}").exists()


async def test_holes_do_not_get_past_the_limit_of_the_disk(door: Door) -> None:
    """They take no room while the job runs: so it completes, without the artifact."""
    script = "truncate -s 150M output/holes; echo x > output/kept"
    created = await door.create("sh", "-c", script, limits={"disk_bytes": MEGABYTE})
    job = await door.ended(created["job_id"])
    assert (job["state"], [it["path"] for it in job["artifacts"]]) == ("completed", ["kept"])
    receipt, _ = await door.receipt(job["job_id"])
    assert "its 157286400 bytes are past the limit of the job (limits.disk_bytes)" in receipt.decode()
