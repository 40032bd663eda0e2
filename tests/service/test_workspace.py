"""The directories of a job, what its process finds in them, and its environment."""

import errno
import hashlib
import json
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from jobledger.v1.job_pb2 import INPUT_TYPE_FILE, INPUT_TYPE_REFERENCE, Job, JobInput, JobLimits, JobSpec
from jobledger_server.core.paths import allowed_path
from jobledger_server.core.ports import Launch, Origin
from jobledger_server.core.specs import resolve
from jobledger_server.core.times import duration
from jobledger_server.service import workspace
from jobledger_server.service.workspace import DEFAULT_LOG_BYTES, Workspaces

JOB_ID = "job_01kdyzqz8800000000000000000"
SERVER = {"PATH": "/bin", "HOME": "/home/op", "LANG": "C.UTF-8", "JOBLEDGER_TOKEN": "secret", "AWS_SECRET": "secret"}


@pytest.fixture
def workspaces(tmp_path: Path) -> Workspaces:
    return Workspaces(data_dir=tmp_path / "data", roots=(tmp_path,))


def a_job(spec: JobSpec, roots: list[Path] | None = None) -> Job:
    return Job(job_id=JOB_ID, run_id=JOB_ID.replace("job", "run"), spec=resolve(spec, roots=roots or []))


def test_a_job_has_its_own_directories_that_others_can_not_enter(workspaces: Workspaces) -> None:
    launch = workspaces.prepare(a_job(JobSpec(command=["true"])), 1, SERVER)
    for name in ("input", "output", "temp"):
        assert stat.S_IMODE((launch.job_dir / name).stat().st_mode) == 0o700
    assert launch.job_dir == workspaces.job_dir(JOB_ID)
    assert launch.working_dir == launch.job_dir
    assert not launch.log_dir.is_relative_to(launch.job_dir)


def test_a_job_gets_its_own_environment_and_little_of_the_servers(workspaces: Workspaces) -> None:
    job = a_job(JobSpec(command=["true"], env={"COLOUR": "red", "HOME": "/mine"}))
    launch = workspaces.prepare(job, 2, SERVER)
    job_dir = str(launch.job_dir)
    assert dict(launch.env) == {
        "PATH": "/bin",
        "HOME": "/mine",
        "LANG": "C.UTF-8",
        "COLOUR": "red",
        "JOBLEDGER_JOB_ID": JOB_ID,
        "JOBLEDGER_RUN_ID": job.run_id,
        "JOBLEDGER_ATTEMPT": "2",
        "JOBLEDGER_JOB_DIR": job_dir,
        "JOBLEDGER_OUTPUT_DIR": f"{job_dir}/output",
        "JOBLEDGER_JOB_CONFIG": f"{job_dir}/config.json",
        "JOBLEDGER_CONTROL": f"{job_dir}/control",
        "JOBLEDGER_CHECKPOINT": f"{job_dir}/checkpoint.json",
    }


def test_the_config_is_a_json_file(workspaces: Workspaces) -> None:
    spec = JobSpec(command=["true"])
    spec.config.update({"b": [1, None, "é"], "a": {"deep": True}})
    launch = workspaces.prepare(a_job(spec), 1, SERVER)
    assert json.loads(Path(launch.env["JOBLEDGER_JOB_CONFIG"]).read_text()) == {
        "b": [1, None, "é"],
        "a": {"deep": True},
    }


def test_without_config_the_file_holds_an_empty_object(workspaces: Workspaces) -> None:
    launch = workspaces.prepare(a_job(JobSpec(command=["true"])), 1, SERVER)
    assert json.loads(Path(launch.env["JOBLEDGER_JOB_CONFIG"]).read_text()) == {}


def test_a_launch_says_what_the_specification_says(workspaces: Workspaces, tmp_path: Path) -> None:
    spec = JobSpec(
        command=["cat", "-"],
        stdin="hello",
        working_dir=str(tmp_path),
        timeout=duration(1.5),
        grace_period=duration(0),
        limits=JobLimits(log_bytes=70_000),
    )
    launch = workspaces.prepare(a_job(spec, [tmp_path]), 1, SERVER)
    assert launch.argv == ["cat", "-"]
    assert (launch.stdin, launch.stdin_open) == (b"hello", False)
    assert (launch.timeout_seconds, launch.grace_seconds, launch.log_bytes) == (1.5, 0, 70_000)
    assert launch.working_dir == tmp_path


def test_stdin_open_is_no_text(workspaces: Workspaces) -> None:
    launch = workspaces.prepare(a_job(JobSpec(command=["cat"], stdin="open")), 1, SERVER)
    assert (launch.stdin, launch.stdin_open) == (b"", True)
    assert (launch.timeout_seconds, launch.log_bytes) == (None, DEFAULT_LOG_BYTES)


def made_ready(workspaces: Workspaces, job: Job, attempt: int = 1) -> tuple[Launch, Origin | None]:
    launch = workspaces.prepare(job, attempt, SERVER)
    return launch, workspaces.take_origin(job, attempt, launch)


def test_input_files_are_copied_and_nothing_of_their_hashes_lies_where_the_job_writes(
    workspaces: Workspaces, tmp_path: Path
) -> None:
    source = tmp_path / "data.csv"
    source.write_text("1,2\n")
    inputs = [
        JobInput(type=INPUT_TYPE_FILE, file_path=str(source)),
        JobInput(type=INPUT_TYPE_REFERENCE, reference="s3://bucket/key"),
    ]
    launch, origin = made_ready(workspaces, a_job(JobSpec(command=["true"], inputs=inputs), [tmp_path]))
    assert (launch.job_dir / "input" / "data.csv").read_text() == "1,2\n"
    assert [path.name for path in (launch.job_dir / "input").iterdir()] == ["data.csv"]
    assert origin == Origin(attempt=1, inputs={str(source): hashlib.sha256(b"1,2\n").hexdigest()})
    assert not list(launch.log_dir.iterdir())


def test_a_job_of_which_nothing_is_to_be_noted_costs_no_note(workspaces: Workspaces) -> None:
    assert made_ready(workspaces, a_job(JobSpec(command=["true"])))[1] is None


def test_the_tools_that_a_job_names_are_the_files_that_its_own_path_finds(
    workspaces: Workspaces, tmp_path: Path
) -> None:
    tools, hidden = tmp_path / "tools", workspaces.data_dir / "tools"
    for directory in (tools, hidden):
        directory.mkdir(parents=True)
        for name in ("compiler-1.2", "mine"):
            (directory / name).write_text("#!/bin/sh\n")
            (directory / name).chmod(0o755)
    (hidden / "secret").write_text("secret")
    (hidden / "secret").chmod(0o700)
    (tools / "cc").symlink_to("compiler-1.2")
    os.mkfifo(tools / "pipe", 0o755)
    spec = JobSpec(
        command=["true"], env={"PATH": f"relative:{tools}:{hidden}"}, tools=["cc", "mine", "secret", "pipe", "none"]
    )
    _, origin = made_ready(workspaces, a_job(spec), 2)
    digest = hashlib.sha256(b"#!/bin/sh\n").hexdigest()
    assert origin == Origin(
        attempt=2,
        source_pins={
            "tool:cc": f"sha256:{digest} {tools.resolve()}/compiler-1.2",
            "tool:mine": f"sha256:{digest} {tools.resolve()}/mine",
            "tool:secret": "not found",
            "tool:pipe": f"unknown (File too large) {tools.resolve()}/pipe",
            "tool:none": "not found",
        },
    )


@pytest.mark.timeout(10)
@pytest.mark.parametrize("kind", ["gone", "directory", "fifo"])
def test_an_input_that_can_not_be_copied_is_named(workspaces: Workspaces, tmp_path: Path, kind: str) -> None:
    source = tmp_path / "data.csv"
    if kind == "directory":
        source.mkdir()
    elif kind == "fifo":
        os.mkfifo(source)
    spec = JobSpec(command=["true"], inputs=[JobInput(type=INPUT_TYPE_FILE, file_path=str(source))])
    with pytest.raises(OSError, match=r"data\.csv"):
        made_ready(workspaces, a_job(spec, [tmp_path]))


def test_making_the_directories_again_changes_nothing(workspaces: Workspaces) -> None:
    first = workspaces.prepare(a_job(JobSpec(command=["true"])), 1, SERVER)
    (first.job_dir / "output" / "kept").write_text("of attempt 1")
    assert workspaces.prepare(a_job(JobSpec(command=["true"])), 1, SERVER) == first
    assert (first.job_dir / "output" / "kept").read_text() == "of attempt 1"


def test_the_copy_of_the_receipt_is_read_only_and_never_written_through_a_link(
    workspaces: Workspaces, tmp_path: Path
) -> None:
    launch = workspaces.prepare(a_job(JobSpec(command=["true"])), 1, SERVER)
    (tmp_path / "victim").write_text("kept")
    (launch.job_dir / "receipt.json").symlink_to(tmp_path / "victim")
    workspaces.write_receipt(JOB_ID, b"{}")
    workspaces.write_receipt(JOB_ID, b'{"a":1}')
    receipt = launch.job_dir / "receipt.json"
    assert receipt.read_bytes() == b'{"a":1}'
    assert not receipt.is_symlink()
    assert stat.S_IMODE(receipt.stat().st_mode) == 0o400
    assert (tmp_path / "victim").read_text() == "kept"


def test_removing_a_job_leaves_others_and_what_it_linked_to(workspaces: Workspaces, tmp_path: Path) -> None:
    launch = workspaces.prepare(a_job(JobSpec(command=["true"])), 1, SERVER)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").touch()
    (launch.job_dir / "output" / "link").symlink_to(tmp_path / "elsewhere")
    other = workspaces.job_dir("job_other")
    other.mkdir()
    workspaces.remove(JOB_ID)
    workspaces.remove(JOB_ID)
    assert not launch.job_dir.exists()
    assert not launch.log_dir.exists()
    assert other.exists()
    assert (tmp_path / "elsewhere" / "file").exists()


def test_what_an_earlier_attempt_left_is_never_written_through(workspaces: Workspaces, tmp_path: Path) -> None:
    """A job may put links where the next attempt's files go."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    source = tmp_path / "data.csv"
    source.write_text("a,b")
    spec = JobSpec(command=["true"], inputs=[JobInput(type=INPUT_TYPE_FILE, file_path=str(source))])
    job = a_job(spec, [tmp_path])
    job_dir = workspaces.job_dir(job.job_id)
    made_ready(workspaces, job)
    for link in (job_dir / "config.json", job_dir / "input" / "data.csv"):
        link.unlink()
        link.symlink_to(victim)
    (job_dir / "output").rmdir()
    (job_dir / "output").symlink_to(tmp_path)
    made_ready(workspaces, job, 2)
    assert victim.read_text() == "precious"
    assert (job_dir / "input" / "data.csv").read_text() == "a,b"
    assert not (job_dir / "output").is_symlink()


def test_an_input_that_was_swapped_for_a_link_is_refused(workspaces: Workspaces, tmp_path: Path) -> None:
    source = tmp_path / "data.csv"
    source.write_text("a,b")
    spec = JobSpec(command=["true"], inputs=[JobInput(type=INPUT_TYPE_FILE, file_path=str(source))])
    job = a_job(spec, [tmp_path])
    source.unlink()
    source.symlink_to("/etc/passwd")
    with pytest.raises(PermissionError, match="leaves the allowed roots"):
        made_ready(workspaces, job)


def test_half_a_copy_leaves_its_room_to_others(
    workspaces: Workspaces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start that a full disk has no room for is tried for minutes: meanwhile the disk must not stay full by it."""

    def fill_the_disk(_: int, copy: BinaryIO) -> str:
        copy.write(b"a,b")
        raise OSError(errno.ENOSPC, "No space left on device")

    source = tmp_path / "data.csv"
    source.write_text("a,b,c\n")
    spec = JobSpec(command=["true"], inputs=[JobInput(type=INPUT_TYPE_FILE, file_path=str(source))])
    monkeypatch.setattr(workspace, "_copy", fill_the_disk)
    with pytest.raises(OSError, match="No space"):
        made_ready(workspaces, a_job(spec, [tmp_path]))
    assert not list((workspaces.job_dir(JOB_ID) / "input").iterdir())


def test_a_link_that_comes_between_look_and_copy_is_not_followed(
    workspaces: Workspaces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, secret = tmp_path / "place" / "token", tmp_path / "data" / "token"
    for path, text in ((source, "own"), (secret, "secret")):
        path.parent.mkdir()
        path.write_text(text)
    spec = JobSpec(command=["true"], inputs=[JobInput(type=INPUT_TYPE_FILE, file_path=str(source))])
    job = a_job(spec, [tmp_path])

    def look_and_swap(*arguments: Any, **options: Any) -> Path:
        real = allowed_path(*arguments, **options)
        source.parent.rename(tmp_path / "moved")
        source.parent.symlink_to(secret.parent)
        return real

    monkeypatch.setattr(workspace, "allowed_path", look_and_swap)
    with pytest.raises(PermissionError, match=f"{source.parent} was replaced by a link"):
        made_ready(workspaces, job)
    assert not list((workspaces.job_dir(JOB_ID) / "input").iterdir())


def test_what_lies_in_the_data_directory_by_the_time_of_the_start_is_refused(
    workspaces: Workspaces, tmp_path: Path
) -> None:
    source = tmp_path / "place"
    source.mkdir()
    (source / "token").write_text("own")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "token").write_text("secret")
    file = JobInput(type=INPUT_TYPE_FILE, file_path=str(source / "token"))
    specs = [JobSpec(command=["true"], inputs=[file]), JobSpec(command=["true"], working_dir=str(source))]
    jobs = [a_job(spec, [tmp_path]) for spec in specs]
    source.rename(tmp_path / "moved")
    source.symlink_to(tmp_path / "data")
    for job in jobs:
        with pytest.raises(PermissionError, match="lies in the server's data directory"):
            made_ready(workspaces, job)
