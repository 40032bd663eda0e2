"""`jobledger audit`: who called what."""

import asyncio
from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING

import click

from jobledger.cli import output
from jobledger.cli.params import complete_job_id, instant
from jobledger.cli.session import connected, json_option

if TYPE_CHECKING:
    from jobledger.client import Client
    from jobledger.v1.engine_service_pb2 import AuditEntry

HEADER = ("NUMBER", "AT", "WHO", "PEER", "CALL", "ABOUT", "DECISION")
MOST = 1000
FOLLOW_SECONDS = 1.0


@click.command(name="audit")
@click.option("--since", type=instant, help="Entries since then: RFC 3339, or a span back from now such as 1h.")
@click.option("--token", "token_id", metavar="TOKEN_ID", help="Only of this token.")
@click.option("--job", "job_id", shell_complete=complete_job_id, help="Only about this job.")
@click.option("--limit", type=click.IntRange(1, MOST), default=50, show_default=True, help="Most entries.")
@click.option("--follow", "-f", is_flag=True, help="Go on with new ones until Ctrl-C.")
@json_option
@connected
async def command(
    client: "Client",
    /,
    *,
    since: datetime | None,
    token_id: str | None,
    job_id: str | None,
    limit: int,
    follow: bool,
    as_json: bool,
) -> None:
    """Shows the last entries of the audit log, oldest first: calls that changed something, and callers refused.

    Needs the scope admin. With --json every entry is a line.
    """
    page = await client.audit_entries(since=since, token_id=token_id, job_id=job_id, limit=limit)
    entries = [*reversed(page.entries)]
    if as_json or follow:
        _tell(entries, as_json=as_json)
    else:
        output.table(HEADER, [_row(entry) for entry in entries])
    last = entries[-1].number if entries else 0
    while follow:
        page = await client.audit_entries(since=since, token_id=token_id, job_id=job_id, limit=MOST, after_number=last)
        _tell(page.entries, as_json=as_json)
        last = page.entries[-1].number if page.entries else last
        if len(page.entries) < MOST:
            await asyncio.sleep(FOLLOW_SECONDS)


def _tell(entries: "Iterable[AuditEntry]", *, as_json: bool) -> None:
    for entry in entries:
        output.line(entry) if as_json else print(output.one_line("  ".join(_row(entry))), flush=True)


def _row(entry: "AuditEntry") -> tuple[str, ...]:
    from jobledger.v1.engine_service_pb2 import AuditDecision
    from jobledger.values import short_name

    decision = short_name(AuditDecision, entry.decision)
    times = f" x{entry.count}" if entry.count > 1 else ""
    return (
        str(entry.number),
        entry.at.ToJsonString()[:19] + "Z",
        entry.subject or entry.token_id or "-",
        entry.peer or "-",
        (entry.method.rpartition("/")[2] or "-") + times,
        entry.object or "-",
        f"{decision} {entry.reason}".rstrip(),
    )
