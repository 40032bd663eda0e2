"""What a job of a declared type is, and what nobody gets into it who may create such jobs alone."""

from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict
from jobledger.v1.job_pb2 import INPUT_TYPE_FILE, INPUT_TYPE_REFERENCE, JobInput, JobLimits, JobSpec
from jobledger_server.core.errors import Reason, ServiceError
from jobledger_server.core.job_types import ALLOWABLE, CAPPED, FREE, JobType, JobTypes, merged
from jobledger_server.core.secret_references import AllowedSecrets
from jobledger_server.core.specs import resolve
from jobledger_server.core.structs import plain
from jobledger_server.core.times import duration, seconds
from jobledger_server.job_type_settings import job_types_of

DECLARED: dict[str, Any] = {
    "command": ["train", "--model={config.model}", "{config.epochs}"],
    "schema": {
        "type": "object",
        "required": ["model"],
        "additionalProperties": False,
        "properties": {
            "model": {"type": "string", "pattern": "^[a-z-]+$"},
            "epochs": {"type": "integer", "minimum": 1},
            "tuning": {"type": "object"},
            "file": {"type": "string", "format": "path"},
        },
    },
    "defaults": {
        "timeout": "1h",
        "env": {"MODE": "fast", "KEY": "secret:env:API_TOKEN"},
        "labels": {"team": "ml"},
        "config": {"epochs": 3, "tuning": {"rate": 0.5, "decay": 0.25}},
    },
    "allow": ["env.SEED", "env.MODE"],
}
SECRETS = AllowedSecrets.of(["API_TOKEN"])
# Each field of a specification, with a value; whoever adds a field has to say here whether callers may give it.
GIVEN: dict[str, Any] = {
    "job_type": "train",
    "command": ["sh", "-c", "id"],
    "env": {"LD_PRELOAD": "/tmp/evil.so"},
    "working_dir": "/tmp",
    "stdin": "open",
    "inputs": [JobInput(type=INPUT_TYPE_REFERENCE, reference="x")],
    "config": {"model": "b"},
    "artifacts": ["**"],
    "timeout": duration(60),
    "queue_timeout": duration(60),
    "grace_period": duration(1),
    "priority": 3,
    "max_attempts": 2,
    "retry_backoff": duration(1),
    "limits": JobLimits(memory_bytes=1 << 40),
    "labels": {"mine": "1"},
    "workspace_id": "red",
    "queue": "other",
    "rerun_of": "job_x",
    "tools": ["sh"],
}


def types(**changes: Any) -> JobTypes:
    return job_types_of({"train": {**DECLARED, **changes}})


def a_spec(config: dict[str, Any] | None = None, **fields: Any) -> JobSpec:
    spec = JobSpec(job_type="train", **fields)
    ParseDict({"model": "a", **(config or {})}, spec.config)
    return spec


def resolved(spec: JobSpec, base: JobSpec | None = None, job_types: JobTypes | None = None) -> JobSpec:
    return resolve(spec, roots=[Path("/srv")], secrets=SECRETS, base=base, job_types=job_types or types())


def violations(spec: JobSpec, base: JobSpec | None = None, job_types: JobTypes | None = None) -> list[str]:
    with pytest.raises(ServiceError) as caught:
        resolved(spec, base, job_types)
    assert caught.value.reason == Reason.ERROR_REASON_VALIDATION
    return [it.field for it in caught.value.fields]


def test_the_declaration_says_what_runs_and_config_what_with() -> None:
    spec = resolved(a_spec({"epochs": 7, "tuning": {"rate": 1}}))
    assert list(spec.command) == ["train", "--model=a", "7"]
    assert plain(spec.config) == {"model": "a", "epochs": 7, "tuning": {"rate": 1, "decay": 0.25}}
    assert (dict(spec.env), dict(spec.labels)) == (DECLARED["defaults"]["env"], {"team": "ml"})
    assert (seconds(spec.timeout), spec.queue, spec.workspace_id) == (3600, "default", "default")


def test_every_field_of_a_specification_is_the_callers_or_is_not() -> None:
    assert set(GIVEN) == set(JobSpec.DESCRIPTOR.fields_by_name)
    assert {"env", "command"} == set(GIVEN) - FREE - ALLOWABLE
    assert not FREE & ALLOWABLE


@pytest.mark.parametrize("name", sorted(set(GIVEN) - FREE - CAPPED))
def test_nothing_else_of_a_specification_gets_through(name: str) -> None:
    spec = a_spec(**{name: GIVEN[name]})
    expected = "spec.env[LD_PRELOAD]" if name == "env" else f"spec.{name}"
    assert violations(spec) == [expected]


@pytest.mark.parametrize("name", sorted((FREE | CAPPED) - {"job_type", "config", "rerun_of"}))
def test_what_can_not_change_what_runs_is_free(name: str) -> None:
    spec = resolved(a_spec(**{name: GIVEN[name]}))
    assert list(spec.command) == ["train", "--model=a", "3"]
    if name == "labels":
        assert dict(spec.labels) == {"team": "ml", "mine": "1"}
    else:
        assert getattr(spec, name) == GIVEN[name]


@pytest.mark.parametrize("name", sorted(ALLOWABLE - {"working_dir"}))
def test_the_operator_may_allow_more(name: str) -> None:
    spec = resolved(a_spec(**{name: GIVEN[name]}), job_types=types(allow=[name]))
    given = getattr(spec, name)
    assert (list(given) if isinstance(GIVEN[name], list) else given) == GIVEN[name]


def test_all_that_is_wrong_is_told_at_once() -> None:
    spec = a_spec(command=["id"], env={"PATH": "/tmp", "SEED": "1"}, labels={"team": "other"}, timeout=duration(3601))
    assert violations(spec) == ["spec.command", "spec.env[PATH]", "spec.timeout", "spec.labels[team]"]


def test_times_may_be_lowered_and_raised_only_where_that_is_allowed() -> None:
    assert seconds(resolved(a_spec(timeout=duration(3599))).timeout) == 3599
    assert violations(a_spec(timeout=duration(3601))) == ["spec.timeout"]
    assert seconds(resolved(a_spec(timeout=duration(3601)), job_types=types(allow=["timeout"])).timeout) == 3601
    attempts = types(defaults={"max_attempts": 2})
    assert violations(a_spec(max_attempts=3), job_types=attempts) == ["spec.max_attempts"]


def test_an_allowed_variable_takes_a_value_and_no_secret() -> None:
    spec = resolved(a_spec(env={"SEED": "1", "MODE": "slow"}))
    assert dict(spec.env) == {"SEED": "1", "MODE": "slow", "KEY": "secret:env:API_TOKEN"}
    assert violations(a_spec(env={"SEED": "secret:env:API_TOKEN"})) == ["spec.env[SEED]"]


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"model": "$(id)"}, "spec.config.model"),
        ({"model": None}, "spec.config.model"),
        ({"epochs": "--evil"}, "spec.config.epochs"),
        ({"command": ["id"]}, "spec.config"),
        ({"epochs": 0}, "spec.config.epochs"),
    ],
)
def test_config_is_held_against_the_schema(config: dict[str, Any], field: str) -> None:
    assert violations(a_spec(config)) == [field]


def test_config_has_a_size_that_is_checked_quickly() -> None:
    """However many values are in it: the check comes before anybody looks at them."""
    assert violations(a_spec({"model": "a" * 2**16})) == ["spec.config"]
    assert violations(a_spec({"tuning": {"layers": [None] * 2**14}})) == ["spec.config"]
    resolved(a_spec({"tuning": {"layers": [None] * 2**13}}))


def test_what_config_lacks_is_named() -> None:
    assert violations(JobSpec(job_type="train")) == ["spec.config"]


def test_config_holds_finite_numbers_before_anything_reads_it() -> None:
    spec = a_spec()
    spec.config.update({"epochs": float("nan")})
    assert violations(spec) == ["spec.config"]


def test_a_path_in_config_lies_within_the_roots() -> None:
    resolved(a_spec({"file": "/srv/in.csv"}))
    with pytest.raises(ServiceError, match=r"spec\.config\.file") as caught:
        resolved(a_spec({"file": "/etc/passwd"}))
    assert caught.value.reason == Reason.ERROR_REASON_PATH_NOT_ALLOWED


def test_an_unknown_type_is_told_with_those_there_are() -> None:
    with pytest.raises(ServiceError, match="known: command, train") as caught:
        resolved(JobSpec(job_type="trian"))
    assert caught.value.reason == Reason.ERROR_REASON_VALIDATION


def test_a_rerun_is_what_the_declaration_says_now_with_what_the_caller_had_said() -> None:
    before = types(allow=["env.SEED", "env.OLD", "queue", "timeout"])
    given = a_spec(
        {"epochs": 9}, env={"SEED": "1", "OLD": "1"}, queue="big", timeout=duration(7200), labels={"mine": "1"}
    )
    base = resolved(given, job_types=before)
    after = types(
        command=["train2", "{config.model}", "{config.epochs}"], defaults={"timeout": "90s", "queue": "small"}
    )
    spec = resolved(JobSpec(rerun_of="job_x"), base, after)
    assert list(spec.command) == ["train2", "a", "9"]
    assert (dict(spec.env), spec.queue, seconds(spec.timeout)) == ({"SEED": "1", "MODE": "fast"}, "small", 90)
    assert dict(spec.labels) == {"team": "ml", "mine": "1"}
    assert list(resolved(JobSpec(rerun_of="job_x", config=a_spec({"epochs": 2}).config), base).command)[-1] == "2"


def test_a_rerun_of_a_command_does_not_become_one_of_a_type_nor_the_other_way_without_saying_so() -> None:
    command = JobSpec(job_type="command", command=["sh", "-c", "id"])
    assert violations(JobSpec(rerun_of="job_x", job_type="train"), command) == ["spec.job_type"]
    assert types().of_job(JobSpec(rerun_of="job_x"), command) is None, "which takes jobs:exec"
    assert types().of_job(JobSpec(rerun_of="job_x", job_type="command"), resolved(a_spec())) is None
    assert violations(JobSpec(rerun_of="job_x"), JobSpec(job_type="gone", command=["id"])) == ["spec.job_type"]
    assert violations(JobSpec(rerun_of="job_x", command=["id"]), resolved(a_spec())) == ["spec.command"]


def test_objects_are_merged_and_lists_replaced() -> None:
    assert merged({"a": {"b": 1, "c": 2}, "l": [1, 2]}, {"a": {"b": 3}, "l": [4]}) == {"a": {"b": 3, "c": 2}, "l": [4]}
    assert merged({"a": {"b": 1}}, {"a": 2}) == {"a": 2}
    assert merged({"a": 1}, {"a": None}) == {"a": None}


def test_input_files_are_the_operators_to_allow(tmp_path: Path) -> None:
    """One of them would be copied for the program, and its hash told."""
    (tmp_path / "x").touch()
    spec = a_spec(inputs=[JobInput(type=INPUT_TYPE_FILE, file_path=str(tmp_path / "x"))])
    assert violations(spec) == ["spec.inputs"]


def test_the_declaration_itself_is_left_alone() -> None:
    job_types = types()
    declared: JobType = job_types.declared["train"]
    before = declared.defaults.SerializeToString(deterministic=True)
    spec = resolved(a_spec({"epochs": 9}, labels={"mine": "1"}), job_types=job_types)
    resolved(JobSpec(rerun_of="job_x"), spec, job_types)
    assert declared.defaults.SerializeToString(deterministic=True) == before
