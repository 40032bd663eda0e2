"""`jobledger gc`: remove what retention no longer keeps."""

from typing import TYPE_CHECKING

import click

from jobledger.cli import output
from jobledger.cli.session import connected, json_option

if TYPE_CHECKING:
    from jobledger.client import Client


@click.command(name="gc")
@click.option("--dry-run", is_flag=True, help="Say what would go, and remove nothing.")
@json_option
@connected
async def command(client: "Client", /, *, dry_run: bool, as_json: bool) -> None:
    """Removes what the server need not keep any longer. It does so by itself every few minutes."""
    answer = await client.collect_garbage(dry_run=dry_run)
    if as_json:
        output.document(answer)
        return
    rows = [(item.name, str(item.count), output.size(item.bytes)) for item in answer.garbage if item.count]
    if rows:
        output.table(("CLASS", "WOULD GO" if dry_run else "REMOVED", "SIZE"), rows)
    else:
        output.note("There is nothing to remove.")
