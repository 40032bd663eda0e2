"""Answers as JSON, kept where a strong validator names them, or their own bytes.

The call itself is made every time: it is the server who says whether the caller may see the answer, and which one it
is. What is spared is encoding it again.
"""

from collections import OrderedDict
from typing import Any

from jobledger_gateway.encoding import encode_json

MOST_BYTES = 64 * 1024 * 1024
# Of answers that are known by their bytes, as who polls a job is given them: all together, and one.
MOST_BYTES_POLLED, MOST_BYTES_OF_POLLED = 4 * 1024 * 1024, 16 * 1024
WEAK = "W/"


class Kept:
    """JSON used last, within a number of bytes, that of the keys included."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._bytes = 0
        self._kept: OrderedDict[tuple[str, str | bytes], bytes] = OrderedDict()

    def json(self, key: tuple[str, str | bytes], message: Any) -> bytes:
        """The JSON of the message that the key stands for."""
        encoded = self._kept.get(key)
        if encoded is None:
            encoded = encode_json(message)
            self._keep(key, encoded)
        else:
            self._kept.move_to_end(key)
        return encoded

    def _keep(self, key: tuple[str, str | bytes], encoded: bytes) -> None:
        self._kept[key] = encoded
        self._bytes += len(key[1]) + len(encoded)
        while self._bytes > self._most_bytes:
            (_, name), oldest = self._kept.popitem(last=False)
            self._bytes -= len(name) + len(oldest)


class Answers:
    """The answers used last, within a number of bytes."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._tagged, self._polled = Kept(most_bytes), Kept(MOST_BYTES_POLLED)

    def json(self, method: str, etag: str | None, message: Any, *, is_read: bool = False) -> bytes:
        """The message as JSON; a server within this process may give that in its place.

        Args:
            method: full name of the method whose answer it is; no other has it by the same tag.
            etag: the answer's entity tag, as its header has it, where no other answer of the method has it, whoever
                calls; else None.
            is_read: whether it may be kept without a tag; what a change answers may be a secret that is told once.
        """
        ready: bytes | None = getattr(message, "plain_json", None)
        if ready is not None:
            return ready
        if etag is not None and not etag.startswith(WEAK):
            return self._tagged.json((method, etag), message)
        if not is_read or message.ByteSize() > MOST_BYTES_OF_POLLED:
            return encode_json(message)
        # Maps have no order of their own: it must not tell the same answer from itself.
        return self._polled.json((method, message.SerializeToString(deterministic=True)), message)
