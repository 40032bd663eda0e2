"""What a job says of itself reaches those who watch it: by the Python helper, and by the README's shell script. Each
test runs through both doors.
"""

import sys
import textwrap
from pathlib import Path
from typing import Any

from jobledger import job as helper
from support.doors import Door
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


def example(first_line: str) -> str:
    """The indented block of the README that begins so, as it is when it is pasted into a file."""
    text = README.read_text()
    block = text[text.index(f"    {first_line}\n") :]
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
    (entry,) = await logs(door, job_id)
    assert (entry["level"], entry["subsystem"], entry["message"]) == ("warn", "squares", "stopped early")
    assert entry["payload"] == {"last": 4}
    assert await artifact(door, job_id) == ("squares.csv", b"1,1\n2,4\n3,9\n4,16\n")


async def test_the_python_example_of_the_readme_works_as_it_stands(door: Door, scratch: Path) -> None:
    """With the helper next to the script too, and nothing installed."""
    text = example("from jobledger import job")
    (scratch / "job.py").write_text(Path(helper.__file__).read_text())
    for script, flags in ((text, []), (text.replace("from jobledger import job", "import job"), ["-S"])):
        (scratch / "script.py").write_text(script)
        job = await run(door, sys.executable, *flags, str(scratch / "script.py"), config={"seed": 7})
        assert (job["progress_phase"], job["progress_percent"]) == ("reading", 100)
        (entry,) = await logs(door, job["job_id"])
        assert (entry["message"], entry["subsystem"], entry["payload"]) == ("started", "reader", {"seed": 7})
        assert await artifact(door, job["job_id"]) == ("reports/summary.txt", b"all read\n")
