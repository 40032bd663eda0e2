"""Many readers of the event stream in a process of their own: `python -m benchmarks.sse_readers URL TOKEN_FILE COUNT`.

It says `ready` once all are connected, and reads until two instants arrive on standard input: between which events were
made. Once all have read them it answers with one line of JSON: see `Readings`.

HTTP is read by hand, and without asyncio: either would take more time for an event than the server does.
"""

import json
import re
import select
import selectors
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

from benchmarks.measuring import percentile

# An event is one write of the server and so lies in one chunk: what frames chunks stands between events.
NUMBERED = re.compile(rb"\nid: ([0-9]+)\ndata: ([^\n]+)\n")
LIVE = b"event: replay.complete\n"
CONNECTING, SETTLE_SECONDS, SLICE_SECONDS = 50, 30.0, 0.05
READ_SIZE = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Readings:
    """What all readers saw of the events made in a span of time.

    Attributes:
        events: how many there were.
        arrivals: of all readers together.
        missed: arrivals that did not come about within 30 s.
        disordered: those that came again, or after one with a higher number.
        p50, p99, longest: seconds from the instant that the event names to its arrival.
    """

    events: int
    arrivals: int
    missed: int
    disordered: int
    p50: float
    p99: float
    longest: float


class Reader:
    """One connection.

    Attributes:
        live: whether what comes now is new.
        arrivals: number, and instant of arrival (Unix, seconds), of each event.
    """

    def __init__(self, data: dict[int, bytes]) -> None:
        """`data` gets the JSON of each event that it does not have yet."""
        self.live = False
        self.arrivals: list[tuple[int, float]] = []
        self._data = data
        self._held = b""

    def feed(self, received: bytes, now: float) -> None:
        """Takes what has come."""
        whole, separator, self._held = (self._held + received).rpartition(b"\n\n")
        block = whole + separator
        self.live = self.live or LIVE in block
        for match in NUMBERED.finditer(block):
            number = int(match[1])
            self.arrivals.append((number, now))
            self._data.setdefault(number, match[2])

    @property
    def last(self) -> int:
        return self.arrivals[-1][0] if self.arrivals else 0


def main(url: str, token_file: str, count: int) -> None:
    """Connects, says so, reads, and tells."""
    address = urlsplit(url)
    head = (
        f"GET /v1/stream HTTP/1.1\r\nHost: {address.netloc}\r\nAccept: text/event-stream\r\n"
        f"Authorization: Bearer {Path(token_file).read_text().strip()}\r\n\r\n"
    ).encode()
    data: dict[int, bytes] = {}
    readers = [Reader(data) for _ in range(count)]
    with selectors.DefaultSelector() as selector:
        for start in range(0, count, CONNECTING):
            _connect(selector, (str(address.hostname), int(address.port or 80)), head, readers[start:][:CONNECTING])
        print("ready", flush=True)
        while not select.select([sys.stdin], [], [], 0)[0]:
            pump(selector, SLICE_SECONDS)
        began, ended = json.loads(sys.stdin.readline())
        instants = _settled(selector, readers, data, began, ended)
    print(json.dumps(asdict(readings(readers, instants))), flush=True)


def _connect(
    selector: selectors.BaseSelector, address: tuple[str, int], head: bytes, readers: Sequence[Reader]
) -> None:
    """Connects a few at a time, as the listener's queue allows."""
    for reader in readers:
        connection = socket.create_connection(address, SETTLE_SECONDS)
        connection.sendall(head)
        selector.register(connection, selectors.EVENT_READ, reader)
    deadline = time.monotonic() + SETTLE_SECONDS
    while not all(reader.live for reader in readers):
        if time.monotonic() > deadline:
            sys.exit("the server does not take so many readers")
        pump(selector, SLICE_SECONDS)


def pump(selector: selectors.BaseSelector, seconds: float) -> None:
    """Reads for so long."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        for key, _ in selector.select(left):
            connection = cast("socket.socket", key.fileobj)
            received = connection.recv(READ_SIZE)
            if received:
                key.data.feed(received, time.time())
            else:
                selector.unregister(connection)
                connection.close()


def _settled(
    selector: selectors.BaseSelector,
    readers: Sequence[Reader],
    data: Mapping[int, bytes],
    began: float,
    ended: float,
) -> Mapping[int, float]:
    """The events made in that span: number and instant (Unix, seconds). Waits, within bounds, until all have them."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        pump(selector, 10 * SLICE_SECONDS)
        known = {number: _instant(event) for number, event in sorted(data.items())}
        instants = {number: instant for number, instant in known.items() if began <= instant <= ended}
        last = max(instants, default=0)
        # Who is behind at the deadline has missed what it has not: `readings` says how much.
        if all(reader.last >= last for reader in readers) or time.monotonic() > deadline:
            return instants


def _instant(event: bytes) -> float:
    return datetime.fromisoformat(json.loads(event)["timestamp_utc"]).timestamp()


def readings(readers: Sequence[Reader], instants: Mapping[int, float]) -> Readings:
    """What the readers saw of these events."""
    seen = [[(number, at) for number, at in reader.arrivals if number in instants] for reader in readers]
    latencies = [at - instants[number] for arrivals in seen for number, at in arrivals]
    return Readings(
        events=len(instants),
        arrivals=len(latencies),
        missed=sum(len(instants) - len({number for number, _ in arrivals}) for arrivals in seen),
        disordered=sum(disordered([number for number, _ in arrivals]) for arrivals in seen),
        p50=percentile(latencies, 0.50),
        p99=percentile(latencies, 0.99),
        longest=max(latencies),
    )


def disordered(numbers: Sequence[int]) -> int:
    """How many do not exceed the one before them."""
    return sum(following <= number for number, following in pairwise(numbers))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
