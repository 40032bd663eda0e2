"""Floods and dawdling, against both doors of a server on this machine, bounded in count and time.

`python -m support.attackers NAME HOST PORT COUNT` runs one in a process of its own, so that it takes no time of who
measures meanwhile, and prints what became of it as JSON: see `Outcome`.
"""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import TypeAlias

from support.http2 import CANCEL, END_HEADERS, GOAWAY, HEADERS, PING, RST_STREAM, Connection, call, frame

# No attack goes on for longer, whatever the server does.
MOST_SECONDS = 60.0
# A server that has said nothing for so long has no more to say: a busy one is slow, not mute.
QUIET_SECONDS = 3.0
METHOD = "/jobledger.v1.JobService/ListJobs"
LOOPBACK = ("127.0.0.1", "::1")
AT_A_TIME = 500


@dataclass(frozen=True)
class Outcome:
    """What became of an attack.

    Attributes:
        sent: of what it sends: calls, pings, connections.
        connections: how many it made, of which `closed` were closed by the server, the last one after `seconds`.
        resets: streams that the server refused or reset, and connections that it said farewell to.
    """

    sent: int
    connections: int
    closed: int
    seconds: float
    resets: int = 0


Attack: TypeAlias = Callable[[str, int, int], Awaitable[Outcome]]


async def rapid_resets(host: str, port: int, count: int) -> Outcome:
    """Calls that are taken back in the same breath, on one connection after the other as the server closes them."""
    began, sent, connections, resets = time.monotonic(), 0, 0, 0
    while sent < count:
        connections += 1
        async with await Connection.open(host, port) as connection:
            for number in range(1, 2 * count, 2):
                opened = frame(HEADERS, END_HEADERS, number, call(METHOD)) + frame(RST_STREAM, 0, number, CANCEL)
                if sent >= count or not await connection.send(opened):
                    break
                sent += 1
                if sent % AT_A_TIME == 0:
                    await asyncio.sleep(0)
            resets += connection.seen[RST_STREAM]
    return Outcome(sent, connections, connections - 1, time.monotonic() - began, resets)


async def streams(host: str, port: int, count: int) -> Outcome:
    """Calls that are begun on one connection and never end."""
    began, sent = time.monotonic(), 0
    async with await Connection.open(host, port) as connection:
        for number in range(1, 2 * count, 2):
            if not await connection.send(frame(HEADERS, END_HEADERS, number, call(METHOD))):
                break
            sent += 1
        closed = await _settled(connection)
        resets = connection.seen[RST_STREAM] + connection.seen[GOAWAY]
    return Outcome(sent, 1, int(closed), time.monotonic() - began, resets)


async def pings(host: str, port: int, count: int) -> Outcome:
    """More pings than anybody needs."""
    began, sent = time.monotonic(), 0
    async with await Connection.open(host, port) as connection:
        while sent < count and await connection.send(frame(PING, 0, 0, sent.to_bytes(8, "big"))):
            sent += 1
        closed = await _settled(connection)
        resets = connection.seen[GOAWAY]
    return Outcome(sent, 1, int(closed), time.monotonic() - began, resets)


async def _settled(connection: Connection) -> bool:
    """Waits until the server closes the connection, or says nothing more for a while; whether it closed."""
    heard, until = -1, time.monotonic() + MOST_SECONDS
    while heard < connection.seen.total() and time.monotonic() < until:
        heard = connection.seen.total()
        try:
            await asyncio.wait_for(connection.closed(), QUIET_SECONDS)
        except TimeoutError:
            continue
        return True
    return False


def dawdling(head: bytes, drip: bytes = b"") -> Attack:
    """Connections that send a beginning, and then a byte every half second, or nothing."""

    async def attack(host: str, port: int, count: int) -> Outcome:
        began = time.monotonic()
        lasted = await asyncio.gather(*(_dawdle(host, port, head, drip) for _ in range(count)))
        ended = [moment - began for moment in lasted if moment is not None]
        return Outcome(count, count, len(ended), max(ended, default=0.0))

    return attack


async def _dawdle(host: str, port: int, head: bytes, drip: bytes) -> float | None:
    """When the server closed the connection; None where it did not."""
    reader, writer = await asyncio.open_connection(host, port)
    reading = asyncio.create_task(_to_the_end(reader))
    until = time.monotonic() + MOST_SECONDS
    try:
        writer.write(head)
        while not reading.done() and time.monotonic() < until:
            writer.write(drip)
            await asyncio.wait([reading], timeout=0.5)
        return time.monotonic() if reading.done() else None
    finally:
        reading.cancel()
        writer.close()


async def _to_the_end(reader: asyncio.StreamReader) -> None:
    try:
        while await reader.read(65_536):
            pass
    except ConnectionError:
        return


REQUEST = b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
ATTACKS: dict[str, Attack] = {
    "rapid-resets": rapid_resets,
    "streams": streams,
    "pings": pings,
    "silent": dawdling(b""),
    "header-drip": dawdling(REQUEST + b"X-Slow: ", b"x"),
    # Without something like a token the body is not waited for; with a large one the token is looked at first.
    "body-drip": dawdling(REQUEST + b"Authorization: Bearer jl_0_0\r\nContent-Length: 16000\r\n\r\n", b" "),
}
# Those against gRPC; `silent` goes to either.
OVER_GRPC = ("rapid-resets", "streams", "pings")


async def bounded(name: str, host: str, port: int, count: int) -> Outcome:
    """Runs an attack.

    Raises:
        ValueError: against anything but this machine.
        TimeoutError: it did not come to an end.
    """
    if host not in LOOPBACK:
        raise ValueError(f"{host} is not this machine")
    return await asyncio.wait_for(ATTACKS[name](host, port, count), 2 * MOST_SECONDS)


async def elsewhere(name: str, target: str, count: int) -> Outcome:
    """Runs an attack in a process of its own, against `host:port`."""
    host, _, port = target.removeprefix("http://").rpartition(":")
    command = (sys.executable, "-m", "support.attackers", name, host, port, str(count))
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, cwd=TESTS)
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise RuntimeError(f"the attack {name} ended with exit code {process.returncode}")
    return Outcome(**json.loads(output))


TESTS = __file__.rpartition("/support/")[0]

if __name__ == "__main__":
    print(json.dumps(asdict(asyncio.run(bounded(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))))))
