"""A command gets its secrets, at every level of isolation; they are written nowhere else."""

import json
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
from executors.harness import Lab, eventually
from jobledger_server.core.ports import EndReason, Outcome, Running
from jobledger_server.executors.local.executor import LocalExecutor
from jobledger_server.executors.local.isolation import LEVELS
from jobledger_server.executors.local.secret_names import withheld
from jobledger_server.joblog.redaction import Secrets

TOKEN = "hunter2-and-more"
SAYS = """
import os, sys, time
token = os.environ["TOKEN"]
print("out", token); print("err", token, file=sys.stderr)
sys.stdout.write(token[:5]); sys.stdout.flush(); sys.stdout.write(token[5:] + "\\n"); sys.stdout.flush()
with open(os.environ["JOBLEDGER_CONTROL"], "w") as control:
    for told in ('"log", "level": "info", "message"', '"progress", "phase"', '"artifact", "path"'):
        print('{"type": %s: "%s"}' % (told, token), file=control)
    print('{"type": "checkpoint", "data": {"token": "%s"}}' % token, file=control)
print(len(token), sum(map(ord, token))); sys.stdout.flush()
sys.stdin.read()
sys.stdout.write("no newline " + token)
"""


@pytest.fixture(params=LEVELS)
def isolated(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lab]:
    lab = Lab(tmp_path, level=request.param)
    yield lab
    lab.clear()


def files_with(text: str, root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


async def test_a_command_has_its_secret_and_no_file_has(isolated: Lab) -> None:
    launch = isolated.python(SAYS, secret_env={"TOKEN": TOKEN}, stdin_open=True)
    checkpoint = launch.job_dir / "checkpoint.json"
    async with isolated.executor() as executor:
        assert isinstance(await executor.start(launch), Running)
        await isolated.says(launch, f"{len(TOKEN)} {sum(map(ord, TOKEN))}")
        await eventually(checkpoint.exists)
        assert json.loads(checkpoint.read_text()) == {"token": "***"}
        assert files_with(TOKEN, isolated.root) == []
        await executor.send_input(launch.job_id, 1, b"", close=True)
        outcome = await isolated.outcome(launch)
    assert (outcome.exit_code, outcome.declared, outcome.ignored_messages) == (0, ("***",), 0)
    assert [report.phase for report in isolated.recorder.reports] == ["***"]
    hidden = sorted(message for message in isolated.messages(launch) if "***" in message)
    assert hidden == ["***", "***", "err ***", "no newline ***", "out ***"]
    assert files_with(TOKEN, isolated.root) == []


async def test_a_secret_has_precedence_over_what_a_job_would_inherit(lab: Lab, executor: LocalExecutor) -> None:
    launch = lab.launch("/bin/sh", "-c", 'echo "${#PATH}"', secret_env={"PATH": "/no/such/place"})
    assert (await lab.run(executor, launch)).exit_code == 0
    assert lab.messages(launch) == ["14"]


async def test_what_is_said_of_a_start_that_fails_holds_no_secret(lab: Lab, executor: LocalExecutor) -> None:
    outcome = await executor.start(lab.launch("no-such-program", secret_env={"PATH": "/no/such/place"}))
    assert isinstance(outcome, Outcome)
    assert outcome.reason == EndReason.SPAWN_FAILED
    assert outcome.message == "No such file: 'no-such-program' (looked in PATH: ***)"


async def test_secrets_of_any_size_and_bytes_reach_the_command(lab: Lab, executor: LocalExecutor) -> None:
    """More than a pipe holds at once, and no text."""
    large = {f"LARGE_{number}": chr(ord("a") + number) * 100_000 for number in range(10)}
    odd = b"\xff\xfe\nkey".decode("utf-8", "surrogateescape")
    code = "import os; print(sum(len(v) for n, v in os.environ.items() if n[:5] == 'LARGE'), os.environb[b'ODD'].hex())"
    launch = lab.python(code, secret_env={**large, "ODD": odd})
    assert (await lab.run(executor, launch)).exit_code == 0
    assert lab.messages(launch) == ["1000000 fffe0a6b6579"]


async def test_an_attempt_that_is_found_again_still_hides_its_secret(lab: Lab) -> None:
    """Its supervisor knows it; the server that finds it does not."""
    launch = lab.python(SAYS, secret_env={"TOKEN": TOKEN}, stdin_open=True)
    async with lab.executor() as executor:
        await executor.start(launch)
    async with lab.executor() as executor:
        assert isinstance(await executor.find(launch.job_id, 1), Running)
        await executor.send_input(launch.job_id, 1, b"", close=True)
        assert (await lab.outcome(launch)).exit_code == 0
    assert lab.messages(launch)[-1] == "no newline ***"
    assert files_with(TOKEN, lab.root) == []


async def test_a_job_that_was_given_secrets_leaves_no_core_file(lab: Lab, executor: LocalExecutor) -> None:
    """The memory of the job, of its supervisor and of the nursery has them."""
    # The supervisor is the parent.
    shown = "ulimit -c; ulimit -Hc; sed -n 's/^Max core file size *//p' /proc/$PPID/limits"
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    plain, secret = lab.shell(shown), lab.shell(shown, secret_env={"TOKEN": TOKEN})
    for launch in (plain, secret):
        assert (await lab.run(executor, launch)).exit_code == 0
    *limits, supervisor = lab.content(plain).decode().splitlines()
    assert limits == [_blocks(soft), _blocks(hard)]
    assert supervisor.startswith("0 ")
    assert lab.content(secret).decode().splitlines() == ["0", "0", supervisor]


def _blocks(size: int) -> str:
    return "unlimited" if size == resource.RLIM_INFINITY else str(size // 512)


def test_files_with_a_secret_in_their_path_are_told_by_number(tmp_path: Path) -> None:
    """Also where a directory is between; what is in a directory that is told of is left out."""
    names = ("hunter2", "plain/of-hunter2.txt", "half/way.txt", "hunter2-d/inside", "plain/a")
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    expected = {(tmp_path / name).stat().st_ino for name in (*names[:3], "hunter2-d")}
    assert set(withheld(tmp_path, Secrets(["hunter2", "half/way"]))) == expected
    assert withheld(tmp_path, Secrets([])) == []
    assert withheld(tmp_path / "gone", Secrets(["hunter2"])) == []
