"""A command that can't be run is refused where that can be known; else the job fails, and says why to both doors."""

import json
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.doors import Door, Refused
from support.running import RunningServer, start

# Linux takes arguments and environment up to a quarter of the stack, and no string of them beyond 128 KiB.
SMALL_STACK, LONGEST_STRING = 2 << 20, 131_071
LONG = "x" * 100_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """One on a system that takes fewer arguments than is usual: half a megabyte."""
    running = start(tmp_path_factory.mktemp("jobledger") / "data", "--max-running", "4")
    _, most = resource.prlimit(running.process.pid, resource.RLIMIT_STACK)
    resource.prlimit(running.process.pid, resource.RLIMIT_STACK, (SMALL_STACK, most))
    yield running
    running.stop()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Things that are no programs."""
    (tmp_path / "directory").mkdir()
    (tmp_path / "data").write_text("not meant to be run\n")
    (tmp_path / "data").chmod(0o600)
    for name, content in (("orphan", "#!/no/such/interpreter\n"), ("nonsense", "\x7fnonsense")):
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(0o700)
    return tmp_path


async def fails(door: Door, *command: str, **spec: Any) -> str:
    """Why the job that was accepted could not be started; its receipt has the same reason."""
    job_id = (await door.create(*command, **spec))["job_id"]
    job = await door.ended(job_id)
    assert (job["state"], job["error_code"]) == ("failed", "E_JOB_SPAWN_FAILED")
    receipt = json.loads((await door.receipt(job_id))[0])
    assert receipt["receipt_status"] == "partial"
    assert receipt["summary"]["error_code"] == "E_JOB_SPAWN_FAILED"
    assert receipt["summary"]["error_message"] == job["error_message"]
    return str(job["error_message"])


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("nowhere", "No such file"),
        ("data/nowhere", "No such file"),
        ("directory", "it is a directory"),
        ("data", "permission denied; is it executable?"),
        ("orphan", "the interpreter that its first line names does not exist"),
        ("nonsense", "not a program; a script begins with a line such as #!/bin/sh"),
    ],
)
async def test_what_is_no_program_fails_the_job_with_the_reason(
    door: Door, place: Path, program: str, reason: str
) -> None:
    told = await fails(door, str(place / program))
    assert str(place / program) in told
    assert reason in told


async def test_a_program_that_is_in_no_directory_of_the_path_says_where_it_was_sought(door: Door) -> None:
    assert "looked in PATH: /nowhere" in await fails(door, "true", env={"PATH": "/nowhere"})


@pytest.mark.parametrize(
    ("directory", "reason"), [("nowhere", "No such file or directory"), ("data", "Not a directory")]
)
async def test_a_working_directory_that_is_none_fails_the_job_with_the_reason(
    door: Door, place: Path, directory: str, reason: str
) -> None:
    told = await fails(door, "true", working_dir=str(place / directory))
    assert told == f"Can't enter the working directory {str(place / directory)!r}: {reason}"


@pytest.mark.parametrize(
    ("directory", "code"),
    [("/etc", "E_PATH_NOT_ALLOWED"), ("{place}/../etc", "E_PATH_TRAVERSAL"), ("{place}/link", "E_PATH_TRAVERSAL")],
)
async def test_a_working_directory_outside_the_roots_is_refused(
    door: Door, place: Path, directory: str, code: str
) -> None:
    (place / "link").symlink_to("/etc")
    assert (await refusal(door, "true", working_dir=directory.format(place=place))).error_code == code


async def refusal(door: Door, *command: str, **spec: Any) -> Refused:
    """The answer to a job that is not accepted; none is made."""
    before = (await door.call("ListJobs"))["total"]
    with pytest.raises(Refused) as refused:
        await door.create(*command, **spec)
    assert (await door.call("ListJobs"))["total"] == before
    return refused.value


@pytest.mark.parametrize(
    ("command", "env", "field"),
    [
        ([], {}, "spec.command"),
        ([""], {}, "spec.command"),
        (["true", "a\0b"], {}, "spec.command[1]"),
        (["true"], {"A": "a\0b"}, "spec.env[A]"),
        (["true"], {"A\0B": "a"}, "spec.env[A\0B]"),
        (["true", *["a"] * 5000], {}, "spec.command"),
        (["true"], {f"A{number}": "" for number in range(1025)}, "spec.env"),
        (["true", "x" * 200_000], {}, "spec.command[1]"),
        (["true", "x" * (LONGEST_STRING + 1)], {}, "spec.command[1]"),
        (["true"], {"A": "x" * (LONGEST_STRING - len("A=") + 1)}, "spec.env[A]"),
    ],
    ids=lambda value: str(value)[:30],
)
async def test_what_no_process_could_be_given_is_refused_by_the_name_of_its_field(
    door: Door, command: list[str], env: dict[str, str], field: str
) -> None:
    refused = await refusal(door, *command, env=env)
    assert refused.error_code == "E_VALIDATION"
    assert refused.status == {"grpc": "INVALID_ARGUMENT", "rest": 422}[door.name]
    assert [violation["field"] for violation in refused.details["fields"]] == [field]


@pytest.mark.parametrize(
    ("command", "env"),
    [
        (["true", *["a"] * 1_000_000], {}),
        (["true", *[LONG] * 16], {}),
        (["true"], {f"A{number}": LONG for number in range(100)}),
    ],
    ids=["a million arguments", "1.6 MB of arguments", "10 MB of environment"],
)
async def test_a_request_that_is_larger_than_any_command_is_refused(
    door: Door, command: list[str], env: dict[str, str]
) -> None:
    """REST at the size of its body, gRPC at that of the command or of its message."""
    refused = await refusal(door, *command, env=env)
    told: dict[str, list[tuple[str, int | str]]]
    told = {"rest": [("E_TOO_LARGE", 413)], "grpc": [("E_VALIDATION", "INVALID_ARGUMENT"), ("", "RESOURCE_EXHAUSTED")]}
    assert (refused.error_code, refused.status) in told[door.name]


async def test_the_longest_strings_that_a_process_takes_reach_it(door: Door) -> None:
    script = f"[ ${{#1}} = {LONGEST_STRING} ] && [ ${{#A}} = {LONGEST_STRING - len('A=')} ]"
    env = {"A": "x" * (LONGEST_STRING - len("A="))}
    job = await door.create("sh", "-c", script, "sh", "x" * LONGEST_STRING, env=env)
    assert (await door.ended(job["job_id"]))["state"] == "completed"


async def test_what_is_too_long_for_this_system_alone_fails_the_job_with_what_to_do(door: Door) -> None:
    """Its arguments would do on most machines."""
    told = await fails(door, "true", *[LONG] * 9)
    assert told.startswith("Can't run 'true': arguments and environment are too long for this system")
    assert "standard input" in told


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"labels": {f"l{number}": "x" for number in range(10_000)}}, "spec.labels"),
        ({"labels": {"l" * 10_000: "x"}}, "spec.labels[llll"),
        ({"artifacts": ["*"] * 10_000}, "spec.artifacts"),
        ({"limits": {"memory_bytes": -1}}, "spec.limits.memory_bytes"),
        ({"max_attempts": 2**31 - 1}, "spec.max_attempts"),
    ],
    ids=["labels", "one label", "globs", "a limit below nothing", "attempts"],
)
async def test_a_specification_of_absurd_size_is_refused_by_the_name_of_its_field(
    door: Door, spec: dict[str, Any], field: str
) -> None:
    refused = await refusal(door, "true", **spec)
    assert (refused.error_code, refused.status) == (
        "E_VALIDATION",
        {"grpc": "INVALID_ARGUMENT", "rest": 422}[door.name],
    )
    assert [violation["field"][: len(field)] for violation in refused.details["fields"]] == [field]
