"""Specifications of jobs from plain Python values."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Literal, TypedDict, Unpack

from google.protobuf.json_format import ParseDict

from jobledger.v1.job_pb2 import JobInput, JobLimits, JobPriority, JobSpec
from jobledger.values import duration, enum_number

_SPANS = frozenset({"timeout", "queue_timeout", "grace_period", "retry_backoff"})


class SpecFields(TypedDict, total=False):
    """Fields of a JobSpec; those left out get the server's defaults. Spans are seconds, or a timedelta.

    What each one means stands in `job.proto`, under `JobSpec`.
    """

    job_type: str
    env: Mapping[str, str]
    working_dir: str
    stdin: str
    inputs: Sequence[JobInput]
    config: Mapping[str, Any]
    artifacts: Sequence[str]
    timeout: float | timedelta
    queue_timeout: float | timedelta
    grace_period: float | timedelta
    priority: Literal["low", "normal", "high"]
    max_attempts: int
    retry_backoff: float | timedelta
    limits: JobLimits
    labels: Mapping[str, str]
    workspace_id: str
    queue: str
    rerun_of: str
    tools: Sequence[str]


def job_spec(command: Sequence[str] = (), /, *, base: JobSpec | None = None, **fields: Unpack[SpecFields]) -> JobSpec:
    """A specification: `base`, with what is given here in place of what it has.

    Raises:
        TypeError: `command` is one string, or there is no such field.
        ValueError: a value is not one that its field takes.
    """
    if isinstance(command, str):
        raise TypeError('command is a list of strings: ["sh", "-c", "..."] runs a line of shell')
    spec = JobSpec()
    if base is not None:
        spec.CopyFrom(base)
    given: dict[str, Any] = {**({"command": command} if command else {}), **fields}
    for name, value in given.items():
        if name not in JobSpec.DESCRIPTOR.fields_by_name:
            raise TypeError(f"a JobSpec has no field {name!r}")
        spec.ClearField(name)  # type: ignore[arg-type]
        spec.MergeFrom(_with_field(name, value))
    return spec


def _with_field(name: str, value: Any) -> JobSpec:
    """A specification with this one field set."""
    if name == "config":
        spec = JobSpec()
        ParseDict(dict(value), spec.config)
        return spec
    if name in _SPANS:
        value = duration(value)
    elif name == "priority":
        value = enum_number(JobPriority, value)
    return JobSpec(**{name: value})
