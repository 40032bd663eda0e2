"""`jobledger cancel`: end jobs."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from jobledger.cli import output
from jobledger.cli.params import STATES, complete_job_id, label_option, seconds, words
from jobledger.cli.session import REFUSED, connected, json_option

if TYPE_CHECKING:
    from jobledger.client import Client
    from jobledger.v1.job_service_pb2 import CancelJobsResponse

NONE_FITS = "No unfinished job fits"


@click.command(name="cancel")
@click.argument("job_id", metavar="[JOB]...", nargs=-1, shell_complete=complete_job_id)
@label_option
@click.option("--state", type=words(STATES[:3]), metavar="LIST", help="Those that are queued, running or cancelling.")
@click.option("--workspace", "workspace_id", help="Those of this workspace.")
@click.option("--type", "job_type", help="Those of this kind.")
@click.option("--dry-run", is_flag=True, help="Say what would happen, and do nothing.")
@click.option("--reason", help="Why, for the record.")
@click.option("--grace-period", type=seconds, metavar="DURATION", help="Time between SIGTERM and SIGKILL.")
@click.option("--wait", is_flag=True, help="Wait for the end. Exit code 4: one had ended by itself.")
@json_option
@connected
async def command(
    client: "Client",
    /,
    *,
    job_id: tuple[str, ...],
    labels: tuple[tuple[str, str], ...],
    dry_run: bool,
    reason: str | None,
    grace_period: float | None,
    wait: bool,
    as_json: bool,
    **options: str | tuple[str, ...] | None,
) -> int | None:
    """Cancels a job; or several, by id or by what they have in common."""
    where: Any = {name: value for name, value in options.items() if value is not None}
    if labels:
        where["labels"] = dict(labels)
    if wait and dry_run:
        raise click.UsageError("There is nothing to --wait for in a --dry-run")
    if len(job_id) == 1 and not where and not dry_run:
        answer = await client.cancel(job_id[0], reason=reason, grace_period=grace_period)
        if wait:
            return await _until_the_end(client, job_id, as_json=as_json)
        output.document(answer) if as_json else print(f"{answer.job_id}: {output.one_line(answer.message)}")
        return None
    if job_id:
        where["job_id"] = job_id
    if not where:
        raise click.UsageError("Which? Name jobs, or --label, --state, --workspace or --type")
    found = await client.cancel_many(dry_run=dry_run, reason=reason, grace_period=grace_period, **where)
    return await _outlast(client, found, as_json=as_json) if wait else _show(found, as_json=as_json)


async def _outlast(client: "Client", found: "CancelJobsResponse", *, as_json: bool) -> int | None:
    """Waits for those that were cancelled; the others are told of on stderr."""
    refused = [result for result in found.results if result.HasField("error_code")]
    for result in refused:
        output.note(f"{result.job_id}: {output.one_line(result.message)}")
    if not found.results:
        output.note(NONE_FITS)
    asked = [result.job_id for result in found.results if not result.HasField("error_code")]
    code = await _until_the_end(client, asked, as_json=as_json)
    return REFUSED if refused else code


async def _until_the_end(client: "Client", job_ids: Sequence[str], *, as_json: bool) -> int | None:
    """Tells how each ended. Where one did so by itself, before the signal came, the code is that of a refusal."""
    from jobledger.cli.outcome import describe_end
    from jobledger.v1.job_pb2 import JobState

    code = None
    for job_id in job_ids:
        job = await client.wait(job_id)
        output.line(job) if as_json else print(output.one_line(describe_end(job)), flush=True)
        if job.state != JobState.JOB_STATE_CANCELLED:
            code = REFUSED
    return code


def _show(found: "CancelJobsResponse", *, as_json: bool) -> int | None:
    if as_json:
        output.document(found)
    elif not found.results:
        output.note(NONE_FITS)
    for result in () if as_json else found.results:
        print(f"{result.job_id}: {output.one_line(result.message)}")
    return REFUSED if any(result.HasField("error_code") for result in found.results) else None
