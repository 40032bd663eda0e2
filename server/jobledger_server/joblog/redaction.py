"""Keeps secrets out of what is written: each place where one stands becomes `***`. Standard library only.

A secret is found as it is, in its lines (of a key in several lines each one that is not short), and as JSON spells
either. That is what a program prints by accident: one that encodes or takes apart a secret on purpose can't be stopped.
"""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from jobledger_server.joblog.segments import Stream
from jobledger_server.joblog.writer import LogWriter

MASK = b"***"
# A shorter line of a secret stands elsewhere too.
SHORTEST_LINE = 8
FOR_HTML = str.maketrans({character: f"\\u{ord(character):04x}" for character in "<>&"})


class Secrets:
    """What must not be written."""

    def __init__(self, values: Iterable[str]) -> None:
        """Secrets with these values; bytes beyond UTF-8 as in `os.fsdecode`. White space around them does not count."""
        patterns = {spelling for value in values for part in _parts(value) for spelling in _spellings(part)}
        # Of several that begin at the same place the longest is meant, and `re` takes the first.
        self.patterns = sorted(patterns, key=lambda pattern: (-len(pattern), pattern))

    def __bool__(self) -> bool:
        return bool(self.patterns)

    def hide(self, data: bytes) -> bytes:
        """The bytes without secrets."""
        search = self._search(data)
        return search.sub(MASK, data) if search else data

    def hide_in_text(self, text: str) -> str:
        """The same for a text."""
        return self.hide(text.encode("utf-8", "surrogateescape")).decode("utf-8", "surrogateescape")

    def hide_in_json(self, document: bytes) -> bytes:
        """The same for a JSON document, however it spells its characters.

        Raises:
            ValueError: it is none.
        """
        return self.hide(json.dumps(json.loads(document)).encode())

    def found_in(self, data: bytes) -> Iterator[re.Match[bytes]]:
        """The secrets in it, from left to right: of those that overlap the first, of those the longest."""
        search = self._search(data)
        return search.finditer(data) if search else iter(())

    def _search(self, data: bytes) -> re.Pattern[bytes] | None:
        """For those that are there. To look for each by itself first takes a tenth of what one search for all does."""
        present = [pattern for pattern in self.patterns if pattern in data]
        return re.compile(b"|".join(map(re.escape, present))) if present else None

    def cut_off(self, data: bytes, start: int = 0) -> int:
        """Where, from `start` on, the first secret begins that the end may have cut off; else the end."""
        first = len(data)
        for pattern in self.patterns:
            at = data.find(pattern[:1], max(start, len(data) - len(pattern) + 1), first)
            while at >= 0 and not pattern.startswith(data[at:]):
                at = data.find(pattern[:1], at + 1, first)
            if at >= 0:
                first = at
        return first


NO_SECRETS = Secrets(())


class Redactor:
    """One stream of bytes. Holds back its last bytes as long as they may be the beginning of a secret."""

    def __init__(self, secrets: Secrets) -> None:
        self._secrets = secrets
        self._held = b""

    def feed(self, chunk: bytes) -> bytes:
        """What can be passed on by now."""
        data, passed, position = self._held + chunk, list[bytes](), 0
        end = self._secrets.cut_off(data)
        for secret in self._secrets.found_in(data):
            # From here on it takes what is still to come to tell which secret it is, if any.
            if secret.start() >= end:
                break
            passed += [data[position : secret.start()], MASK]
            position = secret.end()
            if position > end:
                end = self._secrets.cut_off(data, position)
        passed.append(data[position:end])
        self._held = data[end:]
        return b"".join(passed)

    def end(self) -> bytes:
        """What was held back: nothing comes after it."""
        held, self._held = self._held, b""
        return self._secrets.hide(held)


class RedactingLogWriter(LogWriter):
    """A log without secrets."""

    def __init__(self, log_dir: Path, cap_bytes: int, secrets: Secrets) -> None:
        super().__init__(log_dir, cap_bytes)
        self._redactors = {stream: Redactor(secrets) for stream in (Stream.STDOUT, Stream.STDERR)}

    def write(self, stream: Stream, chunk: bytes) -> None:
        """See `LogWriter.write`."""
        super().write(stream, self._redactors[stream].feed(chunk))

    def end(self) -> None:
        """See `LogWriter.end`."""
        for stream, redactor in self._redactors.items():
            super().write(stream, redactor.end())
        super().end()


def _parts(value: str) -> Iterable[str]:
    value = value.strip()
    lines = [line.strip() for line in value.splitlines()]
    return [value, *(line for line in lines if len(line.encode("utf-8", "surrogateescape")) >= SHORTEST_LINE)]


def _spellings(text: str) -> Iterable[bytes]:
    """As it is, and as writers of JSON put it: some spell more than they must."""
    wide, ascii_only = json.dumps(text, ensure_ascii=False)[1:-1], json.dumps(text)[1:-1]
    for spelled in (text, wide, ascii_only, *(plain.translate(FOR_HTML) for plain in (wide, ascii_only))):
        yield from (it.encode("utf-8", "surrogateescape") for it in (spelled, spelled.replace("/", "\\/")))
