"""What a job can and can't reach at each level of isolation, tried by jobs; and where a level can't be had."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from executors.harness import Lab, eventually, runs
from faults.serving import not_possible
from jobledger_server.core.ports import EndReason, Outcome, Running
from jobledger_server.core.ports.executor import Limits
from jobledger_server.executors.local import landlock, seccomp, self_check
from jobledger_server.executors.local.bwrap import Answers
from jobledger_server.executors.local.executor import LocalExecutor
from jobledger_server.executors.local.isolation import BWRAP, LANDLOCK, LEVELS, NONE, IsolationError
from jobledger_server.executors.local.process_tree import processes
from jobledger_server.executors.local.self_check import isolation_at
from support.isolation import fake_bwrap, isolation_for

ISOLATING = [level for level in LEVELS if level != NONE]
MEGABYTE = 1024 * 1024


@pytest.fixture(params=ISOLATING)
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lab]:
    lab = Lab(tmp_path, level=request.param)
    yield lab
    lab.clear()


@pytest.fixture
async def executor(lab: Lab) -> AsyncIterator[LocalExecutor]:
    async with lab.executor() as executor:
        yield executor


@pytest.fixture
def secret(lab: Lab) -> Path:
    """A file of the server."""
    path = lab.root / "data" / "keys" / "signing.key"
    path.parent.mkdir(parents=True)
    path.write_text("secret")
    return path


# --- what a job can't do --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "attempt",
    [
        "cat {secret}",
        "ls {data}/keys",
        "ls {data} | grep keys",
        "ls {data}/jobs | grep {other.parent.name}",
        "cat {other}",
        "ln {secret} mine && cat mine",
        "ln -s {secret} mine && cat mine",
        "cat /proc/{server}/root{secret}",
        "cp /proc/{server}/environ mine",
        "echo x > {secret}",
        "echo x >> {secret}",
        "truncate -s 0 {secret}",
        "rm {secret}",
        "mv {data}/keys {data}/lost",
        "echo x > {data}/new",
        "rm {control}/started.json || echo x > {control}/exit.json || cat {control}/spec.json",
        "echo x > {outside}/new",
        "rm {outside}/old",
        "ln {outside}/old mine && echo x > mine",
        "mv {outside}/old mine",
        "mkfifo {data}/pipe",
        "mknod disk b 254 0",
        "chroot / true",
        "mount -t tmpfs none {data}/keys",
        "kill -KILL {server}",
        "{python} -c 'import resource; resource.prlimit({server}, resource.RLIMIT_NOFILE, (9, 9))'",
        "head -c 0 /proc/$PPID/mem",
        # To open them does no harm yet.
        "true >> /proc/sys/kernel/core_pattern",
        "true >> /proc/sysrq-trigger",
        "true >> /proc/irq/default_smp_affinity",
    ],
)
async def test_what_is_not_the_jobs_is_out_of_its_reach(
    lab: Lab, executor: LocalExecutor, secret: Path, attempt: str
) -> None:
    if "kill" in attempt and lab.level == LANDLOCK and landlock.abi() < landlock.SCOPES_ABI:
        not_possible("a Landlock that guards signals", f"version {landlock.abi()} does not")
    outside = lab.root / "outside"
    outside.mkdir()
    (outside / "old").write_text("old")
    other = lab.launch("true").job_dir / "output.txt"
    other.write_text("secret")
    server = subprocess.Popen(["sleep", "1000"], env={"KEY": "secret"})
    names = {"secret": secret, "data": lab.root / "data", "other": other, "outside": outside, "server": server.pid}
    names["control"] = lab.root / "data" / "control" / "job_it.1"
    launch = lab.shell(f"( {attempt.format(**names, python=sys.executable)} ) 2>&1; test $? != 0", job_id="job_it")
    try:
        outcome = await lab.run(executor, launch)
        said = lab.content(launch).decode()
        assert (outcome.exit_code, said.count("secret\n")) == (0, 0), said
        assert (secret.read_text(), other.read_text(), (outside / "old").read_text()) == ("secret", "secret", "old")
        assert sorted(it.name for it in outside.iterdir()) == ["old"]
        assert server.poll() is None
    finally:
        server.kill()
        server.wait()


async def test_a_job_has_no_capabilities_and_gains_no_privileges(lab: Lab, executor: LocalExecutor) -> None:
    """Not even one of root's."""
    launch = lab.launch("grep", "-E", "^(CapPrm|CapEff|NoNewPrivs)", "/proc/self/status")
    await lab.run(executor, launch)
    values = [line.split()[1] for line in lab.messages(launch)]
    assert values == ["0" * 16, "0" * 16, "1"]


async def test_a_working_directory_among_the_servers_files_is_refused(
    lab: Lab, executor: LocalExecutor, secret: Path
) -> None:
    outcome = await executor.start(lab.launch("true", working_dir=secret.parent))
    assert isinstance(outcome, Outcome)
    assert outcome.reason is EndReason.SPAWN_FAILED
    assert f"the working directory {secret.parent} lies in the server's data directory" in outcome.message


async def test_a_working_directory_around_the_servers_files_shows_none_of_them(
    lab: Lab, executor: LocalExecutor, secret: Path
) -> None:
    """Where that can't be, the job isn't started."""
    launch = lab.shell(f"echo x > made; cat {secret}; echo x > {secret}", working_dir=lab.root)
    outcome = await lab.run(executor, launch)
    assert secret.read_text() == "secret"
    if lab.level == LANDLOCK:
        assert outcome.reason is EndReason.SPAWN_FAILED
        assert f"the working directory {lab.root} holds the server's data directory" in outcome.message
    else:
        assert (lab.root / "made").exists()
        assert lab.content(launch).count(b"secret\n") == 0


# --- what a job can do ----------------------------------------------------------------------------------------------


async def test_a_job_reads_the_machine_and_writes_to_its_own_places(lab: Lab, executor: LocalExecutor) -> None:
    work = lab.root / "work"
    work.mkdir()
    launch = lab.shell(
        """
        set -e
        grep -q root /etc/passwd; command -v grep; uname; test -n "$(cat /proc/uptime)"
        echo x > "$JOBLEDGER_JOB_DIR/own"; mv "$JOBLEDGER_JOB_DIR/own" "$JOBLEDGER_JOB_DIR/temp/moved"
        echo x > here; ln here again; rm here; mkfifo pipe; ln -s again link; cat link; truncate -s 1 again
        mktemp; echo x > /dev/null; echo x > /dev/stderr; head -c 1 /dev/urandom > random
        """,
        working_dir=work,
    )
    outcome = await lab.run(executor, launch)
    assert (outcome.reason, outcome.exit_code) == (EndReason.EXITED, 0), lab.content(launch)
    assert sorted(it.name for it in work.iterdir()) == ["again", "link", "pipe", "random"]
    temp = {it.name for it in (launch.job_dir / "temp").iterdir()}
    assert "moved" in temp
    assert any(name.startswith("tmp.") for name in temp), "TMPDIR is not the job's own"


async def test_a_job_may_lower_its_own_limits(lab: Lab, executor: LocalExecutor) -> None:
    """By setrlimit, as the library and the shell do it."""
    code = "import resource as r; r.setrlimit(r.RLIMIT_NOFILE, (9, 9)); print(r.prlimit(0, r.RLIMIT_NOFILE))"
    launch = lab.shell(f"ulimit -n 20; exec {sys.executable} -S -c '{code}'")
    outcome = await lab.run(executor, launch)
    assert (outcome.exit_code, lab.content(launch)) == (0, b"(9, 9)\n")


async def test_a_job_may_use_locks_and_shared_memory(lab: Lab, executor: LocalExecutor) -> None:
    code = (
        "import multiprocessing as m; q = m.Queue(); p = m.Process(target=q.put, args=(5,)); p.start(); print(q.get())"
    )
    launch = lab.launch(sys.executable, "-c", code)
    outcome = await lab.run(executor, launch)
    assert (outcome.exit_code, lab.content(launch)) == (0, b"5\n")


# --- what is told of it ---------------------------------------------------------------------------------------------


async def test_an_exit_code_and_a_signal_are_told_apart(lab: Lab, executor: LocalExecutor) -> None:
    """Though a shell would give both the same number."""
    code, number = 128 + signal.SIGKILL, signal.SIGKILL
    by_itself = await lab.run(executor, lab.shell(f"exit {code}"))
    killed = await lab.run(executor, lab.shell("kill -KILL $$"))
    assert (by_itself.exit_code, by_itself.signal) == (code, None)
    assert (killed.exit_code, killed.signal) == (None, number)


def test_the_end_of_a_quick_command_may_come_with_the_word_of_its_start() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b'{"failure": null}\n{"status": 256}\n')
        answers = Answers(ours)
        assert answers.next() == {"failure": None}
        assert answers.last() == {"status": 256}
        assert answers.last() is None


async def test_a_program_that_the_job_may_not_read_is_named_as_such(
    lab: Lab, executor: LocalExecutor, secret: Path
) -> None:
    secret.chmod(0o755)
    outcome = await executor.start(lab.launch(str(secret)))
    assert isinstance(outcome, Outcome)
    assert f"{secret} lies outside what isolation '{lab.level}' lets a job read" in outcome.message


async def test_the_level_of_the_start_is_told_whoever_tells_of_the_end(lab: Lab, executor: LocalExecutor) -> None:
    launch = lab.launch("cat", stdin_open=True)
    await executor.start(launch)
    async with Lab(lab.root, recorder=lab.recorder).executor() as successor:
        await successor.find(launch.job_id, 1)
        await successor.send_input(launch.job_id, 1, b"", close=True)
        assert (await lab.outcome(launch)).isolation == lab.level
        known = await successor.find(launch.job_id, 1)
    assert isinstance(known, Outcome)
    assert known.isolation == lab.level


async def test_an_attempt_of_before_there_was_isolation_had_none(lab: Lab, executor: LocalExecutor) -> None:
    launch = lab.shell("exit 0")
    await lab.run(executor, launch)
    path = lab.root / "data" / "control" / f"{launch.job_id}.1" / "spec.json"
    spec = json.loads(path.read_text())
    del spec["isolation"]
    path.write_text(json.dumps(spec))
    known = await executor.find(launch.job_id, 1)
    assert isinstance(known, Outcome)
    assert known.isolation == NONE


# --- what holds as without it ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "limits", "reason"),
    [
        ("while True: pass", Limits(cpu_seconds=0.5), EndReason.CPU_LIMIT),
        (
            "import time; held = bytearray(128 << 20); time.sleep(1000)",
            Limits(memory_bytes=64 * MEGABYTE),
            EndReason.OUT_OF_MEMORY,
        ),
        ("open('big', 'wb').write(bytes(100_000))", Limits(file_size_bytes=70_000), EndReason.DISK_LIMIT),
        (
            "import time; open('temp/big', 'wb').write(bytes(3_000_000)); time.sleep(1000)",
            Limits(disk_bytes=2_000_000),
            EndReason.DISK_LIMIT,
        ),
    ],
)
async def test_limits_hold(lab: Lab, executor: LocalExecutor, code: str, limits: Limits, reason: EndReason) -> None:
    code = f"import signal; signal.signal(signal.SIGXFSZ, signal.SIG_DFL)\n{code}"
    assert (await lab.run(executor, lab.python(code, limits=limits))).reason is reason


async def test_a_killed_supervisor_takes_its_job_with_it(lab: Lab, executor: LocalExecutor) -> None:
    launch = lab.shell("setsid sleep 1000 & echo ready; sleep 1000")
    started = await executor.start(launch)
    assert isinstance(started, Running)
    await lab.says(launch, "ready")
    (shim,) = [stat.parent for stat in processes() if stat.pid == started.pid]
    tree = members(started.pid)
    os.kill(shim, signal.SIGKILL)
    assert (await lab.outcome(launch)).reason is EndReason.LOST
    assert len(tree) >= 3
    await eventually(lambda: not any(runs(pid) for pid in tree))


def members(root: int) -> set[int]:
    """A process and all that descend from it."""
    found, before = {root}, 0
    while len(found) > before:
        before = len(found)
        found |= {stat.pid for stat in processes() if stat.parent in found}
    return found


# --- where it can't be had ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "complaint"),
    [
        ('while [ "$1" != -- ]; do shift; done; shift; exec "$@"', "a job could read the server's data directory"),
        ("echo 'bwrap: No permissions to create new namespace' >&2; exit 1", "No permissions to create new namespace"),
        ("exit 1", "bwrap ended without a word"),
    ],
)
def test_a_bwrap_that_does_not_isolate_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, complaint: str
) -> None:
    fake_bwrap(tmp_path, script)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(IsolationError) as caught:
        isolation_at(BWRAP, tmp_path / "data")
    assert complaint in str(caught.value)
    assert "Choose isolation landlock or none" in str(caught.value)


def test_a_bwrap_that_is_missing_is_named_with_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(IsolationError, match=r"there is no program bwrap in PATH.* Debian package bubblewrap"):
        isolation_at(BWRAP, tmp_path)


@pytest.mark.parametrize(("version", "had"), [(0, "the kernel has none"), (2, "the kernel has version 2 of it")])
def test_a_kernel_whose_landlock_is_too_old_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int, had: str
) -> None:
    """Before version 3 a job could cut off the server's files."""
    monkeypatch.setattr(landlock, "abi", lambda: version)
    with pytest.raises(IsolationError, match=rf"{had}, and version 3 is needed.* Linux 6\.2"):
        isolation_at(LANDLOCK, tmp_path)


@pytest.mark.parametrize("level", ISOLATING)
def test_elsewhere_than_on_linux_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, level: str) -> None:
    monkeypatch.setattr(self_check, "LINUX", False)
    with pytest.raises(IsolationError, match="this is not Linux"):
        isolation_at(level, tmp_path)


def test_a_machine_without_a_filter_of_calls_is_told_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Landlock holds without it; that is no reason not to start."""
    isolation_for(LANDLOCK, tmp_path)
    monkeypatch.setattr(seccomp, "KNOWN", {})
    isolation_at(LANDLOCK, tmp_path / "data")
    assert "jobs can change the limits of other processes: there is no filter for" in caplog.text


def test_the_trial_leaves_nothing_behind(lab: Lab) -> None:
    data_dir = lab.root / "data"
    lab.executor()
    isolation_at(lab.level, data_dir)
    assert [it.name for it in lab.root.rglob("*")] == ["data", "run"]
