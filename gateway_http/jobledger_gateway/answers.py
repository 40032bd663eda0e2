"""Answers as JSON, kept where a strong validator names them.

The call itself is made every time: it is the server who says whether the caller may see the answer, and which one it
is. What is spared is encoding it again.
"""

from collections import OrderedDict
from typing import Any

from jobledger_gateway.encoding import encode_json

MOST_BYTES = 64 * 1024 * 1024
WEAK = "W/"


class Answers:
    """The answers used last, within a number of bytes."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._bytes = 0
        self._kept: OrderedDict[tuple[str, str], bytes] = OrderedDict()

    def json(self, method: str, etag: str | None, message: Any) -> bytes:
        """The message as JSON; a server within this process may give that in its place.

        Args:
            method: full name of the method whose answer it is; no other has it by the same tag.
            etag: the answer's entity tag, as its header has it; None where there is none.
        """
        ready: bytes | None = getattr(message, "plain_json", None)
        if ready is not None:
            return ready
        if etag is None or etag.startswith(WEAK):
            return encode_json(message)
        key = (method, etag)
        encoded = self._kept.get(key)
        if encoded is None:
            encoded = encode_json(message)
            self._keep(key, encoded)
        else:
            self._kept.move_to_end(key)
        return encoded

    def _keep(self, key: tuple[str, str], encoded: bytes) -> None:
        self._kept[key] = encoded
        self._bytes += len(encoded)
        while self._bytes > self._most_bytes:
            _, oldest = self._kept.popitem(last=False)
            self._bytes -= len(oldest)
