"""Taking times, and what they come to. All times are seconds of the monotonic clock."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

from benchmarks.framework import Goal, Row
from support.eventually import pace

Call = Callable[[], Awaitable[object]]


def percentile(samples: Sequence[float], share: float) -> float:
    """The smallest sample that at least `share` (0 to 1) of them do not exceed."""
    return sorted(samples)[max(0, math.ceil(share * len(samples)) - 1)]


def median(samples: Sequence[float]) -> float:
    """The 50th percentile."""
    return percentile(samples, 0.5)


def millis(name: str, seconds: float, at_most: float | None = None) -> Row:
    """A row in milliseconds."""
    return Row(name=name, value=seconds * 1000, unit="ms", goal=None if at_most is None else Goal(at_most))


def ratio(name: str, value: float, peer: float, at_most: float) -> Row:
    """A row that says how many times as long as its peer something takes."""
    return Row(name=name, value=value / peer, unit="times", goal=Goal(at_most))


async def timed(call: Call) -> float:
    """How long it takes."""
    began = time.monotonic()
    await call()
    return time.monotonic() - began


async def interleaved(rounds: int, contenders: Mapping[str, Call]) -> dict[str, list[float]]:
    """How long each takes, `rounds` times: one after the other in turn, so that all meet the same machine.

    Every other round goes backwards: none always profits from what another has left in the caches.
    """
    samples: dict[str, list[float]] = {name: [] for name in contenders}
    order = list(contenders)
    for _ in range(rounds):
        for name in order:
            samples[name].append(await timed(contenders[name]))
        order.reverse()
    return samples


async def steadily(call: Call, *, rate: float, until: Callable[[float], bool]) -> list[float]:
    """Latencies of calls that go out at fixed instants, answered or not the ones before.

    Each is counted from the instant at which it was due: a stall counts for every call that it holds up, and so does
    this process's own lateness, of a millisecond by the loop's timers.

    Args:
        rate: calls a second.
        until: told the seconds since the beginning, says whether to stop.
    """
    loop, latencies, count = asyncio.get_running_loop(), list[float](), 0
    began = loop.time()

    async def one(due: float) -> None:
        await call()
        latencies.append(loop.time() - due)

    async with asyncio.TaskGroup() as calls:
        while not until(loop.time() - began):
            due, count = began + count / rate, count + 1
            await pace(max(0.0, due - loop.time()))
            calls.create_task(one(due))
    return latencies


async def together(calls: Sequence[Call], *, callers: int) -> None:
    """Makes all calls, as many as there are callers at a time."""
    waiting = iter(calls)

    async def caller() -> None:
        for call in waiting:
            await call()

    async with asyncio.TaskGroup() as group:
        for _ in range(callers):
            group.create_task(caller())
