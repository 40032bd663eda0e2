"""`jobledger delete`: jobs that have ended, for good."""

import sys
from typing import TYPE_CHECKING, Any

import click

from jobledger.cli import output
from jobledger.cli.params import complete_job_id
from jobledger.cli.session import REFUSED, connected, json_option

if TYPE_CHECKING:
    from jobledger.client import Client


@click.command(name="delete")
@click.argument("job_id", metavar="JOB...", nargs=-1, required=True, shell_complete=complete_job_id)
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@json_option
@connected
async def command(client: "Client", /, *, job_id: tuple[str, ...], yes: bool, as_json: bool) -> int | None:
    """Deletes jobs that have ended, with their logs, directories and artifacts. Their receipts stay.

    This can't be undone. Each job is tried, whatever becomes of the others; exit code 4: one of them is still there.
    """
    job_ids = [*dict.fromkeys(job_id)]
    if not yes:
        ask(job_ids)
    done = [await _delete(client, one, as_json=as_json) for one in job_ids]
    return None if all(done) else REFUSED


def ask(job_ids: list[str]) -> None:
    """Has a person confirm it; where there is none, nothing is done."""
    if not sys.stdin.isatty():
        raise click.UsageError("This can't be undone, and there is nobody to ask: say --yes")
    named = output.one_line(job_ids[0]) if len(job_ids) == 1 else f"{len(job_ids)} jobs"
    click.confirm(f"Delete {named} for good, with log, directory and artifacts?", abort=True, err=True)


async def _delete(client: "Client", job_id: str, *, as_json: bool) -> bool:
    """Whether it was deleted. What concerns this job alone keeps the others from nothing."""
    from jobledger.errors import ConflictError, NotFoundError

    told: dict[str, Any] = {"job_id": job_id, "deleted": True, "error_code": None, "message": None}
    try:
        await client.delete(job_id)
    except (ConflictError, NotFoundError) as error:
        told |= {"deleted": False, "error_code": error.error_code, "message": error.message}
    if as_json:
        output.line(told)
    elif told["deleted"]:
        print(f"{output.one_line(job_id)}: deleted; its receipt stays: jobledger receipt {output.one_line(job_id)}")
    else:
        output.note(f"{job_id}: {told['message']}{_advice(job_id, told['error_code'])}")
    return bool(told["deleted"])


def _advice(job_id: str, error_code: str) -> str:
    return f" (jobledger cancel {job_id} --wait)" if error_code == "E_JOB_NOT_FINISHED" else ""
