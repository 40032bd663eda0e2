"""What a specification becomes, and what it must not say."""

from pathlib import Path

import pytest
from jobledger.v1.job_pb2 import (
    INPUT_TYPE_FILE,
    INPUT_TYPE_REFERENCE,
    JOB_PRIORITY_HIGH,
    JOB_PRIORITY_NORMAL,
    JobInput,
    JobSpec,
)
from jobledger.v1.job_service_pb2 import CreateJobRequest
from jobledger_server.core.errors import Reason, ServiceError
from jobledger_server.core.specs import MAX_ARGUMENT_BYTES, MAX_STRING_BYTES, grace_seconds, request_hash, resolve
from jobledger_server.core.times import duration, seconds


def violation(spec: JobSpec, roots: list[Path] | None = None) -> str:
    """The field that breaks a rule."""
    with pytest.raises(ServiceError) as caught:
        resolve(spec, roots=roots or [])
    assert caught.value.reason == Reason.ERROR_REASON_VALIDATION
    [field] = caught.value.fields
    return field.field


def a_file(path: Path) -> JobInput:
    path.parent.mkdir(exist_ok=True)
    path.touch()
    return JobInput(type=INPUT_TYPE_FILE, file_path=str(path))


def test_what_is_left_open_gets_its_default() -> None:
    spec = resolve(JobSpec(command=["true"]), roots=[])
    assert (spec.job_type, spec.workspace_id, spec.queue) == ("command", "default", "default")
    assert (spec.priority, spec.max_attempts) == (JOB_PRIORITY_NORMAL, 1)
    assert (grace_seconds(spec), seconds(spec.retry_backoff)) == (10, 1)
    assert not spec.HasField("timeout")
    assert not spec.HasField("queue_timeout")


def test_what_is_set_stays_also_where_it_is_nothing() -> None:
    given = JobSpec(command=["true"], grace_period=duration(0), priority=JOB_PRIORITY_HIGH, retry_backoff=duration(0))
    spec = resolve(given, roots=[])
    assert (grace_seconds(spec), seconds(spec.retry_backoff), spec.priority) == (0, 0, JOB_PRIORITY_HIGH)


def test_the_callers_specification_is_left_alone() -> None:
    given = JobSpec(command=["true"])
    resolve(given, roots=[], base=JobSpec(command=["false"], env={"A": "1"}))
    assert given == JobSpec(command=["true"])


def test_a_rerun_repeats_what_it_does_not_replace() -> None:
    base = resolve(
        JobSpec(command=["sleep", "1"], env={"A": "1", "B": "2"}, max_attempts=3, labels={"team": "red"}), roots=[]
    )
    spec = resolve(JobSpec(rerun_of="job_x", env={"A": "9"}), roots=[], base=base)
    assert list(spec.command) == ["sleep", "1"]
    assert dict(spec.env) == {"A": "9"}, "a field is replaced as a whole, never mixed"
    assert dict(spec.labels) == {"team": "red"}
    assert (spec.max_attempts, spec.rerun_of) == (3, "job_x")


def test_a_rerun_is_checked_like_any_other(tmp_path: Path) -> None:
    """The roots may have changed since."""
    base = JobSpec(command=["true"], working_dir=str(tmp_path))
    resolve(JobSpec(), roots=[tmp_path], base=base)
    with pytest.raises(ServiceError):
        resolve(JobSpec(), roots=[], base=base)


@pytest.mark.parametrize("command", [[], [""], ["", "x"]])
def test_a_command_names_a_program(command: list[str]) -> None:
    assert violation(JobSpec(command=command)) == "spec.command"


def test_an_unknown_job_type_is_named() -> None:
    assert violation(JobSpec(job_type="train", command=["true"])) == "spec.job_type"


def test_nul_is_refused_where_a_process_could_not_take_it() -> None:
    assert violation(JobSpec(command=["echo", "a\0b"])) == "spec.command[1]"
    assert violation(JobSpec(command=["true"], env={"A": "x\0"})) == "spec.env[A]"


def test_the_engines_own_variables_are_not_the_callers() -> None:
    assert violation(JobSpec(command=["true"], env={"JOBLEDGER_JOB_ID": "x"})) == "spec.env[JOBLEDGER_JOB_ID]"


def test_a_glob_that_names_nothing_is_told_before_a_job_ends_without_its_artifacts() -> None:
    assert violation(JobSpec(command=["true"], artifacts=["*", "../x"])) == "spec.artifacts[1]"
    assert violation(JobSpec(command=["true"], artifacts=["/etc/*"])) == "spec.artifacts[0]"
    base = JobSpec(command=["true"], artifacts=["./x"])
    with pytest.raises(ServiceError):
        resolve(JobSpec(), roots=[], base=base)


def test_command_and_environment_have_a_size_together() -> None:
    """Both are counted in bytes, with the NUL behind each string and the `=` of each variable."""
    full = ["a" * 99_999] * 14
    most = MAX_ARGUMENT_BYTES - 14 * 100_000
    resolve(JobSpec(command=[*full, "a" * (most - 1)]), roots=[])
    assert violation(JobSpec(command=[*full, "a" * most])) == "spec.command"
    assert violation(JobSpec(command=[*full, "é" * (most // 2)])) == "spec.command"
    assert violation(JobSpec(command=full, env={"A": "a" * (most - 2)})) == "spec.command"


def test_a_string_is_no_longer_than_a_process_takes() -> None:
    """Counted in bytes; that of a variable has its name too."""
    resolve(JobSpec(command=["x", "a" * MAX_STRING_BYTES], env={"A": "a" * (MAX_STRING_BYTES - 2)}), roots=[])
    assert violation(JobSpec(command=["x", "a" * (MAX_STRING_BYTES + 1)])) == "spec.command[1]"
    assert violation(JobSpec(command=["x", "é" * (MAX_STRING_BYTES // 2 + 1)])) == "spec.command[1]"
    assert violation(JobSpec(command=["x"], env={"A": "a" * (MAX_STRING_BYTES - 1)})) == "spec.env[A]"


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_config_holds_what_json_can(number: float) -> None:
    """A receipt could not be made of anything else, and the job would never end."""
    spec = JobSpec(command=["true"])
    spec.config.update({"a": {"b": [1, {"c": 2.5}]}})
    resolve(spec, roots=[])
    spec.config.update({"a": {"b": [1, {"c": number}]}})
    assert violation(spec) == "spec.config"


def test_a_working_directory_lies_within_the_roots(tmp_path: Path) -> None:
    resolve(JobSpec(command=["true"], working_dir=str(tmp_path)), roots=[tmp_path])
    with pytest.raises(ServiceError) as caught:
        resolve(JobSpec(command=["true"], working_dir="/etc"), roots=[tmp_path])
    assert caught.value.reason == Reason.ERROR_REASON_PATH_NOT_ALLOWED


def test_input_files_lie_within_the_roots_and_references_anywhere(tmp_path: Path) -> None:
    reference = JobInput(type=INPUT_TYPE_REFERENCE, reference="/etc/passwd")
    resolve(JobSpec(command=["true"], inputs=[reference, a_file(tmp_path / "a")]), roots=[tmp_path])
    outside = JobInput(type=INPUT_TYPE_FILE, file_path="/etc/passwd")
    with pytest.raises(ServiceError, match=r"spec\.inputs\[1\]\.file_path") as caught:
        resolve(JobSpec(command=["true"], inputs=[reference, outside]), roots=[tmp_path])
    assert caught.value.reason == Reason.ERROR_REASON_PATH_NOT_ALLOWED


def test_two_inputs_of_one_name_are_refused(tmp_path: Path) -> None:
    same = [a_file(tmp_path / "one" / "x.csv"), a_file(tmp_path / "two" / "x.csv")]
    assert violation(JobSpec(command=["true"], inputs=same), [tmp_path]) == "spec.inputs[1].file_path"


def test_an_input_goes_by_the_name_that_the_caller_gave_it(tmp_path: Path) -> None:
    """It is copied under that name, whatever a link makes of it: two links of one name would overwrite each other."""
    for place in ("one", "two"):
        a_file(tmp_path / place / f"{place}.csv")
        (tmp_path / place / "x.csv").symlink_to(tmp_path / place / f"{place}.csv")
    links = [JobInput(type=INPUT_TYPE_FILE, file_path=str(tmp_path / place / "x.csv")) for place in ("one", "two")]
    assert violation(JobSpec(command=["true"], inputs=links), [tmp_path]) == "spec.inputs[1].file_path"


def test_the_hash_of_a_request_tells_specifications_apart() -> None:
    one = CreateJobRequest(spec=JobSpec(command=["true"], env={"A": "1", "B": "2"}), idempotency_key="x")
    same = CreateJobRequest(spec=JobSpec(command=["true"], env={"B": "2", "A": "1"}), idempotency_key="y")
    other = CreateJobRequest(spec=JobSpec(command=["true"], env={"A": "1"}), idempotency_key="x")
    assert request_hash(one) == request_hash(same)
    assert request_hash(one) != request_hash(other)


def test_nothing_of_the_servers_own_is_an_input_or_a_working_directory(tmp_path: Path) -> None:
    """Though it lies within a root, as it does by default."""
    data = tmp_path / "data"
    token = JobSpec(command=["true"], inputs=[a_file(data / "token")])
    for spec in (token, JobSpec(command=["true"], working_dir=str(data / "jobs"))):
        resolve(spec, roots=[tmp_path])
        with pytest.raises(ServiceError, match="lies in the server's data directory") as caught:
            resolve(spec, roots=[tmp_path], hidden=data)
        assert caught.value.reason == Reason.ERROR_REASON_PATH_NOT_ALLOWED
