"""`jobledger status`: how the server is."""

from typing import TYPE_CHECKING

import click

from jobledger.cli import output
from jobledger.cli.session import connected, json_option

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jobledger.client import Client


@click.command(name="status")
@json_option
@connected
async def command(client: "Client", /, *, as_json: bool) -> None:
    """Shows how the server is."""
    status = await client.status()
    if as_json:
        output.document(status)
        return
    states = ", ".join(f"{count} {state}" for state, count in sorted(status.jobs_by_state.items()) if count)
    print(f"{status.name} {status.version}: {output.coloured(output.one_line(status.health))}")
    print(f"up for     {output.span(status.uptime_ms / 1000)}")
    print(f"jobs       {states or 'none yet'}")
    print(f"running    {status.active_jobs} of at most {status.max_running}; {status.queue_depth} waiting")
    print(f"events     {status.first_sequence_number} to {status.last_sequence_number}")
    print(f"isolation  {status.isolation}")
    print(f"disk       {output.size(status.free_bytes)} free{_held(status.storage_bytes)}")


def _held(storage: "Mapping[str, int]") -> str:
    """What the server's data takes, once that was measured."""
    parts = ", ".join(f"{name} {output.size(count)}" for name, count in sorted(storage.items()))
    return f"; {parts}" if parts else ""
