"""What a job says of itself reaches those who watch it: by the Python helper, and by the README's shell script. Each
test runs through both doors.
"""

import json
import sys
import textwrap
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
from jobledger import job as helper
from support.doors import Door, Refused
from support.eventually import eventually

README = Path(__file__).parents[2] / "README.md"
REPORTS = """
import logging
from jobledger import job
logging.basicConfig(handlers=[job.LogHandler()], level=logging.INFO)
for number in job.track(range(job.config()["items"]), phase="counting"):
    pass
job.log("warn", "short of rows", subsystem="reader", correlation_id="c1", rows=3)
job.log("error", "a long one", text="x" * 5000)
try:
    1 / 0
except ZeroDivisionError:
    logging.getLogger("maths").exception("no result")
job.output("deep/result.txt").write_text(f"{job.id} {job.run_id} {job.attempt}")
"""
DECLARES = """
import os, time
from jobledger import job
job.artifact(job.output("deep/model.bin"))
job.artifact("never.bin")
job.output("other.bin").write_text("not asked for")
while not os.path.exists(os.environ["GATE"]):
    time.sleep(0.02)
job.output("deep/model.bin").write_text("weights")
"""
RESUMES = """
import os, signal, sys, time
from jobledger import job
state = job.restore()
job.log("info", "begins", attempt=job.attempt, restored=state)
first = state["row"] if state else 0
for row in range(first, first + 100):
    job.checkpoint({"row": row + 1})
if job.attempt == 1:
    sys.exit(3)
if job.attempt == 2:
    os.kill(os.getpid(), signal.SIGKILL)
if job.attempt == 3:
    while job.restore() != {"row": 300}:
        time.sleep(0.02)
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)
"""
STUBBORN = """
import select, signal
from jobledger import job
signal.signal(signal.SIGTERM, signal.SIG_IGN)
job.progress(10, phase="deaf to signals")
while not job.cancelled():
    select.select([], [], [], 0.01)
job.output("last.txt").write_text("left in peace")
"""


async def run(door: Door, *command: str, **spec: Any) -> dict[str, Any]:
    """A job that ended well."""
    created = await door.create(*command, **spec)
    ended = await door.ended(created["job_id"])
    assert ended["state"] == "completed", ended
    return ended


async def logs(door: Door, job_id: str) -> list[dict[str, Any]]:
    page = await door.call("GetLogs", job_id=job_id)
    return list(page["logs"])


async def reports(door: Door, job_id: str) -> list[dict[str, Any]]:
    """All progress events of a terminal job."""
    told = []
    async for event in door.events(resume_from=0, job_id=[job_id]):
        if event["event_type"] == "job.progress":
            told.append(event)
        if event["event_type"] == "job.state_changed" and event["new_state"] in ("completed", "cancelled"):
            break
    return told


async def artifact(door: Door, job_id: str) -> tuple[str, bytes]:
    """Path and bytes of the only one."""
    (only,) = (await door.call("GetArtifacts", job_id=job_id))["artifacts"]
    return only["path"], await door.download(job_id, only["id"])


async def test_what_the_helper_reports_arrives(door: Door) -> None:
    job = await run(door, sys.executable, "-c", REPORTS, config={"items": 8})
    job_id = job["job_id"]
    last = (await reports(door, job_id))[-1]
    assert (last["phase"], last["progress_percent"]) == ("counting", 100)
    assert (int(last["items_completed"]), int(last["items_total"])) == (8, 8)
    by_message = {entry["message"]: entry for entry in await logs(door, job_id)}
    assert set(by_message) == {"short of rows", "a long one", "no result"}
    warning, long, failure = by_message["short of rows"], by_message["a long one"], by_message["no result"]
    assert (warning["level"], warning["subsystem"], warning["correlation_id"]) == ("warn", "reader", "c1")
    assert warning["payload"] == {"rows": 3}
    assert (long["level"], long["payload"]) == ("error", {"text": "x" * 5000})
    assert (failure["level"], failure["subsystem"]) == ("error", "maths")
    assert failure["payload"]["exception"]["type"] == "ZeroDivisionError"
    assert await artifact(door, job_id) == ("deep/result.txt", f"{job_id} {job['run_id']} 1".encode())


async def test_a_job_that_ignores_signals_can_learn_that_it_is_cancelled(door: Door) -> None:
    """It ends by itself, long before the grace period is over, and what it leaves is kept."""
    job_id = (await door.create(sys.executable, "-c", STUBBORN, grace_period="60s"))["job_id"]
    await eventually(lambda: door.get(job_id), until=lambda job: job.get("progress_phase") == "deaf to signals")
    await door.cancel(job_id)
    ended = await door.ended(job_id)
    assert (ended["state"], ended.get("signal"), ended.get("exit_code")) == ("cancelled", None, 0)
    assert await artifact(door, job_id) == ("last.txt", b"left in peace")


async def test_one_line_too_long_for_the_channel_does_not_spoil_the_next(door: Door) -> None:
    script = (
        'printf \'%70000s\\n\' x > $JOBLEDGER_CONTROL; echo \'{"type": "progress", "percent": 5}\' > $JOBLEDGER_CONTROL'
    )
    job = await run(door, "sh", "-c", script)
    assert job["progress_percent"] == 5


async def statuses(door: Door, job_id: str) -> list[tuple[str, str]]:
    """Path and status of all artifact events of a terminal job."""
    told = []
    async for event in door.events(resume_from=0, job_id=[job_id]):
        if event["event_type"] == "job.artifact":
            told.append((event["artifact"]["path"], event["artifact"]["status"]))
        if event["event_type"] == "job.state_changed" and event["new_state"] in ("completed", "failed"):
            break
    return told


async def listed(door: Door, job_id: str) -> dict[str, dict[str, Any]]:
    return {found["path"]: found for found in (await door.call("GetArtifacts", job_id=job_id))["artifacts"]}


async def test_a_declared_artifact_is_pending_until_the_job_ends(door: Door, scratch: Path) -> None:
    gate = scratch / "gate"
    job_id = (await door.create(sys.executable, "-c", DECLARES, env={"GATE": str(gate)}, artifacts=["*.txt"]))["job_id"]
    pending = await eventually(lambda: listed(door, job_id), until=lambda found: len(found) == 2)
    for path, found in pending.items():
        assert (found["name"], found["status"], found["artifact_type"]) == (
            path.rpartition("/")[2],
            "pending",
            "partial",
        )
        assert (found.get("size_bytes"), found.get("sha256")) == (None, None)
    with pytest.raises(Refused) as early:
        await door.download(job_id, pending["deep/model.bin"]["id"])
    assert early.value.error_code == "E_ARTIFACT_NOT_READY"
    gate.touch()
    assert (await door.ended(job_id))["state"] == "completed"
    settled = await listed(door, job_id)
    assert {path: (found["id"], found["status"]) for path, found in settled.items()} == {
        "deep/model.bin": (pending["deep/model.bin"]["id"], "complete"),
        "never.bin": (pending["never.bin"]["id"], "failed"),
    }
    assert await door.download(job_id, settled["deep/model.bin"]["id"]) == b"weights"
    with pytest.raises(Refused) as missing:
        await door.download(job_id, settled["never.bin"]["id"])
    assert missing.value.error_code == "E_ARTIFACT_NOT_FOUND"
    assert "declared" in missing.value.message
    assert await statuses(door, job_id) == [
        ("deep/model.bin", "pending"), ("never.bin", "pending"), ("deep/model.bin", "complete"), ("never.bin", "failed")
    ]  # fmt: skip
    receipt = json.loads((await door.receipt(job_id))[0])
    assert [output["path"] for output in receipt["outputs"]] == ["deep/model.bin"]
    assert [refusal["path"] for refusal in receipt["refused"]] == ["never.bin"]


async def test_the_next_attempt_goes_on_from_the_last_checkpoint(door: Door) -> None:
    """However the last one ended: by itself, killed, or with its supervisor. Another job begins with nothing."""
    job = await run(door, sys.executable, "-c", RESUMES, max_attempts=4, retry_backoff="0s")
    attempts = [entry["payload"] for entry in await logs(door, job["job_id"])]
    assert attempts == [
        {"attempt": 1, "restored": None},
        {"attempt": 2, "restored": {"row": 100}},
        {"attempt": 3, "restored": {"row": 200}},
        {"attempt": 4, "restored": {"row": 300}},
    ]
    again = await door.create("sh", "-c", '[ ! -e "$JOBLEDGER_CHECKPOINT" ]', rerun_of=job["job_id"])
    assert (await door.ended(again["job_id"]))["state"] == "completed"


def example(first_lines: str) -> str:
    """The indented block of the README that begins so, as it is when it is pasted into a file."""
    text = README.read_text()
    block = text[text.index(textwrap.indent(first_lines, "    ")) :]
    lines = block.splitlines()
    end = next(index for index, line in enumerate(lines) if line and not line.startswith("    "))
    return textwrap.dedent("\n".join(lines[:end])).strip() + "\n"


async def test_the_shell_script_of_the_readme_works_as_it_stands(door: Door, scratch: Path) -> None:
    script = scratch / "squares.sh"
    script.write_text(example("#!/bin/sh"))
    script.chmod(0o700)
    job_id = (await run(door, str(script)))["job_id"]
    last = (await reports(door, job_id))[-1]
    assert (last["phase"], last["progress_percent"]) == ("squaring", 100)
    assert await statuses(door, job_id) == [("squares.csv", "pending"), ("squares.csv", "complete")]
    assert await logs(door, job_id) == []
    assert await artifact(door, job_id) == ("squares.csv", b"1,1\n2,4\n3,9\n4,16\n")


async def cancel_under_way(door: Door, *command: str) -> dict[str, Any]:
    """A job that is cancelled once it has told of progress, with time enough to end by itself."""
    job_id = (await door.create(*command, grace_period="60s"))["job_id"]
    await eventually(lambda: door.get(job_id), until=lambda job: (job.get("progress_percent") or 0) > 0)
    await door.cancel(job_id)
    ended = await door.ended(job_id)
    assert (ended["state"], ended.get("signal")) == ("cancelled", None)
    return ended


async def test_the_shell_script_of_the_readme_ends_well_when_it_is_cancelled(door: Door, scratch: Path) -> None:
    script = scratch / "squares.sh"
    script.write_text(example("#!/bin/sh").replace("-lt 4", "-lt 1000000").replace("number * 25", "1"))
    script.chmod(0o700)
    job_id = (await cancel_under_way(door, str(script)))["job_id"]
    entry = (await logs(door, job_id))[-1]
    path, squares = await artifact(door, job_id)
    told = (entry["level"], entry["subsystem"], entry["message"], path)
    assert told == ("warn", "control", "stopped", "squares.csv")
    # The signal may come between the count and the line.
    assert entry["payload"]["last"] - squares.count(b"\n") in (0, 1)


async def test_the_python_example_of_the_readme_ends_well_when_it_is_cancelled(door: Door, scratch: Path) -> None:
    text = example("from jobledger import job")
    assert "range(1000)" in text
    (scratch / "script.py").write_text(text.replace("range(1000)", "range(10**15)"))
    ended = await cancel_under_way(door, sys.executable, str(scratch / "script.py"))
    path, summary = await artifact(door, ended["job_id"])
    assert (ended["exit_code"], path) == (0, "reports/summary.txt")
    assert summary.startswith(b"cancelled at ")


async def test_the_python_example_of_the_readme_works_as_it_stands(door: Door, scratch: Path) -> None:
    """With the helper next to the script too, and nothing installed."""
    text = example("from jobledger import job")
    copytree(Path(helper.__file__).parent, scratch / "job")
    for script, flags in ((text, []), (text.replace("from jobledger import job", "import job"), ["-S"])):
        (scratch / "script.py").write_text(script)
        job = await run(door, sys.executable, *flags, str(scratch / "script.py"), config={"seed": 7})
        assert (job["progress_phase"], job["progress_percent"]) == ("reading", 100)
        (entry,) = await logs(door, job["job_id"])
        assert (entry["message"], entry["subsystem"], entry["payload"]) == ("started", "reader", {"seed": 7})
        assert await artifact(door, job["job_id"]) == ("reports/summary.txt", b"all read\n")


async def test_the_example_of_the_readme_that_goes_on_works_as_it_stands(door: Door, scratch: Path) -> None:
    """The first attempt is killed half way."""
    text = example("from jobledger import job\n\njob.artifact(")
    assert "job.checkpoint(state)" in text
    killed = text.replace(
        "job.checkpoint(state)", "job.checkpoint(state)\n    if row == 499 and job.attempt == 1: os.abort()"
    )
    (scratch / "script.py").write_text(f"import os\n{killed}")
    job = await run(door, sys.executable, str(scratch / "script.py"), max_attempts=2, retry_backoff="0s")
    assert job["attempt"] == 2
    assert await artifact(door, job["job_id"]) == ("total.txt", str(sum(range(1000))).encode())
