"""Floods and dawdlers at both doors: others are served, memory stays, and who comes to no point is closed.

JOBLEDGER_ABUSE=1 takes more connections, and adds those that are given a quarter of a minute to come to a point.
"""

import asyncio
import os
import time
from pathlib import Path

import aiohttp
import pytest
from faults.serving import serving
from support.attackers import ATTACKS, OVER_GRPC, Outcome, elsewhere
from support.doors import Door, RestDoor
from support.eventually import pace
from support.running import RunningServer

AT_LENGTH = bool(os.environ.get("JOBLEDGER_ABUSE"))
COUNTS = {"rapid-resets": 20_000, "streams": 10_000, "pings": 10_000}
DAWDLERS = 300 if AT_LENGTH else 50
CALLS_PER_SECOND = 50
MOST_GROWTH_MEGABYTES = 64
# Stated are 5 s for a handshake, 15 s for a head or a body, and 2 s for the rest of one: a busy machine gets more.
CLOSED_WITHIN = 30.0


class Bystander:
    """A client of one door that lists jobs at a steady rate, and how long it waited."""

    def __init__(self, door: Door) -> None:
        self.door = door
        self.waited: list[float] = []

    async def go_on(self, until: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as calls:
            while not until.is_set():
                calls.create_task(self._ask())
                await pace(1 / CALLS_PER_SECOND)

    async def _ask(self) -> None:
        began = time.monotonic()
        assert (await self.door.call("ListJobs"))["total"] == 1
        self.waited.append(time.monotonic() - began)

    def p99(self) -> float:
        return sorted(self.waited)[int(0.99 * (len(self.waited) - 1))]


async def attacked(server: RunningServer, *attacks: tuple[str, str, int]) -> list[Outcome]:
    return list(await asyncio.gather(*(elsewhere(name, target, count) for name, target, count in attacks)))


async def bystanders_meanwhile(
    server: RunningServer, doors: list[Door], attacks: list[tuple[str, str, int]]
) -> tuple[list[Outcome], list[Bystander]]:
    over, bystanders = asyncio.Event(), [Bystander(door) for door in doors]
    async with asyncio.TaskGroup() as tasks:
        for bystander in bystanders:
            tasks.create_task(bystander.go_on(over))
        try:
            outcomes = await attacked(server, *attacks)
        finally:
            over.set()
    return outcomes, bystanders


def tell(outcomes: list[Outcome], bystanders: list[Bystander], grown: float) -> None:
    """For `pytest -s`: times are told, never judged."""
    for outcome in outcomes:
        print(f"\n  {outcome}", end="")
    for bystander in bystanders:
        print(f"\n  {bystander.door.name}: {len(bystander.waited)} calls, p99 {1000 * bystander.p99():.0f} ms", end="")
    print(f"\n  memory grew by {grown:.1f} MB")


@pytest.mark.timeout(240)
async def test_floods_and_dawdlers_hinder_nobody_and_are_closed(tmp_path: Path) -> None:
    async with serving(tmp_path / "data") as (server, door), aiohttp.ClientSession() as session:
        await door.ended((await door.create("true"))["job_id"])
        before = await asyncio.to_thread(server.resident_megabytes)
        floods = [(name, server.target, count) for name, count in COUNTS.items()]
        dawdlers = [("silent", server.target, DAWDLERS)]
        if AT_LENGTH:
            slow = [name for name in ATTACKS if name not in OVER_GRPC]
            dawdlers += [(name, server.url, DAWDLERS) for name in slow]
        doors: list[Door] = [door, RestDoor(session, server.url, server.token)]
        outcomes, bystanders = await bystanders_meanwhile(server, doors, floods + dawdlers)
        grown = await asyncio.to_thread(server.resident_megabytes) - before
        tell(outcomes, bystanders, grown)
        resets, streams, pings, *dawdled = outcomes
        assert resets.sent == COUNTS["rapid-resets"]
        assert streams.resets >= COUNTS["streams"] - 2 * 128, "streams beyond those that a connection may have"
        # However many were sent: gRPC closes once it has written what it had begun, and a flood may keep it writing.
        assert pings.closed == 1
        assert [outcome.closed for outcome in dawdled] == [DAWDLERS] * len(dawdlers)
        assert max(outcome.seconds for outcome in dawdled) < CLOSED_WITHIN
        assert all(bystander.waited for bystander in bystanders)
        assert grown < MOST_GROWTH_MEGABYTES
