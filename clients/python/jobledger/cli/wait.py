"""`jobledger wait`: wait for a job's end."""

from typing import TYPE_CHECKING

import click

from jobledger.cli import output
from jobledger.cli.params import job_argument, seconds
from jobledger.cli.session import TIME_IS_OVER, connected, json_option

if TYPE_CHECKING:
    from jobledger.client import Client


@click.command(name="wait")
@job_argument
@click.option("--timeout", type=seconds, metavar="DURATION", help="How long to wait. Default: as long as it takes.")
@json_option
@connected
async def command(client: "Client", /, *, job_id: str, timeout: float | None, as_json: bool) -> int:  # noqa: ASYNC109
    """Waits for a job's end, and exits as it did."""
    from jobledger.cli.outcome import describe_end, exit_code_for
    from jobledger.errors import DeadlineError

    try:
        job = await client.wait(job_id, timeout=timeout)
    except DeadlineError as error:
        if timeout is None:
            raise
        output.note(error.message)
        return TIME_IS_OVER
    output.document(job) if as_json else print(output.one_line(describe_end(job)))
    return exit_code_for(job)
