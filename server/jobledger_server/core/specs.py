"""What a specification must be beyond the rules in the .proto, and the defaults that it leaves open."""

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from google.protobuf.struct_pb2 import Struct, Value
from jobledger.v1.job_pb2 import INPUT_TYPE_FILE, JOB_PRIORITY_NORMAL, JobSpec
from jobledger.v1.job_service_pb2 import CreateJobRequest

from jobledger_server.core.errors import invalid
from jobledger_server.core.job_types import COMMAND, NO_JOB_TYPES, JobTypes
from jobledger_server.core.output_names import reason_to_refuse_glob
from jobledger_server.core.paths import allowed_path
from jobledger_server.core.secret_references import NO_SECRETS, AllowedSecrets, check_references
from jobledger_server.core.times import duration, seconds

DEFAULT_GRACE_SECONDS = 10.0
DEFAULT_BACKOFF_SECONDS = 1.0
# What a process can take: Linux refuses argv and environment beyond a quarter of the stack (8 MiB as a rule).
MAX_ARGUMENT_BYTES = 1_500_000
# And a single argument, or a variable with its name, beyond 32 pages with the NUL at its end.
MAX_STRING_BYTES = 131_071


def resolve(
    spec: JobSpec,
    *,
    roots: Sequence[Path],
    hidden: Path | None = None,
    secrets: AllowedSecrets = NO_SECRETS,
    base: JobSpec | None = None,
    job_types: JobTypes = NO_JOB_TYPES,
) -> JobSpec:
    """The specification with its defaults, checked.

    Args:
        roots: where working directories and input files may lie.
        hidden: where none of them may lie, whatever the roots: the server's data directory.
        secrets: what `env` may refer to.
        base: specification of the job that `rerun_of` names; what `spec` sets replaces it field by field.
        job_types: those that the operator declares.

    Raises:
        ServiceError: VALIDATION, FORBIDDEN, PATH_NOT_ALLOWED or PATH_TRAVERSAL.
    """
    declared = job_types.of_job(spec, base)
    if declared is not None:
        declared.check_size(spec)
    _check_config(spec.config)
    resolved = _merged(spec, base) if declared is None else declared.specification(spec, base)
    _check_command(resolved)
    _check_text(resolved)
    _check_artifacts(resolved)
    if declared is not None:
        declared.check_paths(resolved, roots, hidden)
    _check_outside(resolved, roots, hidden, secrets)
    _fill_defaults(resolved)
    return resolved


def _check_artifacts(spec: JobSpec) -> None:
    """A glob that can name nothing would leave a job without artifacts, and nobody told why."""
    for index, glob in enumerate(spec.artifacts):
        if reason := reason_to_refuse_glob(glob):
            raise invalid(f"spec.artifacts[{index}]", reason)


def check_defaults(
    spec: JobSpec, *, roots: Sequence[Path], hidden: Path | None = None, secrets: AllowedSecrets = NO_SECRETS
) -> None:
    """Holds what a job type sets against the rules of `resolve`; the arguments and errors are the same."""
    _check_text(spec)
    _check_artifacts(spec)
    _check_config(spec.config)
    _check_outside(spec, roots, hidden, secrets)


def request_hash(request: CreateJobRequest) -> bytes:
    """SHA-256 of what was asked, for idempotency."""
    return hashlib.sha256(request.spec.SerializeToString(deterministic=True)).digest()


def _merged(spec: JobSpec, base: JobSpec | None) -> JobSpec:
    merged = JobSpec()
    if base is not None:
        merged.CopyFrom(base)
        for field, _ in spec.ListFields():
            merged.ClearField(field.name)  # type: ignore[arg-type]
    merged.MergeFrom(spec)
    return merged


def _check_command(spec: JobSpec) -> None:
    if not spec.command or not spec.command[0]:
        raise invalid("spec.command", 'must name a program, such as ["echo", "hello"]')
    size = sum(len(part.encode()) + 1 for part in spec.command)
    size += sum(len(name) + len(value.encode()) + 2 for name, value in spec.env.items())
    if size > MAX_ARGUMENT_BYTES:
        raise invalid(
            "spec.command", f"command and env take {size} bytes together; at most {MAX_ARGUMENT_BYTES} may be"
        )


def _check_outside(spec: JobSpec, roots: Sequence[Path], hidden: Path | None, secrets: AllowedSecrets) -> None:
    """What a job has of the world beyond its own directory."""
    check_references(spec.env, secrets)
    if spec.HasField("working_dir"):
        allowed_path(spec.working_dir, roots, "spec.working_dir", hidden=hidden)
    _check_inputs(spec, roots, hidden)


def _check_inputs(spec: JobSpec, roots: Sequence[Path], hidden: Path | None) -> None:
    names: set[str] = set()
    for index, item in enumerate(spec.inputs):
        if item.type != INPUT_TYPE_FILE:
            continue
        field = f"spec.inputs[{index}].file_path"
        allowed_path(item.file_path, roots, field, hidden=hidden)
        name = PurePosixPath(item.file_path).name
        if name in names:
            raise invalid(field, f"another input is called {name!r} too, and both go into input/")
        names.add(name)


def _check_text(spec: JobSpec) -> None:
    for index, part in enumerate(spec.command):
        _check_string(part, f"spec.command[{index}]")
    for name, value in spec.env.items():
        _check_string(f"{name}={value}", f"spec.env[{name}]")
        if name.startswith("JOBLEDGER_"):
            raise invalid(f"spec.env[{name}]", "names that begin with JOBLEDGER_ are the engine's own")


def _check_string(text: str, field: str) -> None:
    """What a process gets as one string."""
    if "\0" in text:
        raise invalid(field, "must not contain NUL")
    if len(text.encode()) > MAX_STRING_BYTES:
        raise invalid(field, f"a process takes at most {MAX_STRING_BYTES} bytes in one: use stdin or a file input")


def _check_config(config: Struct) -> None:
    """JSON has no word for a number that is not finite, and the receipt could not hold it."""
    pending = [Value(struct_value=config)]
    while pending:
        value = pending.pop()
        if not math.isfinite(value.number_value):
            raise invalid("spec.config", "must hold finite numbers only")
        pending += [*value.struct_value.fields.values(), *value.list_value.values]


def _fill_defaults(spec: JobSpec) -> None:
    spec.job_type = spec.job_type or COMMAND
    spec.workspace_id = spec.workspace_id or "default"
    spec.queue = spec.queue or "default"
    spec.priority = spec.priority or JOB_PRIORITY_NORMAL
    spec.max_attempts = spec.max_attempts or 1
    if not spec.HasField("grace_period"):
        spec.grace_period.CopyFrom(duration(DEFAULT_GRACE_SECONDS))
    if not spec.HasField("retry_backoff"):
        spec.retry_backoff.CopyFrom(duration(DEFAULT_BACKOFF_SECONDS))


def grace_seconds(spec: JobSpec) -> float:
    """Seconds between SIGTERM and SIGKILL."""
    return seconds(spec.grace_period)
