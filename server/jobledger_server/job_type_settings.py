"""The setting `job_types`: declarations of job types, read and checked before the server starts."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import protovalidate
from google.protobuf.json_format import MessageToDict, ParseDict, ParseError
from jobledger.v1.job_pb2 import InputType, JobPriority, JobSpec
from jobledger.values import enum_number

from jobledger_server.core.config_schema import ConfigSchema, SchemaError
from jobledger_server.core.errors import ServiceError
from jobledger_server.core.job_types import ALLOWABLE, COMMAND, ENV, JobType, JobTypes
from jobledger_server.core.powerful_variables import POWERFUL
from jobledger_server.core.runners import loads_from_working_dir
from jobledger_server.core.secret_references import VARIABLE, AllowedSecrets
from jobledger_server.core.specs import check_defaults
from jobledger_server.core.structs import plain
from jobledger_server.core.templates import Place, Template, TemplateError

NAME = re.compile(r"[a-z][a-z0-9_.-]{0,63}")
FIELDS = ("description", "command", "schema", "defaults", "allow", "may_begin_with_dash")
SPANS = ("timeout", "queue_timeout", "grace_period", "retry_backoff")
SPAN = re.compile(r"(\d+(?:\.\d+)?)([smhd]?)")
UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
# What the declaration itself is, or what only a call can be.
NOT_DEFAULTS = ("job_type", "command", "rerun_of")
# Where a schema may say of a member more than `properties` does.
COMPOSED = frozenset({"$ref", "$dynamicRef", "allOf", "anyOf", "oneOf", "if", "patternProperties"})


class JobTypeError(Exception):
    """A declaration that can't be; the message names the type and the field."""


def job_types_of(value: Any) -> JobTypes:
    """From the table `[job_types]` of the configuration file, or the same as JSON.

    Raises:
        JobTypeError: one of them can't be.
    """
    if isinstance(value, str):
        value = _json(value)
    if not isinstance(value, Mapping):
        raise JobTypeError("each must be a table of the configuration file: [job_types.NAME]")
    return JobTypes.of(_job_type(name, table) for name, table in value.items())


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise JobTypeError(f"outside of the configuration file they must be a JSON object by name: {error}") from None


def check_job_types(
    job_types: JobTypes, *, roots: Sequence[Path], hidden: Path | None, secrets: AllowedSecrets
) -> None:
    """Holds what declarations refer to against the other settings.

    Raises:
        JobTypeError: a path or a secret is not allowed.
    """
    for job_type in job_types.declared.values():
        try:
            check_defaults(job_type.defaults, roots=roots, hidden=hidden, secrets=secrets)
        except ServiceError as error:
            raise JobTypeError(f"{job_type.name}.defaults: {error.message.replace('spec.', '')}") from None


def shown(job_types: JobTypes) -> dict[str, Any]:
    """The declarations as a JSON object, by name."""
    return {
        name: {
            "description": it.description,
            "command": list(it.template.source),
            "schema": it.schema.document,
            "defaults": MessageToDict(it.defaults, preserving_proto_field_name=True),
            "allow": sorted(it.allow),
            "may_begin_with_dash": sorted(it.template.dashes),
        }
        for name, it in sorted(job_types.declared.items())
    }


def _job_type(name: str, table: Any) -> JobType:
    if not NAME.fullmatch(name) or name == COMMAND:
        raise JobTypeError(
            f"{name!r} can't be the name of one: lower-case letters, digits, '_', '.' and '-', not command"
        )
    if not isinstance(table, Mapping):
        raise JobTypeError(f"{name} must be a table: [job_types.{name}]")
    if unknown := sorted(table.keys() - set(FIELDS)):
        raise JobTypeError(f"{name}.{unknown[0]}: there is no such field; there are {', '.join(FIELDS)}")
    try:
        return _declared(name, table)
    except (TemplateError, SchemaError, _FieldError) as error:
        raise JobTypeError(f"{name}.{error}") from None


class _FieldError(Exception):
    """A field of a declaration that can't be; the message begins with its name."""


def _declared(name: str, table: Mapping[str, Any]) -> JobType:
    description = table.get("description", "")
    if not isinstance(description, str):
        raise _FieldError("description: must be a text")
    dashes = frozenset(_texts(table, "may_begin_with_dash"))
    template = Template.of(_texts(table, "command"), dashes)
    schema = _schema(table.get("schema"))
    defaults = _defaults(table.get("defaults", {}))
    if unknown := sorted(dashes - set(map(str, template.places))):
        raise _FieldError(f"may_begin_with_dash: {unknown[0]} has no place in the command")
    for place in sorted(template.places, key=str):
        _check_place(place, schema.document)
    for said in schema.wrong_defaults(plain(defaults.config)):
        raise _FieldError(f"defaults.{said}")
    allowed = frozenset(_allowed(_texts(table, "allow")))
    if "working_dir" in allowed and (option := loads_from_working_dir(template.source)):
        raise _FieldError(
            f"allow: with working_dir python {option} would load modules from a directory that callers choose: put -P "
            "(before Python 3.11: -I) in front of it, or name a script by an absolute path"
        )
    return JobType(
        name=name,
        template=template,
        schema=schema,
        description=description,
        defaults=defaults,
        allow=allowed,
    )


def _texts(table: Mapping[str, Any], field: str) -> list[str]:
    value = table.get(field, [])
    if not isinstance(value, list) or not all(isinstance(it, str) for it in value):
        raise _FieldError(f"{field}: must be a list of texts")
    return value


def _schema(value: Any) -> ConfigSchema:
    if value is not None and not isinstance(value, dict):
        raise _FieldError("schema: must be a table: a JSON Schema of version 2020-12")
    try:
        return ConfigSchema.of(value)
    except SchemaError as error:
        raise _FieldError(f"schema: {error}") from None


def _allowed(names: Sequence[str]) -> Iterator[str]:
    for name in names:
        variable = name.removeprefix(ENV) if name.startswith(ENV) else None
        if variable is None and name not in ALLOWABLE:
            known = ", ".join(sorted(ALLOWABLE))
            raise _FieldError(f"allow: {name!r} is not among what may be allowed: {known}, env.NAME")
        if variable is not None and not VARIABLE.fullmatch(variable):
            raise _FieldError(f"allow: {name!r} must name one variable, as env.SEED does")
        if variable is not None and POWERFUL.fullmatch(variable):
            raise _FieldError(
                f"allow: with {variable} whoever creates a job could run anything: set it in defaults.env"
            )
        yield name


def _check_place(place: Place, schema: Mapping[str, Any]) -> None:
    """What gets into a command is described: so a misspelled name shows now."""
    node: Any = schema
    for name in place.path:
        if not isinstance(node, Mapping) or COMPOSED & node.keys():
            return
        if name not in node.get("properties", {}):
            raise _FieldError(f"command: {{{place}}} must be among the properties of the schema")
        node = node["properties"][name]
    if isinstance(node, Mapping) and node.get("type") in ("object", "array", "null"):
        raise _FieldError(f"command: {{{place}}} must be a text, a number or a boolean, not of type {node['type']}")


def _defaults(table: Any) -> JobSpec:
    if not isinstance(table, Mapping):
        raise _FieldError('defaults: must be a table of fields of a specification, such as timeout = "1h"')
    spec = JobSpec()
    for name, value in table.items():
        if name in NOT_DEFAULTS or name not in JobSpec.DESCRIPTOR.fields_by_name:
            raise _FieldError(f"defaults.{name}: there is no such default")
        try:
            ParseDict({name: READ.get(name, _as_it_is)(value)}, spec)
        except (ParseError, ValueError, TypeError, AttributeError, KeyError) as error:
            raise _FieldError(f"defaults.{name}: {value!r} can't be: {error}") from None
    for violation in protovalidate.Validator().collect_violations(spec):
        steps = violation.proto.field.elements if violation.proto.field else ()
        path = ".".join(element.field_name for element in steps)
        raise _FieldError(f"defaults.{path}: {violation.proto.message}")
    return spec


def _as_it_is(value: Any) -> Any:
    return value


def _span(value: Any) -> str:
    """Seconds as ProtoJSON has them, from a number or `90s`, `15m`, `1.5h`, `1d`."""
    found = SPAN.fullmatch(str(value))
    if found is None or isinstance(value, bool):
        raise ValueError("write 90, 1.5s, 10m, 2h or 1d")
    return f"{float(found[1]) * UNITS[found[2]]:.6f}s"


def _limits(value: Any) -> dict[str, Any]:
    return {name: _span(it) if name == "cpu_time" else it for name, it in value.items()}


def _inputs(value: Any) -> list[dict[str, Any]]:
    return [{**it, "type": enum_number(InputType, it["type"])} for it in value]


READ: Mapping[str, Callable[[Any], Any]] = {
    **dict.fromkeys(SPANS, _span),
    "priority": lambda value: enum_number(JobPriority, value),
    "limits": _limits,
    "inputs": _inputs,
}
