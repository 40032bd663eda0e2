"""The copy of the audit log as lines of JSON, for programs that collect logs; begun anew when it has grown large."""

import errno
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jobledger.v1.engine_service_pb2 import AuditDecision, AuditEntry

from jobledger_server.access.private_files import open_directory, read_private
from jobledger_server.core.times import micros, rfc3339

MOST_BYTES, OLDER_FILES = 16 * 1024 * 1024, 4
TAIL_BYTES = 64 * 1024
NAME = "audit.jsonl"


class AuditFile:
    """`audit.jsonl` in a directory of its own (0600 in 0700), and `audit.jsonl.1` and so on, the newest first.

    An entry that was written when the server was killed may be there again; each has its number.
    """

    def __init__(self, directory: Path, *, most_bytes: int = MOST_BYTES) -> None:
        self.path = directory / NAME
        self._most_bytes = most_bytes

    def last(self) -> int:
        """Number of the last entry; 0 where there is none.

        Raises:
            PrivateFileError: the directory or the file is a link, someone else's or open to others.
        """
        open_directory(self.path.parent)
        newest = read_private(self.path) or b""
        if newest and not newest.endswith(b"\n"):
            # A crash cut the line off.
            self._write(b"\n")
        for data in (newest, read_private(self._older(1)) or b""):
            for line in reversed(data[-TAIL_BYTES:].splitlines()):
                if number := _number(line):
                    return number
        return 0

    def append(self, entries: Sequence[AuditEntry]) -> None:
        """Adds a line for each.

        Raises:
            OSError: the file can't be written.
        """
        if self._write(b"".join(map(_line, entries))) >= self._most_bytes:
            self._begin_anew()

    def _write(self, data: bytes) -> int:
        """All of it or nothing. Returns how large the file is then."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(self.path, flags, 0o600), "ab", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            written = file.write(data)
            if written < len(data):
                # As with a full disk: the next try begins on a line of its own.
                file.truncate(size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
            return size + len(data)

    def _begin_anew(self) -> None:
        for number in range(OLDER_FILES, 1, -1):
            if self._older(number - 1).exists():
                self._older(number - 1).replace(self._older(number))
        self.path.replace(self._older(1))

    def _older(self, number: int) -> Path:
        return self.path.with_name(f"{NAME}.{number}")


def _number(line: bytes) -> int:
    """The entry's number; 0 of a line that a crash cut off."""
    try:
        return int(json.loads(line)["number"])
    except (ValueError, KeyError, TypeError):
        return 0


def _line(entry: AuditEntry) -> bytes:
    values: dict[str, Any] = {
        "number": entry.number,
        "at": rfc3339(micros(entry.at)),
        "token_id": entry.token_id,
        "subject": entry.subject,
        "method": entry.method,
        "object": entry.object,
        "decision": AuditDecision.Name(entry.decision).removeprefix("AUDIT_DECISION_").lower(),
        "reason": entry.reason,
        "peer": entry.peer,
        "request_id": entry.request_id,
        "count": entry.count,
    }
    return json.dumps(values).encode() + b"\n"
