"""`jobledger input`: send a follow-up to a job."""

import sys
from typing import TYPE_CHECKING

import click

from jobledger.cli import output
from jobledger.cli.params import job_argument
from jobledger.cli.session import connected, json_option

if TYPE_CHECKING:
    from jobledger.client import Client


@click.command(name="input")
@job_argument
@click.argument("text", required=False)
@click.option("--close", is_flag=True, help="Close the job's standard input after it.")
@click.option("--no-newline", is_flag=True, help="Send TEXT as it is, with no newline after it.")
@json_option
@connected
async def command(
    client: "Client", /, *, job_id: str, text: str | None, close: bool, no_newline: bool, as_json: bool
) -> None:
    """Sends TEXT and a newline to the standard input of a job that was run with `--stdin open`.

    Without TEXT, what comes on standard input is sent as it is.
    """
    if text is None:
        content = "" if close and sys.stdin.isatty() else sys.stdin.read()
    else:
        content = text if no_newline else f"{text}\n"
    queued = await client.send_input(job_id, content, close=close)
    if as_json:
        output.document({"queued_followups": queued})
