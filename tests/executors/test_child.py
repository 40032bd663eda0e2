"""How the first process of a job is started: by libc where nothing stands against it, else by fork and exec."""

import os
import resource
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from jobledger_server.executors.local.child import Command, CommandError, become_command, start_child
from jobledger_server.executors.local.isolation import NO_ISOLATION
from jobledger_server.executors.local.limits import ResourceLimit

# One that changes nothing, but that libc can't set.
A_LIMIT = ResourceLimit(resource.RLIMIT_NOFILE, *resource.getrlimit(resource.RLIMIT_NOFILE))
# The next two are libc's own; it has what it spawns ignore them.
STANDARD_SIGNALS = (1 << 31) - 1


@pytest.fixture(params=["spawned", "forked", "no sessions in libc"])
def limits(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Sequence[ResourceLimit]:
    """Limits with which a command is started in one of the ways that there are."""
    if request.param == "no sessions in libc":
        monkeypatch.setattr(os, "posix_spawn", no_sessions)
    return [A_LIMIT] if request.param == "forked" else []


def no_sessions(*_: object, **__: object) -> int:
    raise NotImplementedError


def run(argv: Sequence[str], env: Mapping[str, str], limits: Sequence[ResourceLimit], place: Path) -> str:
    """What it says."""
    read_end, write_end = os.pipe()
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    command = Command(argv, env, str(place), nothing, write_end, nothing, limits, NO_ISOLATION, str(place))
    before = Path.cwd()
    try:
        pid = start_child(command, become_command)
    finally:
        os.chdir(before)
        os.close(write_end)
        os.close(nothing)
    with os.fdopen(read_end) as pipe:
        said = pipe.read()
    assert os.waitpid(pid, 0)[1] == 0
    return said


def program(path: Path, mode: int = 0o700) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\necho {path.parent.name}\n")
    path.chmod(mode)


def test_it_leads_a_session_in_its_directory_with_default_signals(
    limits: Sequence[ResourceLimit], tmp_path: Path
) -> None:
    says = "cut -d' ' -f1,6 /proc/$$/stat; pwd; grep SigIgn /proc/$$/status"
    said = run(["/bin/sh", "-c", says], {}, limits, tmp_path)
    identity, place, ignored = said.splitlines()
    pid, session = identity.split()
    assert pid == session
    assert place == str(tmp_path)
    assert int(ignored.split()[1], 16) & STANDARD_SIGNALS == 0


def test_a_program_is_looked_for_in_the_commands_own_path(limits: Sequence[ResourceLimit], tmp_path: Path) -> None:
    """Past what can't be run, and never in the working directory unless that is named."""
    program(tmp_path / "tool")
    program(tmp_path / "first" / "tool", mode=0o600)
    program(tmp_path / "second" / "tool")
    path = f"{tmp_path}/none:{tmp_path}/first:{tmp_path}/second"
    assert run(["tool"], {"PATH": path}, limits, tmp_path) == "second\n"
    assert run(["tool"], {"PATH": "none:second"}, limits, tmp_path) == "second\n"
    with pytest.raises(CommandError, match="permission denied"):
        run(["tool"], {"PATH": f"{tmp_path}/first:{tmp_path}/none"}, limits, tmp_path)
    with pytest.raises(CommandError, match="No such file: 'tool'"):
        run(["tool"], {"PATH": f"{tmp_path}/none"}, limits, tmp_path)
    assert run(["./tool"], {}, limits, tmp_path) == f"{tmp_path.name}\n"


def test_a_directory_that_is_not_there_is_named(limits: Sequence[ResourceLimit], tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="Can't enter the working directory"):
        run(["/bin/true"], {}, limits, tmp_path / "gone")
