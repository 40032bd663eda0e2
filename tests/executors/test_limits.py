"""What a job may use, and what its supervisor makes of it."""

import os
import resource
import signal
import subprocess
import sys
import threading
from concurrent.futures import Future
from pathlib import Path

import pytest
from executors.harness import Lab, eventually, runs
from jobledger_server.core.ports import EndReason, Outcome
from jobledger_server.core.ports.executor import Limits
from jobledger_server.executors.local import limits as limits_module
from jobledger_server.executors.local.control_dir import ControlDir
from jobledger_server.executors.local.executor import LocalExecutor
from jobledger_server.executors.local.limits import CPU_GRACE, CPU_SLACK, LimitWatch, resource_limits
from jobledger_server.executors.local.process_tree import all_descendants, descendants

MEGABYTE = 1024 * 1024


def pid_in(path: Path) -> int:
    return int(path.read_text() or 0) if path.exists() else 0


# --- memory ---------------------------------------------------------------------------------------------------------

HOG = "import time; held = bytearray({size}); time.sleep(1000)"


async def test_a_job_that_uses_too_much_memory_is_killed_at_once(lab: Lab, executor: LocalExecutor) -> None:
    """Without SIGTERM: a grace period could cost the machine all its memory."""
    code = f"import signal; signal.signal(15, lambda *_: print('asked', flush=True)); {HOG.format(size=128 * MEGABYTE)}"
    outcome = await lab.run(executor, lab.python(code, limits=Limits(memory_bytes=64 * MEGABYTE)))
    assert (outcome.reason, outcome.signal) == (EndReason.OUT_OF_MEMORY, signal.SIGKILL)
    assert outcome.message == "Used more than 67108864 bytes of memory (limits.memory_bytes)"


async def test_memory_of_all_processes_counts_and_none_outlives_the_limit(lab: Lab, executor: LocalExecutor) -> None:
    """None of them is over the limit alone; one has left its parent, its session and its group."""
    hold = HOG.format(size=50 * MEGABYTE)
    script = f'setsid "{sys.executable}" -S -c "{hold}" & echo $! > one; "{sys.executable}" -S -c "{hold}"'
    launch = lab.shell(script, limits=Limits(memory_bytes=80 * MEGABYTE))
    outcome = await lab.run(executor, launch)
    assert outcome.reason is EndReason.OUT_OF_MEMORY
    assert not runs(pid_in(launch.job_dir / "one"))


async def test_memory_that_processes_share_counts_once(lab: Lab, executor: LocalExecutor) -> None:
    launch = lab.python(
        f"import os, time; held = b'x' * {40 * MEGABYTE}; children = [os.fork() for _ in range(2)]\n"
        "if 0 in children: time.sleep(1000)\n"
        "time.sleep(0.8)",
        limits=Limits(memory_bytes=80 * MEGABYTE),
    )
    outcome = await lab.run(executor, launch)
    assert (outcome.reason, outcome.exit_code) == (EndReason.EXITED, 0)


# --- CPU time -------------------------------------------------------------------------------------------------------


async def test_a_process_that_uses_too_much_cpu_time_ends_by_the_limit(lab: Lab, executor: LocalExecutor) -> None:
    outcome = await lab.run(executor, lab.python("while True: pass", limits=Limits(cpu_seconds=0.5)))
    assert outcome.reason is EndReason.CPU_LIMIT
    assert outcome.message == "Used more than 0.5 s of CPU time (limits.cpu_time)"


async def test_cpu_time_of_all_processes_counts_those_that_have_ended_too(lab: Lab, executor: LocalExecutor) -> None:
    """None of them comes near the limit, so that no signal of the kernel's tells."""
    burn = "import time\nwhile time.process_time() < 0.2: pass"
    launch = lab.shell(f'while :; do "{sys.executable}" -S -c "$BURN"; done', limits=Limits(cpu_seconds=1))
    launch.env["BURN"] = burn  # type: ignore[index]
    outcome = await lab.run(executor, launch)
    assert outcome.reason is EndReason.CPU_LIMIT


@pytest.mark.parametrize("end", ["os.kill(os.getpid(), signal.SIGXCPU)", "sys.exit(1)"])
async def test_a_failure_after_more_cpu_time_than_allowed_is_by_the_limit(
    lab: Lab, executor: LocalExecutor, end: str
) -> None:
    """Between two looks: the kernel ended the job, or a child of it, and it failed on that account."""
    burn = "import os, signal, sys, time\nwhile time.process_time() < 0.3: pass\n"
    outcome = await lab.run(executor, lab.python(burn + end, limits=Limits(cpu_seconds=0.2)))
    assert outcome.reason is EndReason.CPU_LIMIT


def test_a_success_stands_whatever_it_cost(tmp_path: Path) -> None:
    """What was done between two looks is done."""
    watch = LimitWatch({"cpu_seconds": -1.0}, tmp_path)
    assert watch.cause_of(0) is None
    assert watch.cause_of(signal.SIGKILL) is not None


# --- files ----------------------------------------------------------------------------------------------------------


async def test_a_job_that_fills_its_directory_ends_by_the_limit(lab: Lab, executor: LocalExecutor) -> None:
    """Asked first: it may save what it has."""
    launch = lab.shell(
        "trap 'echo asked; exit 3' TERM; mkdir -p a/b; head -c 3000000 /dev/zero > a/b/c; while :; do sleep 0.05; done",
        limits=Limits(disk_bytes=2_000_000),
    )
    outcome = await lab.run(executor, launch)
    assert (outcome.reason, outcome.exit_code) == (EndReason.DISK_LIMIT, 3)
    assert outcome.message == "Its directory takes more than 2000000 bytes of disk (limits.disk_bytes)"
    assert lab.content(launch).endswith(b"asked\n")


@pytest.mark.parametrize("script", ["exec head -c 100000 /dev/zero > big", "head -c 100000 /dev/zero > big"])
async def test_a_job_that_writes_too_large_a_file_ends_by_the_limit(
    lab: Lab, executor: LocalExecutor, script: str
) -> None:
    """By the signal itself, or by what a shell makes of it."""
    launch = lab.shell(script, limits=Limits(file_size_bytes=70_000))
    outcome = await lab.run(executor, launch)
    assert outcome.reason is EndReason.DISK_LIMIT
    assert outcome.message == "Wrote a file of more than 70000 bytes (limits.file_size_bytes)"
    assert (launch.job_dir / "big").stat().st_size == 70_000


async def test_open_files_are_limited_for_each_process(lab: Lab, executor: LocalExecutor) -> None:
    launch = lab.shell("ulimit -n; ulimit -Hn", limits=Limits(open_files=20))
    await lab.run(executor, launch)
    assert lab.content(launch) == b"20\n20\n"


# --- what is no breach ----------------------------------------------------------------------------------------------


GENEROUS = Limits(cpu_seconds=60, memory_bytes=1 << 30, open_files=100, file_size_bytes=1 << 20, disk_bytes=1 << 20)


@pytest.mark.parametrize(("limits", "code"), [(GENEROUS, 0), (GENEROUS, 4), (Limits(), 128 + signal.SIGXFSZ)])
async def test_a_job_that_keeps_to_its_limits_ends_as_it_likes(
    lab: Lab, executor: LocalExecutor, limits: Limits, code: int
) -> None:
    outcome = await lab.run(executor, lab.shell(f"echo x > file; exit {code}", limits=limits))
    assert (outcome.reason, outcome.exit_code, outcome.message) == (EndReason.EXITED, code, "")


async def test_a_cancel_that_came_first_stays_a_cancel(lab: Lab, executor: LocalExecutor) -> None:
    """The limit still holds: it ends the grace period."""
    launch = lab.python(
        f"import signal, time\nsignal.signal(15, lambda *_: globals().update(held=bytearray({128 * MEGABYTE})))\n"
        "print('ready', flush=True)\nwhile True: time.sleep(1000)",
        limits=Limits(memory_bytes=64 * MEGABYTE),
    )
    await executor.start(launch)
    await lab.says(launch, "ready")
    await executor.cancel(launch.job_id, 1, grace_seconds=300)
    outcome = await lab.outcome(launch)
    assert (outcome.reason, outcome.signal, outcome.message) == (EndReason.CANCELLED, signal.SIGKILL, "")


async def test_limits_hold_while_no_server_runs(lab: Lab) -> None:
    launch = lab.python(HOG.format(size=128 * MEGABYTE), limits=Limits(memory_bytes=64 * MEGABYTE))
    async with lab.executor() as first:
        await first.start(launch)
    control = ControlDir(lab.root / "data" / "control" / f"{launch.job_id}.1")
    await eventually(control.read_end)
    async with lab.executor() as second:
        found = await second.find(launch.job_id, 1)
        # As long as its supervisor has not let go of it, it counts as running.
        outcome = found if isinstance(found, Outcome) else await lab.outcome(launch)
    assert outcome.reason is EndReason.OUT_OF_MEMORY


# --- the pieces -----------------------------------------------------------------------------------------------------


def start_family() -> subprocess.Popen[bytes]:
    """A process and its child, in a group of their own."""
    family = subprocess.Popen(["sh", "-c", "sleep 1000 & echo; wait"], stdout=subprocess.PIPE, start_new_session=True)
    assert family.stdout
    with family.stdout:
        family.stdout.readline()
    return family


def test_a_tree_is_found_by_asking_its_members_as_it_is_among_all_processes() -> None:
    """Each thread has the children that it has started: those of all threads count."""
    leave = threading.Event()

    def start_and_stay(answer: Future[subprocess.Popen[bytes]]) -> None:
        answer.set_result(start_family())
        leave.wait()

    of_thread: Future[subprocess.Popen[bytes]] = Future()
    thread = threading.Thread(target=start_and_stay, args=[of_thread])
    thread.start()
    families = [start_family(), of_thread.result()]
    try:
        groups = {family.pid for family in families}
        asked, scanned = ({it.pid for it in find() if it.group in groups} for find in (descendants, all_descendants))
        assert asked == scanned
        assert len(asked) == 4
    finally:
        for family in families:
            os.killpg(family.pid, signal.SIGKILL)
            family.wait()
        leave.set()
        thread.join()


def test_what_this_process_is_held_to_is_never_widened() -> None:
    _, highest = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert resource_limits({"open_files": 1 << 40}) == [(resource.RLIMIT_NOFILE, highest, highest)]


def test_the_kernel_ends_what_our_look_at_the_cpu_time_missed() -> None:
    soft = 2 + CPU_SLACK
    assert resource_limits({"cpu_seconds": 1.2}) == [(resource.RLIMIT_CPU, soft, soft + CPU_GRACE)]


def test_nothing_is_looked_at_where_nothing_is_limited(tmp_path: Path) -> None:
    assert resource_limits({}) == []
    assert LimitWatch({"open_files": 20, "file_size_bytes": 1}, tmp_path).due == float("inf")


def finds_too_much(directory: Path, limit: int) -> bool:
    """Whether one walk through a directory finds more than that."""
    watch = LimitWatch({"disk_bytes": limit}, directory)
    return watch.look(0.0) is not None


def test_links_are_not_followed_and_a_file_of_two_names_counts_once(tmp_path: Path) -> None:
    job_dir, elsewhere = tmp_path / "job", tmp_path / "elsewhere"
    for directory in (job_dir, elsewhere):
        directory.mkdir()
        (directory / "file").write_bytes(b"x" * 1_000_000)
    (job_dir / "link").symlink_to(elsewhere)
    (job_dir / "loop").symlink_to(job_dir)
    (job_dir / "again").hardlink_to(job_dir / "file")
    assert not finds_too_much(job_dir, 1_500_000)
    assert finds_too_much(job_dir, 900_000)


def test_holes_in_files_take_no_disk(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 30)
    assert not finds_too_much(tmp_path, 1_000_000)


def test_a_large_directory_is_walked_a_slice_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the slices the output of the job gets its turn."""
    monkeypatch.setattr(limits_module, "WALK_SLICE", 2)
    for number in range(5):
        (tmp_path / str(number)).write_bytes(b"x" * 100_000)
    watch = LimitWatch({"disk_bytes": 450_000}, tmp_path)
    assert [bool(watch.look(float("1e18"))) for _ in range(3)] == [False, False, True]


def test_a_directory_that_is_gone_takes_no_disk(tmp_path: Path) -> None:
    assert not finds_too_much(tmp_path / "gone", 0)


def test_memory_that_can_not_be_told_apart_counts_in_full(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As for a program of another user's, of which /proc tells no more than its size."""
    child = subprocess.Popen(
        [sys.executable, "-c", "import sys; print(flush=True); sys.stdin.read()"], stdin=-1, stdout=-1
    )
    assert child.stdin
    assert child.stdout
    child.stdout.readline()
    (tmp_path / str(child.pid)).mkdir()
    real = next(it for it in descendants() if it.pid == child.pid)
    monkeypatch.setattr(limits_module, "PROC", tmp_path)
    watch = LimitWatch({"memory_bytes": real.resident_pages * os.sysconf("SC_PAGE_SIZE") - 1}, tmp_path)
    assert watch.look(0.0) is not None
    child.communicate()
