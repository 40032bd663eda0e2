"""What `make demo` runs, from the start of a server to what to try next."""

import subprocess
import sys
from pathlib import Path


def test_the_demo_shows_the_whole_and_ends_well(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "jobledger.cli", "demo", "--data-dir", str(tmp_path / "data")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for told in (
        "queued -> running",
        "running -> completed",
        "packages.csv",
        "chart.svg",
        "signature: Ed25519",
        "running -> cancelling",
        "cancelling -> cancelled",
        "GET /gateway/jobs: 1 live",
        "/docs",
    ):
        assert told in done.stdout
