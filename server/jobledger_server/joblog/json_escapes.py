"""Finds texts in bytes where JSON may have escaped their characters. Standard library only.

Each character may stand for itself or be escaped (`=`, `\\u003D`, `\\u003d`; `"`, `\\"`), one by one as the writer
likes, and JSON within a string of JSON has its backslashes doubled. So bytes and texts are compared without escapes:
`\\uXXXX` is its character, control characters are the letters that escape them, and backslashes are nothing. What is
found so may be more than was looked for, never less.
"""

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

# Any number of backslashes, one of which may be escaped itself; and what they escape by its code, in one unit or two.
BACKSLASHES = rb"\\+(?:u005[cC]\\*)*"
CODE = rb"(?:u([dD][89abAB][0-9a-fA-F]{2})\\+u([dD][c-fC-F][0-9a-fA-F]{2})|u([0-9a-fA-F]{4}))"
CODED, ESCAPED = re.compile(BACKSLASHES + CODE), re.compile(BACKSLASHES + CODE + b"?")
LETTERS = str.maketrans("\b\f\n\r\t", "bfnrt")
# Characters that JSON can escape by something else than a code.
SHORT = frozenset('\b\f\n\r\t\\"/')
# Of an escape that stands within two strings of JSON.
LONGEST_UNIT = len(r"\\\\\\\\uXXXX")


def without_escapes(text: str) -> bytes:
    """A text as it is looked for."""
    return plain(text.translate(LETTERS).encode("utf-8", "surrogateescape"))


def plain(data: bytes) -> bytes:
    """Bytes as texts are looked for in them."""
    return CODED.sub(_character, data).replace(b"\\", b"")


def longest_spelling(text: str) -> int:
    """The most bytes that a spelling of it takes."""
    return LONGEST_UNIT * len(text.encode("utf-16-le", "surrogatepass")) // 2


def spans(data: bytes, texts: Sequence[bytes]) -> Iterator[tuple[int, int]]:
    """Where texts stand in bytes, text by text.

    Args:
        texts: none empty, as `without_escapes` gives them.
    """
    stripped = _Stripped.of(data)
    for text in texts:
        at = stripped.data.find(text)
        while at >= 0:
            yield stripped.span(at, at + len(text))
            at = stripped.data.find(text, at + 1)


class _Stripped(NamedTuple):
    """Bytes without escapes, in parts: of each, where it begins, and where in the original.

    An escape is a part by itself, which ends in the original where the next one begins; so it is with backslashes, of
    which nothing is left.
    """

    data: bytes
    starts: Sequence[int]
    origins: Sequence[int]
    escapes: Sequence[bool]

    @classmethod
    def of(cls, data: bytes) -> "_Stripped":
        parts, starts, origins, escapes = list[bytes](), list[int](), list[int](), list[bool]()
        start = position = 0

        def add(part: bytes, origin: int, *, is_escape: bool) -> None:
            nonlocal start
            parts.append(part)
            starts.append(start)
            origins.append(origin)
            escapes.append(is_escape)
            start += len(part)

        for found in ESCAPED.finditer(data):
            add(data[position : found.start()], position, is_escape=False)
            add(_character(found), found.start(), is_escape=True)
            position = found.end()
        add(data[position:], position, is_escape=False)
        return cls(b"".join(parts), starts, [*origins, len(data)], escapes)

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Where in the original something stands, with the backslashes before it."""
        first, last = (bisect_right(self.starts, at) - 1 for at in (start, end - 1))
        begin = self.origins[first]
        if not self.escapes[first]:
            inside = start - self.starts[first]
            begin = begin + inside if inside or not first else self._before(first)
        stop = self.origins[last + 1] if self.escapes[last] else self.origins[last] + end - self.starts[last]
        return begin, stop

    def _before(self, part: int) -> int:
        """Where the backslashes begin that stand before a part and have left nothing; else where the part does."""
        return self.origins[part - 1 if self.starts[part - 1] == self.starts[part] else part]


def _character(escape: re.Match[bytes]) -> bytes:
    """What stands for an escape."""
    return _decoded(*escape.groups())


@lru_cache(maxsize=1024)
def _decoded(high: bytes | None, low: bytes | None, single: bytes | None) -> bytes:
    if high and low:
        return bytes.fromhex((high + low).decode()).decode("utf-16-be").encode()
    character = chr(int(single, 16)).translate(LETTERS) if single else ""
    return character.replace("\\", "").encode("utf-8", "replace")
