"""`jobledger ls`: list jobs."""

from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from jobledger.cli import output
from jobledger.cli.params import STATES, instant, label_option, words
from jobledger.cli.session import connected, json_option

if TYPE_CHECKING:
    from jobledger.client import Client
    from jobledger.v1.job_pb2 import JobSummary

NO_JOBS = "No jobs. `jobledger run -- COMMAND...` submits one"
NONE_FITS = "No job fits"
HEADER = ("JOB", "STATE", "AGE", "RAN", "PROGRESS", "TYPE", "LABELS")


@click.command(name="ls")
@click.option("--state", type=words(STATES), metavar="LIST", help=f"Any of {', '.join(STATES)}, with commas between.")
@label_option
@click.option("--workspace", "workspace_id", help="Only of this workspace.")
@click.option("--type", "job_type", help="Only of this kind.")
@click.option(
    "--since",
    "created_after",
    type=instant,
    metavar="TIME",
    help="Created at or after; 2h: two hours ago.",
)
@click.option("--until", "created_before", type=instant, metavar="TIME", help="Created before.")
@click.option("--search", help="Beginning of the job's id.")
@click.option("--limit", "-n", type=click.IntRange(1, 1000), default=50, show_default=True, help="Most jobs to show.")
@click.option("--page-token", help="`next_page_token` of the page before.")
@click.option("--all", "everything", is_flag=True, help="All of them, page after page; with --json one per line.")
@json_option
@connected
async def command(
    client: "Client",
    /,
    *,
    labels: tuple[tuple[str, str], ...],
    limit: int,
    page_token: str | None,
    everything: bool,
    as_json: bool,
    **options: str | datetime | tuple[str, ...] | None,
) -> None:
    """Lists jobs, newest first."""
    where: Any = {name: value for name, value in options.items() if value is not None}
    if labels:
        where["labels"] = dict(labels)
    nothing = NONE_FITS if where or page_token else NO_JOBS
    if everything:
        await _show_all(client, where, as_json=as_json, nothing=nothing)
        return
    page = await client.list(limit=limit, page_token=page_token, **where)
    if as_json:
        output.document(page)
        return
    show(page.jobs, nothing=nothing)
    if page.HasField("next_page_token"):
        output.note(f"{len(page.jobs)} of {page.total} jobs; --all shows the rest")


async def _show_all(client: "Client", where: Any, *, as_json: bool, nothing: str) -> None:
    if as_json:
        async for job in client.iterate(**where):
            output.line(job)
        return
    show([job async for job in client.iterate(**where)], nothing=nothing)


def show(jobs: "list[JobSummary] | Any", *, nothing: str = NO_JOBS) -> None:
    """Prints jobs as a table, or that there are none."""
    if not jobs:
        output.note(nothing)
        return
    output.table(HEADER, [_row(job) for job in jobs], colour=1)


def _row(job: "JobSummary") -> tuple[str, ...]:
    from jobledger.v1.job_pb2 import JobState
    from jobledger.values import short_name

    return (
        job.job_id,
        short_name(JobState, job.state),
        output.span(output.seconds_between(job.created_at)),
        _ran(job),
        _progress(job),
        job.job_type,
        " ".join(f"{key}={value}" for key, value in sorted(job.labels.items())),
    )


def _ran(job: "JobSummary") -> str:
    if not job.HasField("started_at"):
        return "-"
    return output.span(
        output.seconds_between(job.started_at, job.completed_at if job.HasField("completed_at") else None)
    )


def _progress(job: "JobSummary") -> str:
    if job.HasField("error_code"):
        return job.error_code
    percent = f"{job.progress_percent:.0f}%" if job.HasField("progress_percent") else ""
    return f"{percent} {job.progress_phase}".strip() or "-"
