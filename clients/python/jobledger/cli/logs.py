"""`jobledger logs`: a job's log, so far or as it grows."""

import sys
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from jobledger.cli import output
from jobledger.cli.log_lines import show_entries
from jobledger.cli.params import LEVELS, instant, job_argument, words
from jobledger.cli.session import connected, json_option

if TYPE_CHECKING:
    from jobledger.client import Client
    from jobledger.v1.job_pb2 import LogEntry


@click.command(name="logs")
@job_argument
@click.option("--follow", "-f", is_flag=True, help="Go on until the job ends.")
@click.option("--level", type=words(LEVELS), metavar="LIST", help=f"Any of {', '.join(LEVELS)}, with commas between.")
@click.option("--subsystem", help="Exactly this one, such as stdout.")
@click.option("--since", type=instant, metavar="TIME", help="At or after: a time, or 10m for ten minutes ago.")
@click.option("--until", type=instant, metavar="TIME", help="Before.")
@click.option("--contains", help="Text in the message, case and all.")
@click.option("--tail", "-n", type=click.IntRange(1, 10000), help="Only the last N.")
@click.option("--raw", is_flag=True, help="The output byte for byte, as the job wrote it.")
@json_option
@connected
async def command(
    client: "Client",
    /,
    *,
    job_id: str,
    follow: bool,
    tail: int | None,
    raw: bool,
    as_json: bool,
    **options: str | datetime | tuple[str, ...] | None,
) -> None:
    """Shows a job's log."""
    where: Any = {name: value for name, value in options.items() if value is not None}
    _check(where, follow=follow, tail=tail, raw=raw, as_json=as_json)
    if raw:
        shown = await _copy(client, job_id)
    elif follow:
        shown = await _follow(client, job_id, tail, where, as_json=as_json)
    elif tail:
        shown = await _show_newest(client, job_id, tail, where, as_json=as_json) > 0
    else:
        shown = False
        async for page in client.iter_log_pages(job_id, **where):
            shown = True
            show_entries(page, as_json=as_json)
    if not shown:
        await _say_if_removed(client, job_id)


async def _copy(client: "Client", job_id: str) -> bool:
    """The output byte for byte. Whether there was any."""
    shown = False
    async for chunk in client.log_content(job_id):
        shown = shown or bool(chunk)
        sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()
    return shown


async def _follow(client: "Client", job_id: str, tail: int | None, where: dict[str, Any], *, as_json: bool) -> bool:
    """Entries until the job ends, from the newest `tail` ones on, if that is given. Whether there were any."""
    last = await _show_newest(client, job_id, tail, where, as_json=as_json) if tail else 0
    shown = last > 0
    async for page in client.tail_log_pages(job_id, after_sequence=last, level=where.get("level", ())):
        shown = True
        show_entries(page, as_json=as_json)
    return shown


async def _show_newest(client: "Client", job_id: str, count: int, where: dict[str, Any], *, as_json: bool) -> int:
    """The newest entries. The number of the last one; 0 where there are none."""
    newest = await _newest(client, job_id, count, where)
    show_entries(reversed(newest), as_json=as_json)
    return newest[0].job_sequence if newest else 0


async def _say_if_removed(client: "Client", job_id: str) -> None:
    """An empty log is one thing, a log that is no longer kept another."""
    page = await client.logs(job_id, limit=1)
    if page.HasField("log_removed_at"):
        output.note(
            f"The log was removed by retention at {page.log_removed_at.ToJsonString()}; "
            f"`jobledger receipt {job_id}` tells how many entries it had, and their SHA-256"
        )


async def _newest(client: "Client", job_id: str, count: int, where: dict[str, Any]) -> "list[LogEntry]":
    """The newest entries, the latest first. A page of long ones has fewer than it is asked for."""
    found: list[LogEntry] = []
    offset, more = 0, True
    while more and len(found) < count:
        page = await client.logs(job_id, limit=count - len(found), offset=offset, order="desc", **where)
        # Where the log has grown meanwhile, some come again.
        found += [entry for entry in page.logs if not found or entry.job_sequence < found[-1].job_sequence]
        offset, more = offset + len(page.logs), page.has_more
    return found


def _check(where: dict[str, Any], *, follow: bool, tail: int | None, raw: bool, as_json: bool) -> None:
    if raw and (where or follow or tail or as_json):
        raise click.UsageError("--raw shows all of the output: it goes with no other option")
    if follow and where.keys() - {"level"}:
        raise click.UsageError("--follow goes with --level, --tail and --json alone")
