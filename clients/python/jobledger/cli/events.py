"""`jobledger events`: what happens, as it happens."""

from typing import TYPE_CHECKING

import click

from jobledger.cli import output
from jobledger.cli.params import complete_job_id
from jobledger.cli.session import connected, json_option

if TYPE_CHECKING:
    from jobledger.client import Client
    from jobledger.v1.events_pb2 import Event, Progress


@click.command(name="events")
@click.option("--from", "resume_from", type=click.IntRange(min=0), help="Events after this number; 0 for all.")
@click.option("--job", "job_id", multiple=True, shell_complete=complete_job_id, help="Only of this job; repeatable.")
@click.option("--type", "event_type", multiple=True, help="Only of this type, such as job.state_changed; repeatable.")
@click.option("--workspace", "workspace_id", help="Only of this workspace.")
@click.option("--until-live", is_flag=True, help="End where the past ends.")
@json_option
@connected
async def command(
    client: "Client",
    /,
    *,
    resume_from: int | None,
    job_id: tuple[str, ...],
    event_type: tuple[str, ...],
    workspace_id: str | None,
    until_live: bool,
    as_json: bool,
) -> None:
    """Shows events until Ctrl-C, through restarts of the server. Without --from: new ones only.

    With --json every message is a line: to come back later, pass the last sequence_number or last_sequence as --from.
    """
    async for event in client.events(
        resume_from=resume_from, job_id=job_id, type=event_type, workspace_id=workspace_id
    ):
        if as_json:
            output.line(event)
        elif event.event_type not in {"engine.heartbeat", "replay.complete", "stream.bookmark"}:
            print(describe(event), flush=True)
        if until_live and event.event_type == "replay.complete":
            return


def describe(event: "Event") -> str:
    """An event as one line."""
    number = str(event.sequence_number) if event.HasField("sequence_number") else "-"
    words = [f"{number:>6}", output.clock(event.timestamp_utc), event.event_type]
    if event.HasField("job"):
        words.append(event.job.job_id)
    return output.one_line(" ".join([*words, detail(event)]).rstrip())


def detail(event: "Event") -> str:
    """What there is to say about an event, beside its type and its job."""
    from jobledger.cli.plain import plain
    from jobledger.v1.job_pb2 import ArtifactStatus, JobState
    from jobledger.values import short_name

    match event.WhichOneof("detail"):
        case "state_changed":
            change = event.state_changed
            old = f"{short_name(JobState, change.old_state)} -> " if change.HasField("old_state") else ""
            return f"{old}{short_name(JobState, change.new_state)} {change.error_code}".rstrip()
        case "progress":
            return f"{event.progress.progress_percent:.0f}% {event.progress.phase}{_counted(event.progress)}"
        case "artifact":
            return f"{event.artifact.artifact.path} {short_name(ArtifactStatus, event.artifact.artifact.status)}"
        case None:
            return ""
        case other:
            fields = plain(getattr(event, other))
            return " ".join(f"{name}={value}" for name, value in fields.items())


def _counted(progress: "Progress") -> str:
    if progress.items_total:
        return f" ({progress.items_completed} of {progress.items_total})"
    return f" ({progress.items_completed} done)" if progress.items_completed else ""
