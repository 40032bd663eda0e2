"""Whatever instruction of migrating, creating or finishing is the last one: a job is terminal if it has its receipt."""

import asyncio
import json
import os
import sys
from pathlib import Path

from faults.serving import broken_promises
from jobledger_server.core.times import SECOND
from jobledger_server.stores.sqlite import SqliteStore
from support.records import NOW, a_record

PROGRAM = Path(__file__).with_name("crash_points.py")
RUNS = int(os.environ.get("JOBLEDGER_CRASH_RUNS", "60"))
SEED = os.environ.get("JOBLEDGER_SEED", "0")


async def crashed(place: Path, seed: str) -> dict[Path, list[str]]:
    """What was acknowledged in each directory."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, str(PROGRAM), seed, str(RUNS), str(place)), stdout=asyncio.subprocess.PIPE, env=environment
    )
    output, _ = await program.communicate()
    assert program.returncode == 0
    runs = [json.loads(line) for line in output.splitlines()]
    return {Path(run["directory"]): run["acknowledged"] for run in runs}


async def test_a_store_that_dies_anywhere_keeps_what_it_answered_for_and_nothing_by_halves(tmp_path: Path) -> None:
    seed = SEED if SEED != "0" else str(int.from_bytes(os.urandom(4)))
    print(f"seed {seed}")
    seen = await crashed(tmp_path, seed)
    assert len(seen) == RUNS
    assert len({len(acknowledged) for acknowledged in seen.values()}) > 1, "every run died at the same point"
    for directory, acknowledged in seen.items():
        database = directory / "jobledger.db"
        async with SqliteStore(database) as store:
            for what, job_id in (line.split(":") for line in acknowledged):
                assert await store.get_job(job_id) is not None
                assert what == "created" or await store.receipt(job_id) is not None
            await store.create_job(a_record(created_at=NOW + SECOND), [])
        assert broken_promises(database) == [], directory
