"""A command that can't be run is refused where that can be known; else the job fails, and says why to both doors."""

import asyncio
import json
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.struct_pb2 import ListValue, Struct, Value
from jobledger.v1 import job_service_pb2 as pb
from jobledger.v1.job_pb2 import JobSpec
from jobledger_server.api.grpc_server import MESSAGE_BYTES
from support.doors import Door, GrpcDoor, Refused
from support.doors import refused as what_it_says
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
    ("command", "env", "fields"),
    [
        (["true", *["a"] * 1_000_000], {}, ["spec.command"]),
        (["true", *[LONG] * 16], {}, ["spec.command"]),
        (["true"], {f"A{number}": LONG for number in range(100)}, None),
    ],
    ids=["a million arguments", "1.6 MB of arguments", "10 MB of environment"],
)
async def test_a_request_that_is_larger_than_any_command_is_refused(
    door: Door, command: list[str], env: dict[str, str], fields: list[str] | None
) -> None:
    """REST at the size of its body; gRPC at that of its message, or below it by the name of the field."""
    refused = await refusal(door, *command, env=env)
    if door.name == "rest":
        assert (refused.error_code, refused.status) == ("E_TOO_LARGE", 413)
    elif fields is None:
        assert (refused.status, "larger than max" in refused.message) == ("RESOURCE_EXHAUSTED", True)
    else:
        assert (refused.error_code, refused.status) == ("E_VALIDATION", "INVALID_ARGUMENT")
        assert [violation["field"] for violation in refused.details["fields"]] == fields


@pytest.mark.parametrize(
    ("compression", "with_token"),
    [(None, True), (None, False), (grpc.Compression.Gzip, False), (grpc.Compression.Deflate, True)],
    ids=["a caller", "a stranger", "a stranger's bomb", "a caller's bomb"],
)
async def test_a_message_over_the_limit_is_refused_also_where_it_is_so_once_inflated(
    server: RunningServer, compression: grpc.Compression | None, *, with_token: bool
) -> None:
    """32 MB of nothing are 32 KB when compressed: no more of them is inflated than may be."""
    message = bytes(32 * 1024 * 1024 if compression else MESSAGE_BYTES + 1)
    metadata = (("authorization", f"Bearer {server.token}"),) if with_token else ()
    before = await asyncio.to_thread(server.resident_megabytes, most=True)
    async with grpc.aio.insecure_channel(server.target) as channel:
        call: Any = channel.unary_unary("/jobledger.v1.JobService/CreateJob")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call(message, metadata=metadata, compression=compression)
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert await asyncio.to_thread(server.resident_megabytes, most=True) - before < 20


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"limits": {"memory_bytes": -(2**63)}}, "spec.limits.memory_bytes"),
        ({"limits": {"log_bytes": -1}}, "spec.limits.log_bytes"),
        ({"timeout": {"seconds": 2**63 - 1}}, "spec.timeout"),
        ({"config": {"a": [float("nan")]}}, "spec.config"),
        ({"config": {"a": float("inf")}}, "spec.config"),
    ],
    ids=["2^63", "below nothing", "for ever", "NaN", "infinite"],
)
async def test_numbers_that_are_none_are_refused_over_grpc_by_the_name_of_their_field(
    server: RunningServer, spec: dict[str, Any], field: str
) -> None:
    """What JSON has no way to say, or no place to hold: 2^63 itself is the least number by then."""
    async with grpc.aio.insecure_channel(server.target) as channel:
        door = GrpcDoor(channel, server.token)
        request = pb.CreateJobRequest(spec=JobSpec(command=["true"], **spec))
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await door.jobs.CreateJob(request, metadata=door.metadata)
    told = what_it_says(error.value)
    assert (told.error_code, told.status) == ("E_VALIDATION", "INVALID_ARGUMENT")
    assert [violation["field"] for violation in told.details["fields"]] == [field]


@pytest.mark.parametrize("depth", [200, 10_000])
async def test_a_message_that_is_nested_too_deeply_is_no_message(server: RunningServer, depth: int) -> None:
    """A configuration over gRPC: no stack overflows, and no fault is told."""
    value = b""
    for _ in range(depth):
        value = delimited(Value.LIST_VALUE_FIELD_NUMBER, delimited(ListValue.VALUES_FIELD_NUMBER, value))
    config = delimited(Struct.FIELDS_FIELD_NUMBER, delimited(1, b"a") + delimited(2, value))
    spec = JobSpec(command=["true"]).SerializeToString() + delimited(JobSpec.CONFIG_FIELD_NUMBER, config)
    async with grpc.aio.insecure_channel(server.target) as channel:
        call: Any = channel.unary_unary("/jobledger.v1.JobService/CreateJob")
        metadata = (("authorization", f"Bearer {server.token}"),)
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await call(delimited(pb.CreateJobRequest.SPEC_FIELD_NUMBER, spec), metadata=metadata)
    told = what_it_says(error.value)
    assert (told.error_code, told.status) == ("E_BAD_REQUEST", "INVALID_ARGUMENT")


def delimited(number: int, content: bytes) -> bytes:
    """A field of a message that holds these bytes."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    return bytes([value]) if value < 128 else bytes([value % 128 + 128]) + _varint(value // 128)


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
