"""Requests to either door that are put together by hand, for what no client would send."""

import asyncio
import json
import re
from urllib.parse import urlsplit

from support.eventually import eventually
from support.http2 import DATA, END_HEADERS, END_STREAM, HEADERS, Connection, call, frame
from support.running import RunningServer

METHOD = "/jobledger.v1.JobService/ListJobs"
SECONDS = 30


async def said_over_rest(
    server: RunningServer, *lines: bytes, first: bytes = b"GET /v1/jobs HTTP/1.1", body: bytes = b""
) -> tuple[int, str]:
    """Status and code of the error, which tells no browser that it may read it.

    The host is the server's unless one of the header's lines says another.
    """
    url = urlsplit(server.url)
    host = [] if any(line.startswith(b"Host:") for line in lines) else [b"Host: " + url.netloc.encode()]
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    writer.write(b"\r\n".join([first, *host, b"Connection: close", *lines, b"", body]))
    async with asyncio.timeout(SECONDS):
        head, _, answer = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    assert b"access-control-" not in head.lower()
    told = json.loads(answer)
    return int(head.split()[1]), told.get("error_code") or told["error"]["code"]


async def said_over_grpc(server: RunningServer, *metadata: tuple[str, bytes], method: str = METHOD) -> tuple[int, str]:
    """Status and message of the error of a call that is made of frames."""
    host, _, port = server.target.rpartition(":")
    async with asyncio.timeout(SECONDS), await Connection.open(host, int(port)) as connection:
        await connection.send(frame(HEADERS, END_HEADERS, 1, call(method, *metadata)))
        await connection.send(frame(DATA, END_STREAM, 1, bytes(5)))
        await eventually(lambda: asyncio.sleep(0, connection.heads), until=lambda heads: b"grpc-message" in heads)
    told = re.search(rb"grpc-status.(\d+).*grpc-message.([ -~]+)", connection.heads, re.DOTALL)
    assert told, connection.heads
    return int(told[1]), told[2].decode()
