"""`jobledger types`: the kinds of job that the operator declares."""

import json
from typing import TYPE_CHECKING, Any

import click

from jobledger.cli import output
from jobledger.cli.session import connected, json_option

if TYPE_CHECKING:
    from jobledger.client import Client
    from jobledger.v1.job_service_pb2 import JobType

HEADER = ("TYPE", "CONFIG", "DESCRIPTION")


@click.command(name="types")
@json_option
@connected
async def command(client: "Client", /, *, as_json: bool) -> None:
    """Lists the kinds of job that the operator declares: jobledger run --type NAME --config '{...}'"""
    from jobledger.v1.job_service_pb2 import ListJobTypesResponse

    job_types = await client.job_types()
    if as_json:
        output.document(ListJobTypesResponse(job_types=job_types))
    elif job_types:
        output.table(HEADER, [(it.name, _members(it), it.description) for it in job_types])
        output.note("--json shows their schemas, defaults, and what else callers may set")
    else:
        output.note("No job types are declared here: `jobledger run -- COMMAND...` runs a command")


def _members(job_type: "JobType") -> str:
    """Such as `epochs=10, model, seed?`: with its default where there is one, with `?` where it may be left out."""
    from jobledger.cli.plain import plain

    schema, defaults = plain(job_type)["config_schema"] or {}, plain(job_type.defaults)["config"] or {}
    return ", ".join(_member(name, schema, defaults) for name in sorted(schema.get("properties", {}))) or "-"


def _member(name: str, schema: dict[str, Any], defaults: dict[str, Any]) -> str:
    if name in defaults:
        return f"{name}={json.dumps(defaults[name], ensure_ascii=False)}"
    return name if name in schema.get("required", ()) else f"{name}?"
