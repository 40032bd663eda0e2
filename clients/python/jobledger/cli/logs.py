"""`jobledger logs`: a job's log, so far or as it grows."""

import sys
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from jobledger.cli import output
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
        async for chunk in client.log_content(job_id):
            sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()
        return
    last = 0
    if tail:
        for entry in reversed(await _newest(client, job_id, tail, where)):
            last = entry.job_sequence
            show_entry(entry, as_json=as_json)
    if follow:
        async for entry in client.tail_logs(job_id, after_sequence=last, level=where.get("level", ())):
            show_entry(entry, as_json=as_json)
    elif not tail:
        async for entry in client.iter_logs(job_id, **where):
            show_entry(entry, as_json=as_json)


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


def show_entry(entry: "LogEntry", *, as_json: bool) -> None:
    """Prints an entry: time of day, level, where it comes from unless that is the output, message."""
    from jobledger.v1.job_pb2 import LogLevel
    from jobledger.values import short_name

    if as_json:
        output.line(entry)
        return
    level = output.coloured(short_name(LogLevel, entry.level).ljust(5))
    origin = "" if entry.subsystem in ("stdout", "stderr") else f"{output.one_line(entry.subsystem)}: "
    print(f"{output.clock(entry.timestamp_utc)} {level} {origin}{output.one_line(entry.message)}", flush=True)
