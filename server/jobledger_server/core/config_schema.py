"""A JSON Schema (2020-12) for the `config` of a job type.

Checking is bounded: patterns are matched in linear time, nothing is fetched, and what is told does not repeat values,
which may be long, or secret.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobledger_server.core.errors import FieldViolation, Reason, ServiceError
from jobledger_server.core.paths import allowed_path

if TYPE_CHECKING:
    from jsonschema_rs import Draft202012Validator

# A string of this format names a file or directory on the server's machine.
PATH_FORMAT = "path"
DIALECT = "https://json-schema.org/draft/2020-12/schema"
NOTHING: Mapping[str, Any] = {"type": "object", "maxProperties": 0}
MOST_VIOLATIONS, MOST_CHARACTERS = 16, 300
# Rules over single members of an object.
MEMBER_RULES = frozenset({"properties", "additionalProperties", "patternProperties", "propertyNames", "maxProperties"})


class SchemaError(ValueError):
    """A schema that can't be; the message says why."""


@dataclass(frozen=True, slots=True)
class ConfigSchema:
    """What `config` may be; make it by `of`.

    Attributes:
        document: as it was declared; empty where `config` must be.
    """

    document: Mapping[str, Any]
    _validator: "Draft202012Validator" = field(compare=False, repr=False)
    _has_paths: bool = field(compare=False, repr=False)

    @classmethod
    def of(cls, schema: Mapping[str, Any] | None) -> "ConfigSchema":
        """Without a schema `config` must be empty.

        Raises:
            SchemaError: it is no schema of that version, names a format that is not known, or refers to another place.
        """
        # Late: it takes 8 MB, which a server without job types need not have.
        from jsonschema_rs import Draft202012Validator, RegexOptions

        document = dict(schema or {})
        if document.get("$schema", DIALECT) != DIALECT:
            raise SchemaError(f"$schema: must be {DIALECT}, or be left out")
        try:
            validator = Draft202012Validator(
                document if schema is not None else dict(NOTHING),
                formats={PATH_FORMAT: lambda _: True},
                validate_formats=True,
                ignore_unknown_formats=False,
                offline=True,
                # Never goes back in the text: no pattern takes longer than its text is long. Look-around can't be.
                pattern_options=RegexOptions(),
                mask="the value",
            )
        except ValueError as error:
            raise SchemaError(_first_line(error)) from None
        return cls(document, validator, f'"{PATH_FORMAT}"' in json.dumps(document))

    def check(self, config: Mapping[str, Any]) -> None:
        """Raises VALIDATION, with a field for each violation, of the first few."""
        errors = islice(self._validator.iter_errors(dict(config)), MOST_VIOLATIONS)
        violations = [FieldViolation(_field(error.instance_path), error.message[:MOST_CHARACTERS]) for error in errors]
        if violations:
            raise ServiceError(Reason.ERROR_REASON_VALIDATION, fields=violations)

    def wrong_defaults(self, defaults: Mapping[str, Any]) -> Iterator[str]:
        """What is wrong with defaults for it, such as `config.layers: ...`. That something is missing is not wrong."""
        for error in self._validator.iter_errors(dict(defaults)):
            keywords = [step for step in error.schema_path if isinstance(step, str)]
            if keywords[0] in MEMBER_RULES and keywords[-1] != "required":
                yield f"{_field(error.instance_path).removeprefix('spec.')}: {error.message[:MOST_CHARACTERS]}"

    def check_paths(self, config: Mapping[str, Any], roots: Sequence[Path], hidden: Path | None) -> None:
        """Holds values of the format `path` against the roots.

        Raises:
            ServiceError: VALIDATION, PATH_NOT_ALLOWED or PATH_TRAVERSAL, as for `allowed_path`.
        """
        if not self._has_paths:
            return
        for said in self._validator.evaluate(dict(config)).annotations():
            if said["annotations"] == PATH_FORMAT and said["schemaLocation"].endswith("/format"):
                path, value = _found(config, said["instanceLocation"])
                if isinstance(value, str):
                    allowed_path(value, roots, _field(path), hidden=hidden)


def _first_line(error: ValueError) -> str:
    return str(error).partition("\n")[0][:MOST_CHARACTERS]


def _field(path: Sequence[str | int]) -> str:
    """Such as `spec.config.layers[2].size`."""
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return f"spec.config{''.join(steps)}"[:MOST_CHARACTERS]


def _found(value: Any, pointer: str) -> tuple[list[str | int], Any]:
    """What a JSON pointer leads to, and the steps to it."""
    path: list[str | int] = []
    for name in pointer.split("/")[1:]:
        step = int(name) if isinstance(value, list) else name.replace("~1", "/").replace("~0", "~")
        path.append(step)
        value = value[step]
    return path, value
