"""Control groups: where they may be, what is in them, and that nothing fails where there are none."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from executors.harness import Lab, eventually
from jobledger_server.core.ports import EndReason
from jobledger_server.core.ports.executor import Limits
from jobledger_server.executors.local import cgroup, limits
from jobledger_server.executors.local.control_dir import ControlDir
from jobledger_server.executors.local.executor import LocalExecutor
from jobledger_server.executors.local.limits import LimitWatch
from jobledger_server.executors.local.record import Record

HYBRID = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
39 31 0:36 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw
"""
CONTAINER = "41 31 0:38 /docker/abc /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw,nsdelegate\n"
FORKS = """
import os, sys
from pathlib import Path
from jobledger_server.executors.local import cgroup
if not (pid := cgroup.fork(Path(sys.argv[1]))):
    os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


@pytest.fixture
def group(tmp_path: Path) -> Path:
    """A new one."""
    group = cgroup.make("tests")
    if group is None:
        pytest.skip("This user can't make control groups (cgroup v2) here")
    assert Record(tmp_path / "started.json", group).names_group
    assert cgroup.recorded(ControlDir(tmp_path)) == group
    return group


@pytest.mark.parametrize(
    ("membership", "mounts", "place"),
    [
        ("8:pids:/\n0::/\n", HYBRID, "/sys/fs/cgroup/unified"),
        ("0::/user.slice/app.scope\n", HYBRID, "/sys/fs/cgroup/unified/user.slice/app.scope"),
        ("0::/docker/abc/inner\n", CONTAINER, "/sys/fs/cgroup/inner"),
        ("0::/docker/other\n", CONTAINER, None),
        ("0::/../other\n", HYBRID, None),
        ("8:pids:/\n", HYBRID, None),
        ("0::/\n", HYBRID.splitlines()[0], None),
    ],
)
def test_control_groups_are_made_where_this_process_is_in_one(membership: str, mounts: str, place: str | None) -> None:
    assert cgroup.find_place(membership, mounts) == (Path(place) if place else None)


@pytest.mark.parametrize("text", ["", "/sys/fs/cgroup/jobledger-job_a.1.00", "/sys/fs/cgroup\n"])
def test_a_record_that_was_cut_short_names_no_control_group(text: str, tmp_path: Path) -> None:
    control = ControlDir(tmp_path)
    control.cgroup.write_text(text)
    assert cgroup.recorded(control) is None
    control.started.write_text(json.dumps({"cgroup": text})[: len(text) + 8])
    assert cgroup.recorded(control) is None


def test_what_protocol_1_wrote_down_is_found(tmp_path: Path) -> None:
    control = ControlDir(tmp_path)
    control.cgroup.write_text("/sys/fs/cgroup/jobledger-job_a.1.00\n")
    assert cgroup.recorded(control) == Path("/sys/fs/cgroup/jobledger-job_a.1.00")


def test_a_control_group_that_could_not_be_written_down_is_told_of(tmp_path: Path) -> None:
    assert not Record(tmp_path / "started.json", Path("/" + "x" * 1000)).names_group


def test_a_job_is_held_to_a_number_of_processes_where_they_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory stands in for a control group whose parent has the controller."""
    monkeypatch.setattr(cgroup, "place", lambda: tmp_path)
    (tmp_path / "cgroup.subtree_control").write_text("cpu\n")
    cgroup.count_processes()
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+pids"
    make_directory = os.mkdir

    def make_group(path: Path) -> None:
        make_directory(path)
        (path / "pids.max").write_text("max\n")

    monkeypatch.setattr(os, "mkdir", make_group)
    assert (group := cgroup.make("job_a.1"))
    assert (group / "pids.max").read_text().startswith(str(cgroup.MOST_PROCESSES))


def test_a_killed_control_group_has_nothing_alive_in_it_or_below(group: Path) -> None:
    inner = group / "made by the job"
    inner.mkdir()
    sleepers = [subprocess.Popen(["sleep", "600"]) for _ in range(2)]
    for place, sleeper in zip((group, inner), sleepers, strict=True):
        (place / "cgroup.procs").write_text(str(sleeper.pid))
    assert cgroup.populated(group)
    cgroup.remove(group)
    assert group.exists()
    cgroup.kill(group)
    assert [sleeper.wait(10) for sleeper in sleepers] == [-9, -9]
    assert not cgroup.populated(group)
    cgroup.remove(group)
    assert not group.exists()


def test_a_fork_needs_no_control_group(tmp_path: Path) -> None:
    """It may have been removed meanwhile, or the system call may be forbidden."""
    command = [sys.executable, "-c", FORKS, str(tmp_path / "gone")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "7\n"


async def test_a_job_begins_in_a_control_group_that_is_gone_when_it_has_ended(
    lab: Lab, executor: LocalExecutor, group: Path
) -> None:
    cgroup.remove(group)
    launch = lab.shell("cat /proc/self/cgroup")
    assert (await lab.run(executor, launch)).exit_code == 0
    (line,) = (line for line in lab.content(launch).decode().splitlines() if line.startswith("0::"))
    assert f"/{cgroup.PREFIX}{launch.job_id}.1." in line
    await eventually(lambda: not list(group.parent.glob(f"{cgroup.PREFIX}{launch.job_id}.*")))


async def test_the_nursery_removes_what_a_crash_left_behind(lab: Lab, group: Path) -> None:
    os.utime(group, (0, 0))
    async with lab.executor() as executor:
        await lab.run(executor, lab.shell("true"))
    assert not group.exists()


async def test_children_that_nobody_waits_for_use_the_jobs_cpu_time(
    group: Path, lab: Lab, executor: LocalExecutor
) -> None:
    """The kernel reaps them for a parent that ignores SIGCHLD, and adds their time to nobody's."""
    cgroup.remove(group)
    code = """
import os, signal, time
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for _ in range(60):
    if not os.fork():
        while time.process_time() < 0.1: pass
        os._exit(0)
    try: os.wait()
    except ChildProcessError: pass
"""
    outcome = await lab.run(executor, lab.python(code, limits=Limits(cpu_seconds=0.5)))
    assert outcome.reason is EndReason.CPU_LIMIT


def test_memory_that_is_no_processs_own_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a file in memory that nothing maps; but not what was read from the disk, nor the supervisor's."""
    limit, own = 2**50, 12345
    monkeypatch.setattr(limits, "_own_memory", lambda: own)
    for shared, is_over in ((limit // 2 + own, False), (limit // 2 + own + 1, True)):
        (tmp_path / "memory.stat").write_text(f"anon {limit // 2}\nfile {limit * 2}\nshmem {shared}\n")
        assert bool(LimitWatch({"memory_bytes": limit}, tmp_path, tmp_path).look(0.0)) == is_over


def test_a_group_that_does_not_count_uses_nothing(tmp_path: Path) -> None:
    assert (cgroup.cpu_seconds(tmp_path), cgroup.memory_bytes(tmp_path)) == (0, 0)
