"""`jobledger get`: one job, in full."""

import json
from typing import TYPE_CHECKING, Any

import click

from jobledger.cli import output
from jobledger.cli.params import job_argument
from jobledger.cli.session import connected, json_option

if TYPE_CHECKING:
    from jobledger.client import Client


@click.command(name="get")
@job_argument
@json_option
@connected
async def command(client: "Client", /, *, job_id: str, as_json: bool) -> None:
    """Shows a job."""
    from jobledger.cli.plain import plain

    job = await client.get(job_id)
    if as_json:
        output.document(job)
        return
    fields = plain(job)
    fields["artifacts"] = [artifact["path"] for artifact in fields["artifacts"]]
    fields["spec"] = _without_defaults(fields["spec"] or {})
    for name, value in _without_defaults(fields).items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        print(f"{name + ':':21} {output.coloured(output.one_line(text))}")


def _without_defaults(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value not in (None, "", [], {})}
