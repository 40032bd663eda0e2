"""`jobledger status`: how the server is."""

from typing import TYPE_CHECKING

import click

from jobledger.cli import output
from jobledger.cli.session import connected, json_option

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jobledger.client import Client
    from jobledger.v1.engine_service_pb2 import EngineStatus


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
    print(f"events     {_kept(status.first_sequence_number, status.last_sequence_number)}")
    print(f"isolation  {status.isolation}")
    if status.artifacts_quarantined:
        print(f"damaged    {status.artifacts_quarantined} artifacts quarantined since the start: the log names them")
    print(f"disk       {output.size(status.free_bytes)} free{_held(status.storage_bytes)}")
    print(f"swept      {_swept(status)}")


def _kept(first: int, last: int) -> str:
    """Which events there are: of the older ones the numbers alone are left."""
    if not last:
        return "none yet"
    return f"{first} to {last}" if first else f"none kept of 1 to {last}"


def _swept(status: "EngineStatus") -> str:
    """When retention was last enforced, and what it has removed."""
    if not status.HasField("swept_at"):
        return "not yet since the start"
    removed = ", ".join(f"{count} {name}" for name, count in sorted(status.collected.items()) if count)
    return (
        f"{output.span(output.seconds_between(status.swept_at))} ago; removed since the start: {removed or 'nothing'}"
    )


def _held(storage: "Mapping[str, int]") -> str:
    """What the server's data takes, once that was measured."""
    parts = ", ".join(f"{name} {output.size(count)}" for name, count in sorted(storage.items()))
    return f"; {parts}" if parts else ""
