"""A client of the gateway that can also say what no client should."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import aiohttp
from gateway.engine import TOKEN
from multidict import CIMultiDict
from yarl import URL


@dataclass
class Answer:
    """An answer over HTTP, read to its end."""

    status: int
    headers: Any
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """A client of the gateway: aiohttp, or bytes on a socket."""

    def __init__(self, session: aiohttp.ClientSession, host: str, port: int) -> None:
        self.session = session
        self.host = host
        self.port = port
        self.base = f"http://{host}:{port}"

    async def ask(self, method: str, path: str, *, token: str | None = TOKEN, **more: Any) -> Answer:
        headers = {**({"Authorization": token} if token else {}), **more.pop("headers", {})}
        target = URL(self.base + path, encoded=True)
        async with self.session.request(method, target, headers=headers, allow_redirects=False, **more) as response:
            return Answer(response.status, response.headers, await response.read())

    async def get(self, path: str, **more: Any) -> Answer:
        return await self.ask("GET", path, **more)

    async def post(self, path: str, **more: Any) -> Answer:
        return await self.ask("POST", path, **more)

    async def raw(self, data: bytes) -> Answer:
        """Sends bytes as they are, and reads until the server closes."""
        reader, writer = await asyncio.open_connection(self.host, self.port)
        try:
            writer.write(data)
            received = await asyncio.wait_for(reader.read(), 10)
        finally:
            writer.close()
            await writer.wait_closed()
        return parse(received)

    async def line(self, line: bytes, *headers: bytes, body: bytes = b"", token: bool = True) -> Answer:
        """Sends one request whose first line is given raw."""
        fixed = [b"Host: 127.0.0.1", b"Connection: close"]
        if token:
            fixed.append(b"Authorization: " + TOKEN.encode())
        return await self.raw(b"\r\n".join([line, *fixed, *headers, b"", b""]) + body)


def parse(received: bytes) -> Answer:
    """The first answer in what a server sent.

    Raises:
        ValueError: it comes in chunks, and breaks off before the last of them.
    """
    head, _, body = received.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = CIMultiDict[str]((name, value) for name, _, value in (line.partition(": ") for line in lines))
    in_chunks = headers.get("Transfer-Encoding") == "chunked"
    return Answer(int(first.split()[1]), headers, b"".join(_chunks(body)) if in_chunks else body)


def _chunks(body: bytes) -> Iterator[bytes]:
    size, _, rest = body.partition(b"\r\n")
    while length := int(size, 16):
        yield rest[:length]
        size, _, rest = rest[length + 2 :].partition(b"\r\n")


async def eventually(holds: Callable[[], bool], *, within: float = 30.0) -> None:
    """Waits until something holds."""
    until = time.monotonic() + within
    while not holds():
        assert time.monotonic() < until, "it never came to hold"
        await asyncio.sleep(0.005)
