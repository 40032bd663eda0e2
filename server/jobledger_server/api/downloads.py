"""Bytes as a stream of HttpBody, and the names that they are saved under."""

from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from urllib.parse import quote

from google.api.httpbody_pb2 import HttpBody

from jobledger_server.api.types import Body, Context

MESSAGE_BYTES = 256 * 1024


async def bodies(chunks: AsyncIterator[bytes], content_type: str, context: Context) -> AsyncIterator[HttpBody | Body]:
    """The chunks as messages. The content type stands in the first one, which comes even where there are no bytes."""
    form = Body if getattr(context, "takes_bodies", False) else HttpBody
    first = True
    async with aclosing(chunks):  # type: ignore[type-var]
        async for chunk in chunks:
            for part in (chunk,) if form is Body else cut(chunk):
                yield form(content_type=content_type if first else "", data=part)
                first = False
    if first:
        yield form(content_type=content_type, data=b"")


def cut(chunk: bytes) -> Iterator[bytes]:
    """What goes into one message each: of larger ones the copies that grpc makes cost twice as much a byte."""
    for start in range(0, len(chunk), MESSAGE_BYTES):
        yield chunk[start : start + MESSAGE_BYTES]


def attachment(name: str) -> str:
    """Content-Disposition (RFC 6266) that saves under this name; beyond printable ASCII by `filename*`."""
    plain = "".join(character if " " <= character <= "~" and character not in '"\\%' else "_" for character in name)
    if plain == name:
        return f'attachment; filename="{name}"'
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
