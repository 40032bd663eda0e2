"""An HTTP client that costs next to nothing: requests are bytes, of answers only the end is looked for."""

import re
import selectors
import socket
import time
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

from benchmarks.framework import NotMeasuredError

LENGTH = re.compile(rb"\r\ncontent-length: ([0-9]+)\r\n", re.IGNORECASE)
LAST_CHUNK = b"\r\n0\r\n\r\n"
READ_SIZE, SECONDS = 1 << 20, 60.0


class Connection:
    """One connection, one request at a time. A selector may wait for it."""

    def __init__(self, address: str) -> None:
        """Connects to `host:port`."""
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._answer = b""

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def send(self, request: bytes) -> None:
        self._answer = b""
        self._socket.sendall(request)

    def receive(self) -> bytes | None:
        """Takes what has come; the whole answer once it is complete.

        Raises:
            NotMeasuredError: it is an error, or breaks off.
        """
        received = self._socket.recv(READ_SIZE)
        self._answer += received
        if not received:
            raise NotMeasuredError(f"the answer breaks off: {self._answer[:500]!r}")
        if not _is_whole(self._answer):
            return None
        if not self._answer.startswith(b"HTTP/1.1 200 "):
            raise NotMeasuredError(f"the answer is {self._answer[:500]!r}")
        return self._answer

    def ask(self, request: bytes) -> bytes:
        """The whole answer to a request."""
        self.send(request)
        while (answer := self.receive()) is None:
            pass
        return answer


def _is_whole(answer: bytes) -> bool:
    end = answer.find(b"\r\n\r\n")
    if end < 0:
        return False
    length = LENGTH.search(answer, 0, end + 2)
    return answer.endswith(LAST_CHUNK) if length is None else len(answer) >= end + 4 + int(length[1])


def get(path: str, token: str) -> bytes:
    """The bytes of a request."""
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n".encode()


def address_of(url: str) -> str:
    """Host and port of a URL."""
    return urlsplit(url).netloc


def rate(address: str, requests: Sequence[bytes], *, connections: int) -> float:
    """Requests a second, over so many connections, each with a next request when its answer is whole."""
    waiting: Iterator[bytes] = iter(requests)
    opened = [Connection(address) for _ in range(connections)]
    try:
        with selectors.DefaultSelector() as selector:
            began = time.monotonic()
            for connection in opened:
                _next(selector, connection, waiting, register=True)
            while selector.get_map():
                for key, _ in selector.select(SECONDS):
                    if key.data.receive() is not None:
                        _next(selector, key.data, waiting, register=False)
            return len(requests) / (time.monotonic() - began)
    finally:
        for connection in opened:
            connection.close()


def _next(
    selector: selectors.BaseSelector, connection: Connection, waiting: Iterator[bytes], *, register: bool
) -> None:
    request = next(waiting, None)
    if request is not None:
        connection.send(request)
        if register:
            selector.register(connection, selectors.EVENT_READ, connection)
    elif not register:
        selector.unregister(connection)
