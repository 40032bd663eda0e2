"""Keeps secrets out of what is written: each place where one stands becomes `***`. Standard library only.

A secret is found as it is, in its lines (of a key in several lines each one that is not short), and however JSON spells
either: what a reader of the log decodes holds none. That is what a program prints by accident: one that encodes a
secret (base64, per cent) or takes it apart can't be stopped.
"""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from jobledger_server.joblog.json_escapes import SHORT, longest_spelling, plain, spans, without_escapes
from jobledger_server.joblog.segments import Kind, Stream
from jobledger_server.joblog.splitter import Cut
from jobledger_server.joblog.writer import LogWriter

MASK = b"***"
# A shorter line of a secret stands elsewhere too.
SHORTEST_LINE = 8
NUMBER = re.compile(rb"[-+.0-9eE]+")


class Secrets:
    """What must not be written."""

    def __init__(self, values: Iterable[str]) -> None:
        """Secrets with these values; bytes beyond UTF-8 as in `os.fsdecode`. White space around them does not count."""
        # Of several that begin at the same place the longest is meant, and `re` takes the first.
        parts = sorted({part for value in values for part in _parts(value)}, key=lambda part: (-len(part), part))
        self.patterns = [part.encode("utf-8", "surrogateescape") for part in parts]
        self._texts = sorted(filter(None, map(without_escapes, parts)))
        self._reach = max(map(longest_spelling, parts), default=0)
        # Without such characters nothing is escaped but by its code.
        self._escape = b"\\u" if SHORT.isdisjoint("".join(parts)) else b"\\"
        self.has_numbers = any(map(NUMBER.fullmatch, self.patterns))

    def __bool__(self) -> bool:
        return bool(self.patterns)

    def hide(self, data: bytes) -> bytes:
        """The bytes without secrets."""
        kept, position = list[bytes](), 0
        for start, end in self.found_in(data):
            kept += [data[position:start], MASK]
            position = end
        return b"".join((*kept, data[position:])) if kept else data

    def hide_in_text(self, text: str) -> str:
        """The same for a text."""
        return self.hide(text.encode("utf-8", "surrogateescape")).decode("utf-8", "surrogateescape")

    def hide_in_json(self, document: bytes) -> bytes:
        """The same for a JSON document, however it spells its characters.

        Raises:
            ValueError: it is none.
        """
        return self.hide(json.dumps(json.loads(document)).encode())

    def found_in(self, data: bytes) -> Iterator[tuple[int, int]]:
        """Where secrets begin and end in it, from left to right; those that overlap are one."""
        found = list(self._as_they_are(data))
        if self._escape in data:
            # Most escapes have to do with no secret, which this tells for much less.
            stripped = plain(data)
            if present := [text for text in self._texts if text in stripped]:
                found = sorted([*found, *spans(data, present)])
        return _joined(found)

    def _as_they_are(self, data: bytes) -> Iterator[tuple[int, int]]:
        """Those without escapes: of those that overlap the first, of those the longest.

        To look for each by itself first takes a tenth of what one search for all does.
        """
        present = [pattern for pattern in self.patterns if pattern in data]
        if present:
            search = re.compile(b"|".join(map(re.escape, present)))
            yield from (match.span() for match in search.finditer(data))

    def cut_off(self, data: bytes, start: int = 0) -> int:
        """Where, from `start` on, the first secret may begin that the end has cut off; else the end."""
        first = self._escaped_cut_off(data, start)
        for pattern in self.patterns:
            at = data.find(pattern[:1], max(start, len(data) - len(pattern) + 1), first)
            while at >= 0 and not pattern.startswith(data[at:]):
                at = data.find(pattern[:1], at + 1, first)
            if at >= 0:
                first = at
        return first

    def _escaped_cut_off(self, data: bytes, start: int) -> int:
        """The same for one with a backslash: anywhere within reach of the end, on its line. Lines come whole anyway."""
        first = max(start, len(data) - self._reach, data.rfind(b"\n") + 1)
        return first if b"\\" in data[first:] else len(data)


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
        for start, stop in self._secrets.found_in(data):
            # From here on it takes what is still to come to tell which secret it is, if any.
            if start >= end:
                break
            passed += [data[position:start], MASK]
            position = stop
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
        self._secrets = secrets
        self._redactors = {stream: Redactor(secrets) for stream in (Stream.STDOUT, Stream.STDERR)}

    def write(self, stream: Stream, chunk: bytes) -> None:
        """See `LogWriter.write`."""
        super().write(stream, self._redactors[stream].feed(chunk))

    def end(self) -> None:
        """See `LogWriter.end`."""
        for stream, redactor in self._redactors.items():
            super().write(stream, redactor.end())
        super().end()

    def _add(self, stream: Stream, cut: Cut) -> None:
        """Numbers are shown anew: 1.2345e4 as 12345."""
        if cut.kind == Kind.STRUCTURED and self._secrets.has_numbers:
            lines = map(self._without_numbers, cut.data.split(b"\n"))
            cut = cut._replace(data=b"\n".join(lines))
        super()._add(stream, cut)

    def _without_numbers(self, line: bytes) -> bytes:
        found = False

        def shown(digits: str) -> float | str:
            nonlocal found
            number = float(digits)
            texts = {digits, repr(number), f"{number:.0f}"}
            if not any(self._secrets.hide_in_text(text) != text for text in texts):
                return int(digits) if digits.lstrip("-").isdigit() else number
            found = True
            return MASK.decode()

        if not line:
            return line
        fields = json.loads(line, parse_float=shown, parse_int=shown)
        return json.dumps(fields, ensure_ascii=False).encode() if found else line


def _joined(found: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Spans that are in order, with those that overlap made one."""
    begin, stop = -1, -1
    for start, end in found:
        if start >= stop:
            if begin >= 0:
                yield begin, stop
            begin = start
        stop = max(stop, end)
    if begin >= 0:
        yield begin, stop


def _parts(value: str) -> Iterable[str]:
    value = value.strip()
    lines = [line.strip() for line in value.splitlines()]
    return [value, *(line for line in lines if len(line.encode("utf-8", "surrogateescape")) >= SHORTEST_LINE)]
