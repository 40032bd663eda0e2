"""Job types that the operator declares: what of a specification is theirs, and what is left to who creates the job.

A token without `jobs:exec` runs what a declaration says, and nothing else. So everything of a specification is closed
to callers but what can't change what runs (`FREE`), what is at most as declared (`CAPPED`), and what `allow` names.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobledger.v1.job_pb2 import JobSpec

from jobledger_server.core.config_schema import ConfigSchema
from jobledger_server.core.errors import FieldViolation, Reason, ServiceError, invalid
from jobledger_server.core.secret_references import is_reference
from jobledger_server.core.structs import plain
from jobledger_server.core.templates import Template
from jobledger_server.core.times import seconds

COMMAND = "command"
FREE = frozenset({"job_type", "config", "labels", "priority", "retry_backoff", "workspace_id", "rerun_of"})
# At most what the declaration says, where it says something.
CAPPED = frozenset({"timeout", "queue_timeout", "grace_period", "max_attempts"})
ALLOWABLE = CAPPED | {"artifacts", "inputs", "limits", "queue", "stdin", "tools", "working_dir"}
ENV = "env."
# Serialized. Each value is looked at several times before a job is accepted, while other calls wait.
MOST_CONFIG_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class JobType:
    """A declaration.

    Attributes:
        template: the command, with places for values of `config`.
        schema: what `config` may be.
        defaults: what else the specification has; its `config` has the defaults for that.
        allow: fields (of `ALLOWABLE`, or `env.NAME`) that callers may set too.
    """

    name: str
    template: Template
    schema: ConfigSchema
    description: str = ""
    defaults: JobSpec = field(default_factory=JobSpec)
    allow: frozenset[str] = frozenset()

    def specification(self, spec: JobSpec, base: JobSpec | None = None) -> JobSpec:
        """What runs: the declaration, with what the caller gives and may give.

        Args:
            base: specification of an earlier job of this type, which is to be run again. What a caller may not set
                (today) comes from the declaration as it is today.

        Raises:
            ServiceError: VALIDATION, with each field that is not the caller's, or that breaks the schema.
        """
        if violations := list(self._violations(spec)):
            raise ServiceError(Reason.ERROR_REASON_VALIDATION, fields=violations)
        resolved = JobSpec()
        resolved.CopyFrom(self.defaults)
        for given in (self._open_part(base), spec) if base is not None else (spec,):
            _lay_over(resolved, given)
        resolved.job_type = self.name
        source = base if base is not None and not spec.HasField("config") else spec
        config = merged(plain(self.defaults.config), plain(source.config))
        self.schema.check(config)
        resolved.config.Clear()
        resolved.config.update(config)
        resolved.command[:] = self.template.filled(config)
        return resolved

    def check_size(self, spec: JobSpec) -> None:
        """Raises VALIDATION where `config` is larger than parameters of a program may be."""
        size = spec.config.ByteSize()
        if size > MOST_CONFIG_BYTES:
            told = f"takes {size} bytes, and {MOST_CONFIG_BYTES} is the most for a job type: use stdin or a file input"
            raise invalid("spec.config", told)

    def check_paths(self, spec: JobSpec, roots: Sequence[Path], hidden: Path | None) -> None:
        """Holds the paths in `config` against the roots, as `ConfigSchema.check_paths` does."""
        self.schema.check_paths(plain(spec.config), roots, hidden)

    def _violations(self, spec: JobSpec) -> Iterator[FieldViolation]:
        for descriptor, _ in spec.ListFields():
            name = descriptor.name
            if name == "env":
                yield from self._env_violations(spec.env)
            elif name == "labels":
                declared = sorted(spec.labels.keys() & self.defaults.labels.keys())
                yield from (FieldViolation(f"spec.labels[{label}]", self._told("sets it")) for label in declared)
            elif name in CAPPED and self._exceeds(spec, name):
                yield FieldViolation(f"spec.{name}", self._told("has a lower one, and callers may only lower it"))
            elif not self._is_open(name):
                yield FieldViolation(f"spec.{name}", self._told(f"does not let callers set it{_advice(name)}"))

    def _env_violations(self, env: Mapping[str, str]) -> Iterator[FieldViolation]:
        for name, value in sorted(env.items()):
            if f"{ENV}{name}" not in self.allow:
                yield FieldViolation(f"spec.env[{name}]", self._told("does not let callers set it"))
            elif is_reference(value):
                yield FieldViolation(f"spec.env[{name}]", self._told("says itself which secrets its jobs get"))

    def _told(self, what: str) -> str:
        return f"leave it out: the job type {self.name!r} {what}"

    def _is_open(self, name: str) -> bool:
        return name in FREE or name in CAPPED or name in self.allow

    def _exceeds(self, spec: JobSpec, name: str) -> bool:
        if name in self.allow or not self.defaults.HasField(name):  # type: ignore[arg-type]
            return False
        return _size(spec, name) > _size(self.defaults, name)

    def _open_part(self, base: JobSpec) -> JobSpec:
        """Of an earlier specification, what a caller may set."""
        kept = JobSpec()
        kept.CopyFrom(base)
        for descriptor, _ in base.ListFields():
            name = descriptor.name
            if name == "env" or not self._is_open(name) or (name in CAPPED and self._exceeds(base, name)):
                kept.ClearField(name)  # type: ignore[arg-type]
        for name, value in base.env.items():
            if f"{ENV}{name}" in self.allow and not is_reference(value):
                kept.env[name] = value
        for label in self.defaults.labels:
            kept.labels.pop(label, None)
        return kept


@dataclass(frozen=True, slots=True)
class JobTypes:
    """All that are declared, by name."""

    declared: Mapping[str, JobType] = field(default_factory=dict)

    @classmethod
    def of(cls, types: Iterable[JobType]) -> "JobTypes":
        return cls({it.name: it for it in types})

    def of_job(self, spec: JobSpec, base: JobSpec | None = None) -> JobType | None:
        """The type that a specification asks for; None where it brings its command itself.

        Args:
            base: specification of the job that `rerun_of` names.

        Raises:
            ServiceError: VALIDATION where there is no such type (any more), or `base` is of another one.
        """
        name = spec.job_type or (base.job_type if base is not None else "") or COMMAND
        if name == COMMAND:
            return None
        if name not in self.declared:
            known = ", ".join((COMMAND, *sorted(self.declared)))
            raise invalid("spec.job_type", f"there is no job type {name!r} here; known: {known}")
        if base is not None and base.job_type != name:
            raise invalid("spec.job_type", f"the job to run again is a {base.job_type!r}: leave the type out")
        return self.declared[name]


NO_JOB_TYPES = JobTypes()


def merged(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The given over the defaults, object by object; a list is replaced as a whole."""
    both = {**defaults, **given}
    for name in defaults.keys() & given.keys():
        if isinstance(defaults[name], Mapping) and isinstance(given[name], Mapping):
            both[name] = merged(defaults[name], given[name])
    return both


def _lay_over(spec: JobSpec, given: JobSpec) -> None:
    """Replaces each field that is given, and of `env` and `labels` each entry."""
    for descriptor, _ in given.ListFields():
        if descriptor.name not in ("env", "labels"):
            spec.ClearField(descriptor.name)  # type: ignore[arg-type]
    spec.MergeFrom(given)


def _advice(name: str) -> str:
    return "" if name == "command" else f". The operator allows it by allow = [{name!r}]"


def _size(spec: JobSpec, name: str) -> float:
    value = getattr(spec, name)
    return value if isinstance(value, int) else seconds(value)
