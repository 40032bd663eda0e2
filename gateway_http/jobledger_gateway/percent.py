"""Percent-encoding, read strictly: every part of a request's target is decoded exactly once."""

import re

from jobledger_gateway.errors import bad_request

MAX_PARAMETERS = 256

ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})?")
# A target is printable ASCII; everything else must come percent-encoded.
UNPRINTABLE = re.compile(r"[^\x21-\x7e]")
CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def check_target(raw: str) -> None:
    """Refuses bytes that may not stand in a request's target.

    Raises:
        GatewayError: `BAD_REQUEST`.
    """
    if UNPRINTABLE.search(raw) or "#" in raw:
        raise bad_request("The request's target holds bytes that must be percent-encoded")


def check_path(path: str) -> None:
    """Refuses what can't be decoded in the path of a target that `check_target` lets pass.

    Raises:
        GatewayError: `BAD_REQUEST`, as of `decode_segment`.
    """
    # Of printable segments that escape nothing, those of dots alone are refused.
    if "%" in path or "/." in path:
        for segment in path.split("/"):
            decode_segment(segment)


def decode_segment(raw: str) -> str:
    """One segment of a path. `%2F` becomes a slash that does not part segments.

    Raises:
        GatewayError: `BAD_REQUEST` for bad escapes, bad UTF-8, control characters, `.` and `..`.
    """
    text = _decode(raw, where="path") if "%" in raw else raw
    if CONTROL.search(text):
        raise bad_request("The path holds a control character")
    if text in {".", ".."}:
        raise bad_request("The path holds a dot segment")
    return text


def parse_query(raw: str) -> list[tuple[str, str]]:
    """Names and values of a query string in order; `+` is a space.

    Raises:
        GatewayError: `BAD_REQUEST` for bad escapes, bad UTF-8, NUL, or more than 256 parameters.
    """
    pieces = [piece for piece in raw.split("&") if piece]
    if len(pieces) > MAX_PARAMETERS:
        raise bad_request(f"The query has more than {MAX_PARAMETERS} parameters")
    pairs = []
    for piece in pieces:
        name, _, value = piece.replace("+", " ").partition("=")
        pair = _decode(name, where="query"), _decode(value, where="query")
        if "\0" in pair[0] or "\0" in pair[1]:
            raise bad_request("The query holds a NUL")
        pairs.append(pair)
    return pairs


def _decode(raw: str, *, where: str) -> str:
    if "%" not in raw:
        return raw
    out = bytearray()
    end = 0
    for escape in ESCAPE.finditer(raw):
        if escape[1] is None:
            raise bad_request(f"The {where} holds a '%' that two hex digits do not follow")
        out += raw[end : escape.start()].encode()
        out.append(int(escape[1], 16))
        end = escape.end()
    out += raw[end:].encode()
    try:
        return out.decode()
    except UnicodeDecodeError:
        raise bad_request(f"The {where} is not UTF-8 once decoded") from None
