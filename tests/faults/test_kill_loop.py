"""The server may die at any instruction.

No acknowledged job is lost, none runs twice, none is left running, every log is complete, every terminal job has its
receipt.
"""

import os
from pathlib import Path

import pytest
from faults.killing import KillLoop

SECONDS = float(os.environ.get("JOBLEDGER_KILL_SECONDS", "40"))
KILLS = int(os.environ.get("JOBLEDGER_KILLS", "1"))
JOBS = int(os.environ.get("JOBLEDGER_KILL_JOBS", "1"))
SEED = int(os.environ.get("JOBLEDGER_SEED", "0")) or int.from_bytes(os.urandom(4))


@pytest.mark.timeout(SECONDS + 10 * KILLS + 300)
async def test_killing_the_server_loses_nothing(tmp_path: Path) -> None:
    print(f"seed {SEED}")
    loop = KillLoop(data_dir=tmp_path / "data", seed=SEED, seconds=SECONDS, kills=KILLS, jobs=JOBS)
    tally = await loop.run()
    print(
        f"{len(tally.expected)} jobs, {tally.server_kills} kills of the server,"
        f" {tally.shim_kills} of a supervisor, {tally.seconds:.0f} s"
    )
    assert await loop.violations() == []
    assert tally.server_kills >= KILLS
    assert len(tally.expected) >= JOBS
