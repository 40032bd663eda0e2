"""What is wrong with the head of a request that aiohttp's parser lets pass."""

from aiohttp import HttpVersion10, HttpVersion11, hdrs
from aiohttp.http_exceptions import BadHttpMessage
from aiohttp.http_parser import RawRequestMessage

CHUNKED = "chunked"
SPOKEN = frozenset({HttpVersion11, HttpVersion10})


class HeadError(BadHttpMessage):
    """A head that is refused; its text is for the client."""


def fault_of(message: RawRequestMessage) -> HeadError | None:
    """Why a request is not answered, and its connection closed; None where nothing is wrong."""
    if message.version not in SPOKEN:
        return HeadError("The request is not of HTTP/1.1 or HTTP/1.0")
    codings = message.headers.getall(hdrs.TRANSFER_ENCODING, None)
    if codings is None:
        return None
    # RFC 9112 6.1: there is no telling where such a request ends.
    if message.version == HttpVersion10:
        return HeadError("A request of HTTP/1.0 can't have a Transfer-Encoding")
    if [coding.strip().lower() for coding in codings] != [CHUNKED]:
        return HeadError("The Transfer-Encoding is not understood: only chunked is")
    return None
