"""As much of HTTP/2 as it takes to misuse it: frames by hand, header blocks without compression."""

import asyncio
import struct
from collections import Counter
from collections.abc import Iterable
from types import TracebackType

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY = 0, 1, 3, 4, 6, 7
END_STREAM, ACK, END_HEADERS = 1, 1, 4
CANCEL = struct.pack(">I", 8)


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame; payloads of at most 16,384 bytes."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def block(headers: Iterable[tuple[str, str | bytes]]) -> bytes:
    """A header block: literals that are not indexed, of whatever bytes."""
    return b"".join(b"\x00" + _literal(name) + _literal(value) for name, value in headers)


def _literal(text: str | bytes) -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    if len(raw) < 127:
        return b"%c%s" % (len(raw), raw)
    length, rest = b"\x7f", len(raw) - 127
    while rest >= 128:
        length, rest = length + b"%c" % (rest % 128 + 128), rest // 128
    return length + b"%c%s" % (rest, raw)


def call(method: str, *more: tuple[str, str | bytes]) -> bytes:
    """The header block of a gRPC call."""
    pseudo = ((":method", "POST"), (":scheme", "http"), (":path", method), (":authority", "localhost"))
    return block((*pseudo, ("content-type", "application/grpc"), ("te", "trailers"), *more))


class Connection:
    """One connection: what is sent is up to the caller; what comes is counted by kind of frame, pings are answered.

    Attributes:
        seen: frames by their kind.
        heads: the header blocks that came, as they are.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, polite: bool) -> None:
        self.writer = writer
        self.seen: Counter[int] = Counter()
        self.heads = b""
        self._polite = polite
        self._reading = asyncio.create_task(self._read(reader))

    @classmethod
    async def open(cls, host: str, port: int, *, polite: bool = True) -> "Connection":
        """Connects and says hello. One that is not polite answers nothing, pings and settings included."""
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(PREFACE + frame(SETTINGS, 0, 0))
        return cls(reader, writer, polite=polite)

    async def send(self, data: bytes) -> bool:
        """Whether the other side still takes it."""
        if self._reading.done():
            return False
        try:
            self.writer.write(data)
            await self.writer.drain()
        except ConnectionError:
            return False
        return True

    async def closed(self) -> None:
        """Waits until the other side has closed."""
        await asyncio.shield(self._reading)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                head = await reader.readexactly(9)
                payload = await reader.readexactly(int.from_bytes(head[:3], "big"))
                kind, flags = head[3], head[4]
                self.seen[kind] += 1
                self.heads += payload if kind == HEADERS else b""
                if self._polite and kind in (PING, SETTINGS) and not flags & ACK:
                    self.writer.write(frame(kind, ACK, 0, payload if kind == PING else b""))
        except (asyncio.IncompleteReadError, ConnectionError):
            return

    async def __aenter__(self) -> "Connection":
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        self.writer.close()
